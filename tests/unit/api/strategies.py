"""Hypothesis strategies for every record that crosses the wire."""

from __future__ import annotations

import datetime

from hypothesis import strategies as st

from jobworker.errors import InvalidLimitError
from jobworker.model.ending import Ending, EndReason
from jobworker.model.ids import JOB_ID_ALPHABET, JOB_ID_CHARS, JobId, UserName
from jobworker.model.job import Job, JobFilter, JobPage, LimitChange
from jobworker.model.limits import EffectiveLimit, Limits, Resource
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream
from jobworker.model.spec import LABELS_MAX, Isolation, JobSpec, OnOutputLimit
from jobworker.model.state import JobState
from jobworker.model.usage import OutputTotals, Pressure, Usage

#: Any Unicode text without NUL: what a process can be given and a message can carry.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
counts = st.integers(0, (1 << 63) - 1)
seconds = st.floats(0, 1e9)
job_ids = st.text(JOB_ID_ALPHABET, min_size=JOB_ID_CHARS, max_size=JOB_ID_CHARS).map(JobId)
user_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,20}", fullmatch=True).map(UserName)
times = st.datetimes(
    datetime.datetime(1970, 1, 1),  # noqa: DTZ001 -- the strategy wants them without
    datetime.datetime(9999, 12, 31),  # noqa: DTZ001
    timezones=st.just(datetime.UTC),
)
labels = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,10}", fullmatch=True),
    st.text(st.characters(categories=["L", "N", "P"]), max_size=20),
    max_size=min(4, LABELS_MAX),
)

limits = st.builds(
    Limits,
    cpu_millis=st.none() | st.integers(10, 8_192_000),
    memory_bytes=st.none() | st.integers(1 << 20, 1 << 62),
    tasks=st.none() | st.integers(1, 1 << 22),
    io_read_bytes_per_s=st.none() | st.integers(4096, 1 << 62),
    io_write_bytes_per_s=st.none() | st.integers(4096, 1 << 62),
    io_read_ops_per_s=st.none() | st.integers(2, (1 << 32) - 2),
    io_write_ops_per_s=st.none() | st.integers(2, (1 << 32) - 2),
)
effective_limits = st.builds(
    EffectiveLimit,
    resource=st.sampled_from(Resource),
    requested=counts,
    effective=st.none() | counts,
    device=texts,
    note=texts,
)
limit_changes = st.builds(
    LimitChange,
    changed_at=times,
    changed_by=user_names,
    before=limits,
    after=limits,
    effective=st.lists(effective_limits, max_size=3).map(tuple),
    outcome_unknown=st.booleans(),
)
#: Whole nanoseconds: what a Duration can hold.
timeouts = st.integers(1, 366 * 24 * 3600 * 1000).map(lambda millis: millis / 1000)
specs = st.builds(
    JobSpec,
    argv=st.tuples(texts.filter(bool), texts, texts) | st.tuples(texts.filter(bool)),
    env=st.dictionaries(texts.filter(lambda name: name and "=" not in name), texts, max_size=3),
    cwd=st.none() | texts.map(lambda text: "/" + text),
    timeout_s=st.none() | timeouts,
    name=st.text(st.characters(categories=["L", "N", "Zs"]), max_size=40),
    labels=labels,
    limits=limits,
    max_output_bytes=st.none() | st.integers(0, (1 << 62) - 1),
    on_output_limit=st.none() | st.sampled_from(OnOutputLimit),
    isolation=st.none() | st.sampled_from(Isolation),
)
pressures = st.builds(Pressure, some_us=counts, full_us=st.none() | counts)
usages = st.builds(
    Usage,
    cpu_seconds=st.none() | seconds,
    cpu_throttled_seconds=st.none() | seconds,
    memory_bytes=st.none() | counts,
    memory_peak_bytes=st.none() | counts,
    tasks=st.none() | counts,
    io_read_bytes=st.none() | counts,
    io_write_bytes=st.none() | counts,
    io_read_ops=st.none() | counts,
    io_write_ops=st.none() | counts,
    oom_kills=st.none() | counts,
    tasks_refused=st.none() | counts,
    cpu_pressure=st.none() | pressures,
    memory_pressure=st.none() | pressures,
    io_pressure=st.none() | pressures,
)
totals = st.builds(OutputTotals, stdout_bytes=counts, stderr_bytes=counts, dropped_bytes=counts)
endings = st.builds(
    Ending,
    reason=st.sampled_from(EndReason),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    stopped_by=texts,
    message=texts,
    usage=usages,
    output=totals,
)
jobs = st.builds(
    Job,
    id=job_ids,
    owner=user_names,
    state=st.sampled_from(JobState),
    spec=specs,
    isolation=st.sampled_from(Isolation),
    limits=limits,
    effective=st.lists(effective_limits, max_size=3).map(tuple),
    created_at=times,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    ending=st.none() | endings,
    usage=usages,
    output=totals,
    conditions=st.lists(texts, max_size=2).map(tuple),
    limit_changes=st.lists(limit_changes, max_size=2).map(tuple),
    limit_changes_dropped=st.integers(0, (1 << 32) - 1),
)
pages = st.builds(JobPage, jobs=st.lists(jobs, max_size=2).map(tuple), next_page_token=texts)
filters = st.builds(
    JobFilter,
    owner=st.none() | user_names,
    states=st.frozensets(st.sampled_from(JobState)),
    labels=labels,
    id_prefix=st.text(JOB_ID_ALPHABET, max_size=JOB_ID_CHARS),
)
chunks = st.builds(
    Chunk,
    offset=counts,
    stream=st.sampled_from(Stream),
    time_us=st.integers(-(1 << 63), (1 << 63) - 1),
    data=st.binary(max_size=400),
)
events = (
    chunks
    | st.builds(Heartbeat, offset=counts)
    | st.builds(EndOfOutput, totals=totals, ending=st.none() | endings)
)


def invalid_limit() -> InvalidLimitError:
    """One of those that the model raises."""
    try:
        Limits(cpu_millis=1)
    except InvalidLimitError as error:
        return error
    raise AssertionError
