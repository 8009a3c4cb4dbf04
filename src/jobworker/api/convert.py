"""The model to protobuf messages and back: pure functions, two for each type.

Owns, with limits.py and events.py: the meaning of each field of ``jobworker.v1`` in terms of
``jobworker.model``.  Not enums and times (scalars.py), not errors (status.py), not the hand-made
encoding of output chunks (wire.py).

``x_from_proto`` refuses what the model refuses.  Of a request, that is the caller's mistake:
InvalidArgumentError.  Of an answer (``job_from_proto``, ``page_from_proto``, ``event_from_proto``)
it is the service's, or the service is newer than this client: DataLossError.  In both directions
an enum value that this version does not know is such an error, while fields that it does not know
are ignored; where ignoring would be a broken promise, ask ``fields.refuse_unknown_fields`` first.
"""

from __future__ import annotations

import datetime
from typing import Final

from jobworker.api.fields import given, present, reading_an_answer, shown_text
from jobworker.api.limits import (
    effective_limit_from_proto,
    effective_limit_to_proto,
    limit_change_from_proto,
    limit_change_to_proto,
    limits_from_proto,
    limits_to_proto,
)
from jobworker.api.scalars import (
    ISOLATION_NUMBERS,
    ON_OUTPUT_LIMIT_NUMBERS,
    REASON_NUMBERS,
    STATE_NUMBERS,
    duration_from_proto,
    duration_to_proto,
    member,
    time_from_proto,
    time_to_proto,
)
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import InvalidArgumentError
from jobworker.model.ending import Ending
from jobworker.model.ids import JobId, UserName, is_job_id_prefix, parse_user_name
from jobworker.model.job import Job, JobFilter, JobPage
from jobworker.model.spec import LABELS_MAX, Isolation, JobSpec
from jobworker.model.usage import OutputTotals, Pressure, Usage


def spec_to_proto(spec: JobSpec) -> pb.JobSpec:
    on_output_limit = None
    if spec.on_output_limit is not None:
        on_output_limit = ON_OUTPUT_LIMIT_NUMBERS[spec.on_output_limit]
    return pb.JobSpec(
        argv=spec.argv,
        env=spec.env,
        cwd=spec.cwd or "",
        timeout=None if spec.timeout_s is None else duration_to_proto(spec.timeout_s),
        name=shown_text(spec.name),
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
    fields = given(usage)
    for name in _PRESSURES & fields.keys():
        fields[name] = pb.Pressure(**given(fields[name]))
    return pb.Usage(**fields)


def usage_from_proto(message: pb.Usage) -> Usage:
    fields = present(message)
    for name in _PRESSURES & fields.keys():
        fields[name] = Pressure(**{"some_us": 0, **present(fields[name])})
    return Usage(**fields)


def totals_to_proto(totals: OutputTotals) -> pb.OutputTotals:
    return pb.OutputTotals(**given(totals))


def totals_from_proto(message: pb.OutputTotals) -> OutputTotals:
    return OutputTotals(**present(message))


def ending_to_proto(ending: Ending) -> pb.Ending:
    return pb.Ending(
        reason=REASON_NUMBERS[ending.reason],
        exit_code=ending.exit_code,
        signal=ending.signal,
        stopped_by=shown_text(ending.stopped_by),
        message=shown_text(ending.message),
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
        conditions=map(shown_text, job.conditions),
        isolation=ISOLATION_NUMBERS[job.isolation],
        limit_changes=map(limit_change_to_proto, job.limit_changes),
        limit_changes_dropped=job.limit_changes_dropped,
    )


def job_from_proto(message: pb.Job) -> Job:
    """Raises DataLossError for what no service of this version sends."""
    with reading_an_answer():
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


def _optional_time(message: pb.Job, field: str) -> datetime.datetime | None:
    return time_from_proto(getattr(message, field), field) if message.HasField(field) else None
