"""SIGKILL for the launcher, the shim or the starting process at each step of a job's life."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from jobworker.errors import JobWorkerError, StartFailedError, UnavailableError
from jobworker.model import Ending, EndReason, Isolation, JobSpec, JobState
from jobworker.shim import records
from support.crash_points import REQUEST, CrashPoint, check_nothing_left, launched_by
from support.faults import Writing, job_cgroups, witness_directory, witnessed
from support.worker import ALICE, WorkerPlace, collect

pytestmark = pytest.mark.anyio

_CLONE: Final = "jobworker.kernel.clone"
_JOB: Final = "jobworker.cgroup.job:ComposedJob"
_RECORDS: Final = "jobworker.shim.records"
_START: Final = "jobworker.shim.start"
_SHIM: Final = "jobworker.shim.shim"
_PLACE: Final = "jobworker.shim.place:PlaceDirectory"


def both(owner: str, name: str, when: str, argument: str | None = None) -> Sequence[CrashPoint]:
    """The same point in the starting process, for itself and for its shim."""
    return [
        CrashPoint(owner=owner, name=name, when=when, argument=argument, victim=victim)
        for victim in ("self", "parent")
    ]


def in_launcher(owner: str, name: str, when: str) -> CrashPoint:
    return CrashPoint(owner=owner, name=name, when=when)


def in_shim(owner: str, name: str, when: str, argument: str | None = None) -> CrashPoint:
    return CrashPoint(owner=owner, name=name, when=when, argument=argument)


#: The starting process has taken the order, and can execute nothing before it has handed over.
ORDERED: Final = [
    *both(_PLACE, "become_job", "after"),
    *both(_JOB, "set_limits", "before"),
    *both(_JOB, "set_limits", "after"),
    *both(_RECORDS, "draft", "before", records.STARTED),
    *both(_RECORDS, "draft", "after", records.STARTED),
    *both(_START, "send_handoff", "before"),
]
#: Until the answer is on its way the worker knows nothing, and says that the start failed.
UNANSWERED: Final = [
    in_launcher(_JOB, "create", "before"),
    in_launcher(_JOB, "create", "after"),
    in_launcher("os", "fork", "before"),
    in_shim(_CLONE, "fork_into", "before"),
    *both(_SHIM, "warm_up", "before"),
    *both(_RECORDS, "write", "before", records.SHIM),
    *both(_RECORDS, "write", "after", records.SHIM),
    *both("os", "rename", "before", f"{records.SHIM}.new"),
    *both(_SHIM, "prepare", "after"),
    *both(_PLACE, "become_job", "before"),
    *ORDERED,
    CrashPoint(owner=_START, name="send_handoff", when="after", victim="parent"),
    CrashPoint(owner=_START, name="execute", when="before", victim="parent"),
    in_shim(_SHIM, "receive_handoff", "after"),
    in_shim(_SHIM, "read_failure", "after"),
    in_shim(_RECORDS, "publish", "before", records.STARTED),
    in_shim(_RECORDS, "publish", "after", records.STARTED),
    in_shim(_SHIM, "_send", "before"),
]
#: The job runs by the worker's word, and is lost with its shim.
ANSWERED: Final = [
    in_shim(_SHIM, "_send", "after"),
    in_shim("jobworker.shim.supervise:Supervisor", "watch_until_empty", "before"),
    in_shim("jobworker.shim.supervise:Supervisor", "watch_until_empty", "after"),
    in_shim("jobworker.output.pump:Pump", "flush", "after"),
    in_shim(_RECORDS, "write", "before", records.EXIT),
    in_shim("os", "rename", "before", f"{records.EXIT}.new"),
]
#: The ending is on the disk, or the process that dies has nothing left to do.
RECORDED: Final = [
    in_shim(_RECORDS, "write", "after", records.EXIT),
    in_shim("jobworker.shim.shim:records", "forget_drafts", "before"),
    in_shim(_JOB, "remove", "before"),
    in_shim(_JOB, "remove", "after"),
]
#: The shim watches already: to it this is the command's process, killed by somebody.
HANDED_OVER: Final = [
    CrashPoint(owner=_START, name="send_handoff", when="after"),
    CrashPoint(owner=_START, name="execute", when="before"),
    CrashPoint(owner="os", name="execve", when="before"),
]


def crashing_at(point: CrashPoint) -> contextlib.AbstractContextManager[None]:
    """Workers that are opened meanwhile have a launcher with the crash point in it."""
    return launched_by(point.launcher_program)


async def run_with(
    place: WorkerPlace, point: CrashPoint, writing: Writing, witnesses: Path
) -> JobWorkerError | None:
    """Start a job under a launcher that has the crash point in it; why that failed."""
    with crashing_at(point):
        async with place.open(stop_jobs=False) as worker:
            try:
                job = await worker.start(writing.spec(witnesses), owner=ALICE, request_id=REQUEST)
            except JobWorkerError as error:
                (failed,) = (await worker.list()).jobs
                assert not (place.state_dir / "jobs" / "places" / failed.id).exists()
                return error
            await worker.wait(job.id)
    return None


async def look_back(
    place: WorkerPlace, writing: Writing, witnesses: Path, cgroup_name: str
) -> Ending:
    """What a next worker finds: one job that is over, its output, and nothing else."""
    async with place.open() as worker:
        (job,) = (await worker.list()).jobs
        assert job.state is JobState.ENDED
        assert job.ending is not None
        output = await collect(worker, job.id)
        for got, expected in zip((output.stdout, output.stderr), writing.expected(), strict=True):
            assert expected.startswith(got)
        if job.ending.reason is EndReason.EXITED:
            assert (output.stdout, output.stderr) == writing.expected()
        try:
            repeated = await worker.start(writing.spec(witnesses), owner=ALICE, request_id=REQUEST)
            assert repeated.id == job.id
        except StartFailedError:
            assert job.ending.reason is EndReason.START_FAILED
        assert len((await worker.list()).jobs) == 1
    runs = await check_nothing_left(place, writing.name, witnesses, cgroup_name)
    if job.ending.reason is EndReason.START_FAILED:
        assert not runs
    return job.ending


@pytest.mark.parametrize("point", UNANSWERED, ids=str)
async def test_a_start_without_an_answer_is_a_clean_failure(
    place: WorkerPlace, cgroup_name: str, point: CrashPoint
) -> None:
    writing = Writing(name="unanswered", lines=100, period_s=0.1)
    with witness_directory(place.state_dir) as witnesses:
        error = await run_with(place, point, writing, witnesses)
        assert isinstance(error, StartFailedError | UnavailableError)
        ending = await look_back(place, writing, witnesses, cgroup_name)
    assert ending.reason in {EndReason.START_FAILED, EndReason.LOST}
    assert (ending.exit_code, ending.signal) == (None, None)
    assert ending.message
    if point in ORDERED and point.victim == "self":
        # Its shim lives, and tells.
        assert ending.reason is EndReason.START_FAILED
        assert ending.message == "the process that starts it was killed"
        assert str(error) == f"cannot start the command: {ending.message}"


@pytest.mark.parametrize("point", ANSWERED, ids=str)
async def test_a_job_whose_shim_dies_is_lost_and_never_given_an_exit_code(
    place: WorkerPlace, cgroup_name: str, point: CrashPoint
) -> None:
    writing = Writing(name="answered", lines=6, period_s=0.01, end=7)
    with witness_directory(place.state_dir) as witnesses:
        assert await run_with(place, point, writing, witnesses) is None
        ending = await look_back(place, writing, witnesses, cgroup_name)
    assert (ending.reason, ending.exit_code, ending.signal) == (EndReason.LOST, None, None)
    assert ending.message


@pytest.mark.parametrize("point", RECORDED, ids=str)
async def test_a_recorded_ending_is_the_true_one(
    place: WorkerPlace, cgroup_name: str, point: CrashPoint
) -> None:
    writing = Writing(name="recorded", lines=6, end=7)
    with witness_directory(place.state_dir) as witnesses:
        assert await run_with(place, point, writing, witnesses) is None
        ending = await look_back(place, writing, witnesses, cgroup_name)
    assert (ending.reason, ending.exit_code) == (EndReason.EXITED, 7)


@pytest.mark.parametrize("point", HANDED_OVER, ids=str)
async def test_a_command_killed_before_it_is_executed_ends_by_that_signal(
    place: WorkerPlace, cgroup_name: str, point: CrashPoint
) -> None:
    writing = Writing(name="handed", lines=6, end=7)
    with witness_directory(place.state_dir) as witnesses:
        assert await run_with(place, point, writing, witnesses) is None
        ending = await look_back(place, writing, witnesses, cgroup_name)
        assert not witnessed(witnesses)
    assert (ending.reason, ending.signal) == (EndReason.SIGNALED, signal.SIGKILL)


#: Of an isolated command, whose init is cloned before the shim knows of it.
ISOLATING: Final = [
    *both(_CLONE, "fork_sibling", "before"),
    *both(_CLONE, "fork_sibling", "after"),
    *both(_START, "send_handoff", "before"),
    CrashPoint(owner=_START, name="send_handoff", when="after", victim="parent"),
    in_shim(_SHIM, "receive_handoff", "after"),
    in_shim(_SHIM, "let_init_go", "before"),
]


def isolated(script: str) -> JobSpec:
    """For bash, which has ``/dev/tcp``: such a job shares no file with us, but the network."""
    return JobSpec(argv=("bash", "-c", script), isolation=Isolation.PRIVATE)


@pytest.mark.parametrize("point", ISOLATING, ids=str)
async def test_an_isolated_command_does_not_run_before_its_shim_says_so(
    place: WorkerPlace, cgroup_name: str, point: CrashPoint
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as witness:
        port = witness.getsockname()[1]
        spec = isolated(f"echo > /dev/tcp/127.0.0.1/{port}; sleep 600")
        with crashing_at(point):
            async with place.open(stop_jobs=False) as worker:
                with pytest.raises(StartFailedError):
                    await worker.start(spec, owner=ALICE)
        async with place.open() as worker:
            (job,) = (await worker.list()).jobs
        # All that could still connect is gone with the cgroup.
        assert not job_cgroups(cgroup_name)
        witness.setblocking(False)
        with pytest.raises(BlockingIOError):
            witness.accept()
    assert job.ending is not None
    assert job.ending.reason in {EndReason.START_FAILED, EndReason.LOST}


async def test_an_isolated_command_needs_the_starting_process_no_more_once_handed_over(
    place: WorkerPlace,
) -> None:
    point = CrashPoint(owner=_START, name="send_handoff", when="after")
    with crashing_at(point):
        async with place.open() as worker:
            job = await worker.start(isolated("exit 7"), owner=ALICE)
            ending = (await worker.wait(job.id)).ending
    assert ending is not None
    assert (ending.reason, ending.exit_code) == (EndReason.EXITED, 7)


async def test_a_launcher_that_dies_after_a_fork_costs_nothing(
    place: WorkerPlace, cgroup_name: str
) -> None:
    # What it has made needs it no more; the next start gets a new launcher.
    point = CrashPoint(owner="jobworker.shim.server:os", name="fork", when="after")
    writing = Writing(name="forked", lines=6, end=7)
    with witness_directory(place.state_dir) as witnesses:
        assert await run_with(place, point, writing, witnesses) is None
        ending = await look_back(place, writing, witnesses, cgroup_name)
    assert (ending.reason, ending.exit_code) == (EndReason.EXITED, 7)
