"""Enums, durations and times on the wire and in the model: the small change of convert.py.

Source: the comments of google/protobuf/duration.proto and timestamp.proto.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import InvalidArgumentError
from jobworker.model.ending import EndReason
from jobworker.model.limits import Resource
from jobworker.model.output import Stream
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.model.state import JobState

_EnumT = TypeVar("_EnumT", bound=enum.Enum)

_NANOS: Final = 1_000_000_000
_MICROS: Final = 1_000_000
#: What a Duration and a Timestamp may hold, by the comments of duration.proto and timestamp.proto.
_DURATION_S_MAX: Final = 315_576_000_000
_TIMESTAMP_S_RANGE: Final = range(-62_135_596_800, 253_402_300_800)


def _numbers(kind: type[_EnumT], prefix: str, number: Callable[[str], int]) -> Mapping[_EnumT, Any]:
    """Each member and its number on the wire; a member without one fails at import."""
    return {member: number(prefix + member.name) for member in kind}


STATE_NUMBERS: Final[Mapping[JobState, pb.JobState]] = _numbers(
    JobState, "JOB_STATE_", pb.JobState.Value
)
REASON_NUMBERS: Final[Mapping[EndReason, pb.EndReason]] = _numbers(
    EndReason, "END_REASON_", pb.EndReason.Value
)
STREAM_NUMBERS: Final[Mapping[Stream, pb.OutputStream]] = _numbers(
    Stream, "OUTPUT_STREAM_", pb.OutputStream.Value
)
ON_OUTPUT_LIMIT_NUMBERS: Final[Mapping[OnOutputLimit, pb.OnOutputLimit]] = _numbers(
    OnOutputLimit, "ON_OUTPUT_LIMIT_", pb.OnOutputLimit.Value
)
ISOLATION_NUMBERS: Final[Mapping[Isolation, pb.Isolation]] = _numbers(
    Isolation, "ISOLATION_", pb.Isolation.Value
)
RESOURCE_NUMBERS: Final[Mapping[Resource, pb.Resource]] = _numbers(
    Resource, "RESOURCE_", pb.Resource.Value
)


def member(table: Mapping[_EnumT, Any], number: int, field: str) -> _EnumT:
    """The opposite of a look-up in one of the tables above; raises InvalidArgumentError."""
    for found, known in table.items():
        if known == number:
            return found
    raise InvalidArgumentError(field, number, "this version of jobworker knows no such value")


def duration_to_proto(seconds: float) -> Duration:
    """To the nearest nanosecond, but what is more than nothing stays more than nothing."""
    nanos = round(seconds * _NANOS)
    if seconds > 0:
        nanos = max(nanos, 1)
    return Duration(seconds=nanos // _NANOS, nanos=nanos % _NANOS)


def duration_from_proto(message: Duration, field: str) -> float:
    """Seconds, 0 or more; raises InvalidArgumentError for anything else."""
    if not 0 <= message.nanos < _NANOS or not 0 <= message.seconds <= _DURATION_S_MAX:
        value = message.seconds + message.nanos / _NANOS
        raise InvalidArgumentError(field, value, "it takes 0 or more seconds")
    # One division, so that what was rounded to a nanosecond comes back as the same float.
    return (message.seconds * _NANOS + message.nanos) / _NANOS


def micros_to_proto(micros: int) -> Timestamp:
    """From microseconds since 1970."""
    return Timestamp(seconds=micros // _MICROS, nanos=micros % _MICROS * 1000)


def micros_from_proto(message: Timestamp, field: str) -> int:
    """Microseconds since 1970, rounded down; raises InvalidArgumentError outside years 1-9999."""
    if not 0 <= message.nanos < _NANOS or message.seconds not in _TIMESTAMP_S_RANGE:
        value = message.seconds + message.nanos / _NANOS
        raise InvalidArgumentError(field, value, "it is no time of the years 1 to 9999")
    return message.seconds * _MICROS + message.nanos // 1000


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


def time_to_proto(moment: datetime.datetime) -> Timestamp:
    """moment: with a time zone."""
    return micros_to_proto((moment - _EPOCH) // _MICROSECOND)


def time_from_proto(message: Timestamp, field: str) -> datetime.datetime:
    """UTC; raises InvalidArgumentError outside years 1-9999."""
    return _EPOCH + micros_from_proto(message, field) * _MICROSECOND
