"""SIGKILL for the worker's process at each step of a start, a stop, a change and a removal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from jobworker.errors import JobNotFoundError, StartFailedError
from jobworker.model import EndReason, JobId, JobState, Limits
from jobworker.shim.shim import ORDER
from support.crash_points import REQUEST, CrashPoint, check_nothing_left
from support.faults import Writing, job_cgroups, witness_directory
from support.guards import need
from support.worker import ALICE, BOB, ROOT, WorkerPlace, collect

pytestmark = pytest.mark.anyio

#: What the process does that will be killed: one start, and then what is asked for by name.
_PROGRAM: Final = """
async def main(state_dir, cgroup_parent, argv, what):
    async with open_worker(Path(state_dir), WorkerSettings(cgroup_parent=cgroup_parent)) as worker:
        spec = JobSpec(argv=tuple(json.loads(argv)), labels={"writing": "w"})
        job = await worker.start(spec, owner="alice", request_id="once")
        if what == "change":
            await worker.update_limits(job.id, Limits(tasks=20), changed_by="root")
        if what == "stop":
            # Its shim is well under way, and looks at the record only when it is told to.
            async for _ in worker.follow(job.id):
                break
            await worker.stop(job.id, stopped_by="bob", grace_s=0)
        await worker.wait(job.id)
        if what == "delete":
            await worker.delete(job.id)
import asyncio, json, sys
from pathlib import Path
from jobworker.model import JobSpec, Limits
from jobworker.worker import WorkerSettings, open_worker
asyncio.run(main(*sys.argv[1:]))
"""


def point(owner: str, name: str, when: str, argument: str | bytes | None = None) -> CrashPoint:
    return CrashPoint(owner=f"jobworker.{owner}", name=name, when=when, argument=argument)


#: Nothing is recorded: the repeated request is the first one.
UNRECORDED: Final = [
    point("shim.launcher:Launcher", "_make_place", "before"),
    point("shim.launcher", "_try_send", "after"),
    point("shim.launcher:Launcher", "take", "before"),
    point("jobs.catalog", "insert", "before"),
]
#: The order is written while the row is: the journal may have it or not.
WRITING: Final = [
    point("jobs.starting:Starter", "_write_order", "before"),
    point("jobs.starting:Starter", "_write_order", "after"),
    point("jobs.directories:StateDirectory", "give_scratch", "after"),
]
#: Recorded, and no order given: the repeated request is told that it failed.
UNORDERED: Final = [
    point("shim.launcher:Launcher", "order", "before"),
    point("shim.launcher", "_try_send", "before", ORDER),
]
#: Ordered: the job starts, whoever lives.
ORDERED: Final = [
    point("shim.launcher", "_try_send", "after", ORDER),
    point("jobs.starting:Starter", "_take_up", "before"),
    point("jobs.registry:Registry", "change", "before"),
    point("jobs.registry:Registry", "change", "after"),
    point("jobs.catalog", "update", "before"),
]


async def run_killed(
    place: WorkerPlace, crash: CrashPoint, writing: Writing, witnesses: Path, what: str = ""
) -> None:
    """A worker in a process of its own, until it dies at the point."""
    settings = place.settings
    argv = json.dumps(writing.spec(witnesses).argv)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", crash.code + _PROGRAM),
        *(str(place.state_dir), str(settings.cgroup_parent), argv, what),
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL, "it was not killed at the point"


@pytest.mark.parametrize("crash", UNRECORDED, ids=str)
async def test_a_start_that_was_not_recorded_never_was(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=4, end=3)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses)
        async with place.open() as worker:
            assert not (await worker.list()).jobs
            job = await worker.start(writing.spec(witnesses), owner=ALICE, request_id=REQUEST)
            assert (await worker.wait(job.id)).ending is not None
        assert await check_nothing_left(place, writing.name, witnesses, cgroup_name)


@pytest.mark.parametrize("crash", WRITING, ids=str)
async def test_a_start_that_may_have_been_recorded_never_ran(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=4, end=3)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses)
        async with place.open() as worker:
            jobs = (await worker.list()).jobs
            assert [job.ending and job.ending.reason for job in jobs] in (
                [],
                [EndReason.START_FAILED],
            )
        assert not await check_nothing_left(place, writing.name, witnesses, cgroup_name)


@pytest.mark.parametrize("crash", UNORDERED, ids=str)
async def test_a_start_that_was_only_recorded_failed(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=4, end=3)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses)
        async with place.open() as worker:
            (job,) = (await worker.list()).jobs
            assert job.ending is not None
            assert job.ending.reason is EndReason.START_FAILED
            assert "interrupted" in job.ending.message
            with pytest.raises(StartFailedError, match="interrupted"):
                await worker.start(writing.spec(witnesses), owner=ALICE, request_id=REQUEST)
        assert not await check_nothing_left(place, writing.name, witnesses, cgroup_name)


@pytest.mark.parametrize("crash", ORDERED, ids=str)
async def test_a_start_that_was_ordered_is_the_one_job(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=20, period_s=0.02, end=3)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses)
        async with place.open() as worker:
            spec = writing.spec(witnesses)
            job = await worker.start(spec, owner=ALICE, request_id=REQUEST)
            output = await collect(worker, job.id)
            assert (output.stdout, output.stderr) == writing.expected()
            assert (output.ending.reason, output.ending.exit_code) == (EndReason.EXITED, 3)
            assert [one.id for one in (await worker.list()).jobs] == [job.id]
        assert await check_nothing_left(place, writing.name, witnesses, cgroup_name)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_recorded_stop_is_carried_through(
    place: WorkerPlace, cgroup_name: str, when: str
) -> None:
    writing = Writing(name="w", lines=1000, period_s=1)
    crash = point("jobs.endings:Endings", "wake_shim", when)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses, "stop")
        async with place.open() as worker:
            (job,) = (await worker.list()).jobs
            ended = await worker.wait(job.id)
            assert ended.ending is not None
            assert (ended.ending.reason, ended.ending.stopped_by) == (EndReason.STOPPED, BOB)
        await check_nothing_left(place, writing.name, witnesses, cgroup_name)


#: The intent is not recorded: nothing is changed.
UNCHANGED: Final = [
    point("jobs.limiting:LimitChanger", "_write", "before"),
    point("shim.records", "write", "before", "limits.json"),
]
#: The intent is recorded, whatever the kernel was told: the change is made.
CHANGED: Final = [
    point("jobs.limiting:LimitChanger", "_write", "after"),
    point("cgroup.job:ComposedJob", "set_limits", "before"),
    point("cgroup.job:ComposedJob", "set_limits", "after"),
]


@pytest.mark.parametrize("crash", [*UNCHANGED, *CHANGED], ids=str)
async def test_a_change_of_limits_is_made_and_told_or_neither(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=1000, period_s=1)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses, "change")
        async with place.open() as worker:
            need(worker.hierarchy.verdicts()["tasks"].is_enforced, "pids controller")
            (job,) = (await worker.list()).jobs
            told = [(change.changed_by, change.after) for change in job.limit_changes]
            if crash in UNCHANGED:
                assert (told, job.limits, job.effective) == ([], Limits(), ())
            else:
                assert told == [(ROOT, Limits(tasks=20))]
                assert not job.limit_changes[0].outcome_unknown
                assert job.limits == Limits(tasks=20)
                assert [limit.effective for limit in job.effective] == [20]
                assert job.limit_changes[0].effective == job.effective
            assert is_held_to(20, cgroup_name) == (crash in CHANGED)
            await worker.stop(job.id, stopped_by=BOB, grace_s=0)
        await check_nothing_left(place, "w", witnesses, cgroup_name)


def is_held_to(tasks: int, cgroup_name: str) -> bool:
    """Does the kernel hold the one job to it?"""
    files = [file for path in job_cgroups(cgroup_name) for file in path.glob("**/pids.max")]
    assert files
    return f"{tasks}\n" in [file.read_text() for file in files]


@pytest.mark.parametrize(
    "crash",
    [
        point("jobs.catalog", "delete", "before"),
        point("jobs.directories:StateDirectory", "remove_job", "before"),
        point("jobs.directories:StateDirectory", "remove_job", "after"),
        point("jobs.catalog", "end_removal", "after"),
    ],
    ids=str,
)
async def test_a_removal_is_done_or_not_begun(
    place: WorkerPlace, cgroup_name: str, crash: CrashPoint
) -> None:
    writing = Writing(name="w", lines=4, end=3)
    with witness_directory(place.state_dir) as witnesses:
        await run_killed(place, crash, writing, witnesses, "delete")
        (job_id,) = [JobId(name) for name in place.job_directories()] or [JobId("")]
        async with place.open() as worker:
            jobs = (await worker.list()).jobs
            if crash.name == "delete":
                assert [(job.id, job.state) for job in jobs] == [(job_id, JobState.ENDED)]
                await worker.delete(job_id)
            assert not (await worker.list()).jobs
            with pytest.raises(JobNotFoundError):
                await worker.get(job_id)
            assert not place.job_directories()
        await check_nothing_left(place, writing.name, witnesses, cgroup_name)
