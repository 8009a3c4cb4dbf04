"""The model to protobuf messages and back: pure functions, two for each type.

Owns: the meaning of each field of ``jobworker.v1`` in terms of ``jobworker.model``.  Not enums and
times (scalars.py), not errors (status.py), not the hand-made encoding of output chunks (wire.py).

``x_from_proto`` refuses what the model refuses.  Of a request, that is the caller's mistake:
InvalidArgumentError.  Of an answer (``job_from_proto``, ``page_from_proto``, ``event_from_proto``)
it is the service's, or the service is newer than this client: DataLossError.  In both directions
an enum value that this version does not know is such an error, while fields that it does not know
are ignored; where ignoring would be a broken promise, ask ``refuse_unknown_fields`` first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from jobworker.api.scalars import (
    ISOLATION_NUMBERS,
    ON_OUTPUT_LIMIT_NUMBERS,
    REASON_NUMBERS,
    RESOURCE_NUMBERS,
    STATE_NUMBERS,
    STREAM_NUMBERS,
    duration_from_proto,
    duration_to_proto,
    member,
    time_from_proto,
    time_to_proto,
)
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import DataLossError, InvalidArgumentError
from jobworker.model.ending import Ending
from jobworker.model.ids import JobId, UserName, is_job_id_prefix, parse_user_name
from jobworker.model.job import Job, JobFilter, JobPage, LimitChange
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream
from jobworker.model.spec import LABELS_MAX, Isolation, JobSpec
from jobworker.model.usage import OutputTotals, Pressure, Usage


def refuse_unknown_fields(message: Message, name: str) -> None:
    """Raises InvalidArgumentError if a newer peer set fields that would be dropped here.

    For requests in which a dropped field would be a promise not kept, such as a limit.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        why = "this version of jobworker knows no such field"
        raise InvalidArgumentError(f"{name} field", unknown[0].field_number, why)


def limits_to_proto(limits: Limits) -> pb.Limits:
    return pb.Limits(**_given(limits))


def limits_from_proto(message: pb.Limits) -> Limits:
    """Raises InvalidLimitError."""
    return Limits(**_present(message))


def effective_limit_to_proto(limit: EffectiveLimit) -> pb.EffectiveLimit:
    return pb.EffectiveLimit(
        resource=RESOURCE_NUMBERS[limit.resource],
        requested=limit.requested,
        effective=limit.effective,
        device=_text(limit.device),
        note=_text(limit.note),
    )


def effective_limit_from_proto(message: pb.EffectiveLimit) -> EffectiveLimit:
    return EffectiveLimit(
        resource=member(RESOURCE_NUMBERS, message.resource, "effective_limits.resource"),
        requested=message.requested,
        effective=message.effective if message.HasField("effective") else None,
        device=message.device,
        note=message.note,
    )


def limit_change_to_proto(change: LimitChange) -> pb.LimitChange:
    return pb.LimitChange(
        changed_at=time_to_proto(change.changed_at),
        changed_by=change.changed_by,
        before=limits_to_proto(change.before),
        after=limits_to_proto(change.after),
        effective_limits=map(effective_limit_to_proto, change.effective),
        outcome_unknown=change.outcome_unknown,
    )


def limit_change_from_proto(message: pb.LimitChange) -> LimitChange:
    return LimitChange(
        changed_at=time_from_proto(message.changed_at, "limit_changes.changed_at"),
        changed_by=UserName(message.changed_by),
        before=limits_from_proto(message.before),
        after=limits_from_proto(message.after),
        effective=tuple(map(effective_limit_from_proto, message.effective_limits)),
        outcome_unknown=message.outcome_unknown,
    )


def spec_to_proto(spec: JobSpec) -> pb.JobSpec:
    on_output_limit = None
    if spec.on_output_limit is not None:
        on_output_limit = ON_OUTPUT_LIMIT_NUMBERS[spec.on_output_limit]
    return pb.JobSpec(
        argv=spec.argv,
        env=spec.env,
        cwd=spec.cwd or "",
        timeout=None if spec.timeout_s is None else duration_to_proto(spec.timeout_s),
        name=_text(spec.name),
        labels=spec.labels,
        limits=None if spec.limits.is_empty else limits_to_proto(spec.limits),
        max_output_bytes=spec.max_output_bytes,
        on_output_limit=on_output_limit,
        isolation=None if spec.isolation is None else ISOLATION_NUMBERS[spec.isolation],
    )


def spec_from_proto(message: pb.JobSpec) -> JobSpec:
    """Raises InvalidArgumentError, naming the field."""
    timeout_s = None
    if message.HasField("timeout"):
        timeout_s = duration_from_proto(message.timeout, "timeout")
    on_output_limit = None
    if message.on_output_limit != pb.ON_OUTPUT_LIMIT_UNSPECIFIED:
        on_output_limit = member(
            ON_OUTPUT_LIMIT_NUMBERS, message.on_output_limit, "on_output_limit"
        )
    return JobSpec(
        argv=tuple(message.argv),
        env=dict(message.env),
        cwd=message.cwd or None,
        timeout_s=timeout_s,
        name=message.name,
        labels=dict(message.labels),
        limits=limits_from_proto(message.limits),
        max_output_bytes=message.max_output_bytes if message.HasField("max_output_bytes") else None,
        on_output_limit=on_output_limit,
        isolation=_isolation(message.isolation),
    )


def _isolation(number: int) -> Isolation | None:
    """None where nothing is said, as by a service from before there was isolation."""
    if number == pb.ISOLATION_UNSPECIFIED:
        return None
    return member(ISOLATION_NUMBERS, number, "isolation")


_PRESSURES: Final = frozenset({"cpu_pressure", "memory_pressure", "io_pressure"})


def usage_to_proto(usage: Usage) -> pb.Usage:
    given = _given(usage)
    for name in _PRESSURES & given.keys():
        given[name] = pb.Pressure(**_given(given[name]))
    return pb.Usage(**given)


def usage_from_proto(message: pb.Usage) -> Usage:
    present = _present(message)
    for name in _PRESSURES & present.keys():
        present[name] = Pressure(**{"some_us": 0, **_present(present[name])})
    return Usage(**present)


def totals_to_proto(totals: OutputTotals) -> pb.OutputTotals:
    return pb.OutputTotals(**_given(totals))


def totals_from_proto(message: pb.OutputTotals) -> OutputTotals:
    return OutputTotals(**_present(message))


def ending_to_proto(ending: Ending) -> pb.Ending:
    return pb.Ending(
        reason=REASON_NUMBERS[ending.reason],
        exit_code=ending.exit_code,
        signal=ending.signal,
        stopped_by=_text(ending.stopped_by),
        message=_text(ending.message),
        usage=usage_to_proto(ending.usage),
        output=totals_to_proto(ending.output),
    )


def ending_from_proto(message: pb.Ending) -> Ending:
    return Ending(
        reason=member(REASON_NUMBERS, message.reason, "ending.reason"),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        stopped_by=message.stopped_by,
        message=message.message,
        usage=usage_from_proto(message.usage),
        output=totals_from_proto(message.output),
    )


def job_to_proto(job: Job) -> pb.Job:
    return pb.Job(
        id=job.id,
        owner=job.owner,
        state=STATE_NUMBERS[job.state],
        spec=spec_to_proto(job.spec),
        limits=limits_to_proto(job.limits),
        effective_limits=map(effective_limit_to_proto, job.effective),
        created_at=time_to_proto(job.created_at),
        started_at=None if job.started_at is None else time_to_proto(job.started_at),
        ended_at=None if job.ended_at is None else time_to_proto(job.ended_at),
        ending=None if job.ending is None else ending_to_proto(job.ending),
        usage=usage_to_proto(job.usage),
        output=totals_to_proto(job.output),
        conditions=map(_text, job.conditions),
        isolation=ISOLATION_NUMBERS[job.isolation],
        limit_changes=map(limit_change_to_proto, job.limit_changes),
        limit_changes_dropped=job.limit_changes_dropped,
    )


def job_from_proto(message: pb.Job) -> Job:
    """Raises DataLossError for what no service of this version sends."""
    with _reading_an_answer():
        return _job_from_proto(message)


def _job_from_proto(message: pb.Job) -> Job:
    return Job(
        id=JobId(message.id),
        owner=UserName(message.owner),
        state=member(STATE_NUMBERS, message.state, "state"),
        spec=spec_from_proto(message.spec),
        limits=limits_from_proto(message.limits),
        effective=tuple(map(effective_limit_from_proto, message.effective_limits)),
        created_at=time_from_proto(message.created_at, "created_at"),
        started_at=_optional_time(message, "started_at"),
        ended_at=_optional_time(message, "ended_at"),
        ending=ending_from_proto(message.ending) if message.HasField("ending") else None,
        usage=usage_from_proto(message.usage),
        output=totals_from_proto(message.output),
        conditions=tuple(message.conditions),
        isolation=_isolation(message.isolation) or Isolation.NONE,
        limit_changes=tuple(map(limit_change_from_proto, message.limit_changes)),
        limit_changes_dropped=message.limit_changes_dropped,
    )


def page_to_proto(page: JobPage) -> pb.ListJobsResponse:
    return pb.ListJobsResponse(
        jobs=map(job_to_proto, page.jobs), next_page_token=page.next_page_token
    )


def page_from_proto(message: pb.ListJobsResponse) -> JobPage:
    """Raises DataLossError for what no service of this version sends."""
    return JobPage(
        jobs=tuple(map(job_from_proto, message.jobs)), next_page_token=message.next_page_token
    )


def filter_to_proto(wanted: JobFilter) -> pb.JobFilter:
    """Raises InvalidArgumentError for text that is not Unicode."""
    try:
        return pb.JobFilter(
            owner=wanted.owner or "",
            states=sorted(STATE_NUMBERS[state] for state in wanted.states),
            labels=wanted.labels,
            id_prefix=wanted.id_prefix,
        )
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("filter", error.object, "it must be UTF-8") from error


def filter_from_proto(message: pb.JobFilter) -> JobFilter:
    """Raises InvalidArgumentError, naming the field."""
    if message.id_prefix and not is_job_id_prefix(message.id_prefix):
        raise InvalidArgumentError("id_prefix", message.id_prefix, "no job id begins like that")
    if len(message.labels) > LABELS_MAX:
        raise InvalidArgumentError(
            "labels", f"of {len(message.labels)} items", f"the most is {LABELS_MAX}"
        )
    return JobFilter(
        owner=parse_user_name(message.owner) if message.owner else None,
        states=frozenset(member(STATE_NUMBERS, number, "states") for number in message.states),
        labels=dict(message.labels),
        id_prefix=message.id_prefix,
    )


def stream_to_proto(stream: Stream | None) -> pb.OutputStream:
    """``None`` is both."""
    return pb.OUTPUT_STREAM_UNSPECIFIED if stream is None else STREAM_NUMBERS[stream]


def stream_from_proto(number: int) -> Stream | None:
    """``None`` is both; raises InvalidArgumentError."""
    if number == pb.OUTPUT_STREAM_UNSPECIFIED:
        return None
    return member(STREAM_NUMBERS, number, "stream")


def event_to_proto(event: Chunk | Heartbeat | EndOfOutput) -> pb.StreamOutputResponse:
    match event:
        case Chunk():
            chunk = pb.OutputChunk(
                data=event.data,
                offset=event.offset,
                stream=STREAM_NUMBERS[event.stream],
                time_us=event.time_us,
            )
            return pb.StreamOutputResponse(chunk=chunk)
        case Heartbeat():
            return pb.StreamOutputResponse(heartbeat=pb.OutputHeartbeat(offset=event.offset))
        case EndOfOutput():
            end = pb.OutputEnd(
                totals=totals_to_proto(event.totals),
                ending=None if event.ending is None else ending_to_proto(event.ending),
            )
            return pb.StreamOutputResponse(end=end)


def event_from_proto(message: pb.StreamOutputResponse) -> Chunk | Heartbeat | EndOfOutput:
    """Raises DataLossError for what no service of this version sends."""
    with _reading_an_answer():
        match message.WhichOneof("event"):
            case "chunk":
                chunk = message.chunk
                stream = member(STREAM_NUMBERS, chunk.stream, "chunk.stream")
                return Chunk(chunk.offset, stream, chunk.time_us, chunk.data)
            case "heartbeat":
                return Heartbeat(message.heartbeat.offset)
            case "end":
                end = message.end
                ending = ending_from_proto(end.ending) if end.HasField("ending") else None
                return EndOfOutput(totals_from_proto(end.totals), ending)
            case other:
                why = "this version of jobworker knows no such event"
                raise InvalidArgumentError("event", other, why)


@contextlib.contextmanager
def _reading_an_answer() -> Iterator[None]:
    try:
        yield
    except InvalidArgumentError as error:
        raise DataLossError("read the answer of the service", str(error)) from error


def _optional_time(message: pb.Job, field: str) -> datetime.datetime | None:
    return time_from_proto(getattr(message, field), field) if message.HasField(field) else None


def _given(record: Limits | Usage | OutputTotals | Pressure) -> dict[str, Any]:
    """The fields that are set.  The messages of these records have fields of the same names."""
    found = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {name: value for name, value in found if value is not None}


def _present(message: Message) -> dict[str, Any]:
    """The fields that are set, a zero too if the field is ``optional``; unknown ones left out."""
    return {field.name: value for field, value in message.ListFields()}


def _text(text: str) -> str:
    """With ``?`` for what is not Unicode, such as a path that the kernel named: shown to people."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
