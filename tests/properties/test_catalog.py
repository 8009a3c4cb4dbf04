"""Laws of the journal: a filter means the same in SQL and in memory, pages tile the list."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.errors import InvalidArgumentError
from jobworker.jobs import catalog, journal
from jobworker.jobs.registry import is_match
from jobworker.model import (
    Ending,
    EndReason,
    Job,
    JobFilter,
    JobId,
    JobSpec,
    JobState,
    Limits,
    OutputTotals,
    RequestId,
    UserName,
)
from jobworker.model.ids import JOB_ID_ALPHABET, JOB_ID_CHARS

_OWNERS = st.sampled_from([UserName("alice"), UserName("bob"), UserName("a_b%")])
_LABELS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2", ""]))
#: Two letters only, so that prefixes are shared.
_IDS = st.text(alphabet=JOB_ID_ALPHABET[:2], min_size=JOB_ID_CHARS, max_size=JOB_ID_CHARS)
_TIMES = st.integers(0, 3).map(
    lambda seconds: datetime.datetime(2030, 1, 1, 0, 0, seconds, 123456, datetime.UTC)
)


@st.composite
def _jobs(draw: st.DrawFn) -> Job:
    state = draw(st.sampled_from(JobState))
    created = draw(_TIMES)
    totals = OutputTotals(stdout_bytes=draw(st.integers(0, 1 << 40)))
    is_ended = state is JobState.ENDED
    return Job(
        id=JobId(draw(_IDS)),
        owner=draw(_OWNERS),
        state=state,
        spec=JobSpec(argv=("true", "é\n"), labels=draw(_LABELS)),
        limits=Limits(cpu_millis=100),
        created_at=created,
        ended_at=created + datetime.timedelta(seconds=draw(st.integers(0, 9)))
        if is_ended
        else None,
        ending=Ending(reason=EndReason.EXITED, exit_code=3, output=totals) if is_ended else None,
        output=totals if is_ended else OutputTotals(),
    )


_JOBS = st.lists(_jobs(), max_size=12, unique_by=lambda job: job.id)
_FILTERS = st.builds(
    JobFilter,
    owner=st.none() | _OWNERS,
    states=st.frozensets(st.sampled_from(JobState)),
    labels=_LABELS,
    id_prefix=st.text(alphabet=JOB_ID_ALPHABET[:3], max_size=3),
)


def _entry(job: Job, request_id: str | None = None, fingerprint: bytes = b"") -> catalog.Entry:
    request = None if request_id is None else RequestId(request_id)
    return catalog.Entry(job=job, request_id=request, fingerprint=fingerprint)


@contextlib.contextmanager
def _recorded(jobs: list[Job]) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.executescript(f"{journal._SCHEMA} {journal._REMOVALS};")
        for job in jobs:
            catalog.put(connection, _entry(job))
        yield connection


@given(jobs=_JOBS, which=_FILTERS, size=st.integers(1, 5))
def test_pages_are_the_matching_jobs_once_each_newest_first(
    jobs: list[Job], which: JobFilter, size: int
) -> None:
    with _recorded(jobs) as connection:
        seen: list[Job] = []
        token = ""
        while True:
            page, token = catalog.page(connection, which, size, token)
            assert len(page) <= size
            seen += page
            if not token:
                break
            assert page, "a page that is not the last has jobs"
    expected = sorted(
        (job for job in jobs if is_match(which, job)),
        key=lambda job: (job.created_at, job.id),
        reverse=True,
    )
    assert seen == expected


@given(jobs=_JOBS)
def test_what_is_recorded_is_found_as_it_was(jobs: list[Job]) -> None:
    with _recorded(jobs) as connection:
        for job in jobs:
            assert catalog.load(connection, job.id) == job
            assert catalog.owner_of(connection, job.id) == job.owner
        ended = [job for job in jobs if job.state is JobState.ENDED]
        assert {job.id for job in catalog.live_jobs(connection)} == {
            job.id for job in jobs if job not in ended
        }
        assert catalog.count_ended(connection) == len(ended)
        oldest = [job_id for job_id, _ in catalog.oldest_ended(connection, 100)]
        assert oldest == [
            job.id for job in sorted(ended, key=lambda job: (job.ended_at or _NEVER, job.id))
        ]
        totals: dict[UserName, int] = {}
        for job in ended:
            totals[job.owner] = totals.get(job.owner, 0) + job.output.kept_bytes
        assert catalog.kept_bytes(connection) == totals
        for job in jobs:
            assert catalog.delete(connection, job.id)
            assert not catalog.delete(connection, job.id)
            assert catalog.load(connection, job.id) is None
        assert connection.execute("SELECT COUNT(*) FROM labels").fetchone() == (0,)


_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)


@given(
    jobs=st.lists(_jobs(), max_size=8, unique_by=lambda job: job.id),
    requests=st.lists(st.sampled_from(["r1", "r2", None]), min_size=8, max_size=8),
)
def test_of_equal_requests_of_an_owner_the_first_one_counts(
    jobs: list[Job], requests: list[str | None]
) -> None:
    first: dict[tuple[str, str], JobId] = {}
    with _recorded([]) as connection:
        for job, request in zip(jobs, requests, strict=False):
            entry = catalog.insert(connection, _entry(job, request, job.id.encode()))
            if request is None:
                assert entry.job == job
                continue
            expected = first.setdefault((job.owner, request), job.id)
            assert (entry.job.id, entry.fingerprint) == (expected, expected.encode())
            found = catalog.find_request(connection, job.owner, RequestId(request))
            assert found is not None
            assert found.job.id == expected


@given(owners=st.lists(_OWNERS, max_size=8), count=st.integers(1, 3))
def test_each_owner_has_one_user_id_that_no_other_has(owners: list[UserName], count: int) -> None:
    with _recorded([]) as connection:
        given_out: dict[UserName, int] = {}
        for owner in owners:
            uid = catalog.uid_of(connection, owner, 5000, count)
            if uid is None:
                assert len(given_out) == count
                assert owner not in given_out
            else:
                assert given_out.setdefault(owner, uid) == uid
                assert 5000 <= uid < 5000 + count
        assert len(set(given_out.values())) == len(given_out)


@given(token=st.text(min_size=1, max_size=20))
def test_a_token_that_is_not_ours_is_refused_or_harmless(token: str) -> None:
    with _recorded([]) as connection:
        try:
            jobs, after = catalog.page(connection, JobFilter(), 5, token)
        except InvalidArgumentError:
            return
        assert (jobs, after) == ([], "")


@pytest.mark.parametrize("token", ["9" * 30 + ".0", "1.", ".x", "-1.x", "٣.x", "1"])
def test_odd_tokens_are_refused(token: str) -> None:
    with _recorded([]) as connection, pytest.raises(InvalidArgumentError, match="page_token"):
        catalog.page(connection, JobFilter(), 5, token)
