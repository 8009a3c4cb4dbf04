"""Option text to values of the model; raises InvalidArgumentError naming the option."""

from __future__ import annotations

import argparse
import datetime
import re
from collections.abc import Sequence
from typing import Final

from jobworker.errors import InvalidArgumentError
from jobworker.model.ids import RequestId, parse_request_id, parse_user_name
from jobworker.model.job import JobFilter
from jobworker.model.limits import Limits
from jobworker.model.spec import Isolation, JobSpec, OnOutputLimit
from jobworker.model.state import JobState
from jobworker.model.units import parse_bytes, parse_cpus, parse_duration_s

#: More digits than any amount here has.
_COUNT = re.compile(r"[0-9]{1,19}")
_MICROS: Final = 1_000_000


def spec_of(options: argparse.Namespace) -> JobSpec:
    """What ``run`` and ``start`` ask for."""
    on_output_limit = options.on_output_limit
    return JobSpec(
        argv=tuple(options.command),
        env=pairs_of("--env", options.env),
        cwd=options.cwd,
        timeout_s=None if options.timeout is None else _time(options.timeout, "--timeout"),
        name=options.name,
        labels=pairs_of("--label", options.label),
        limits=limits_of(options),
        max_output_bytes=_size(options.max_output, "--max-output"),
        on_output_limit=on_output_limit and OnOutputLimit(on_output_limit.upper()),
        isolation=options.isolation and Isolation(options.isolation.upper()),
    )


def limits_of(options: argparse.Namespace) -> Limits:
    """What the limit options ask for."""
    return Limits(
        cpu_millis=None if options.cpu is None else parse_cpus(options.cpu, field="--cpu"),
        memory_bytes=_size(options.memory, "--memory"),
        tasks=count_of(options.pids, "--pids"),
        io_read_bytes_per_s=_size(options.io_read, "--io-read"),
        io_write_bytes_per_s=_size(options.io_write, "--io-write"),
        io_read_ops_per_s=count_of(options.io_read_iops, "--io-read-iops"),
        io_write_ops_per_s=count_of(options.io_write_iops, "--io-write-iops"),
    )


def filter_of(options: argparse.Namespace) -> JobFilter:
    """Which jobs ``list`` asks for."""
    return JobFilter(
        owner=None if options.owner is None else parse_user_name(options.owner),
        states=frozenset(JobState[state.upper()] for state in options.state),
        labels=pairs_of("--label", options.label),
    )


def request_id_of(options: argparse.Namespace) -> RequestId | None:
    """The caller's own id of a start."""
    return None if options.request_id is None else parse_request_id(options.request_id)


def grace_of(options: argparse.Namespace) -> float | None:
    """Seconds from SIGTERM to SIGKILL; ``None`` is the service's choice."""
    if options.kill:
        return 0.0
    return None if options.grace is None else _time(options.grace, "--grace")


def pairs_of(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``K=V`` each; the last one of a key wins, as in a shell."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgumentError(option, text, "it takes K=V")
        pairs[key] = value
    return pairs


def count_of(text: str | None, option: str) -> int | None:
    """A whole number, 0 or more."""
    if text is None:
        return None
    if _COUNT.fullmatch(text) is None:
        raise InvalidArgumentError(option, text, "it takes a whole number, 0 or more")
    return int(text)


def interval_of(text: str) -> float:
    """Seconds, more than none."""
    seconds = _time(text, "--interval")
    if seconds <= 0:
        raise InvalidArgumentError("--interval", text, "it takes more than 0 seconds")
    return seconds


def since_of(text: str, *, now: datetime.datetime) -> int:
    """Microseconds since 1970, from an RFC 3339 time or from how long ago it was.

    A time without an offset is one of this machine's, as date(1) takes it.
    """
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        try:
            ago = datetime.timedelta(seconds=_time(text, "--since"))
        except InvalidArgumentError as error:
            why = "it takes a time such as 2026-11-24T10:00:00Z, or how long ago, such as 5m"
            raise InvalidArgumentError("--since", text, why) from error
        moment = now - ago
    return max(0, round(moment.timestamp() * _MICROS))


def _size(text: str | None, option: str) -> int | None:
    return None if text is None else parse_bytes(text, field=option)


def _time(text: str, option: str) -> float:
    return parse_duration_s(text, field=option)
