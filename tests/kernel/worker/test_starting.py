"""Starting: what is refused and why, what is bounded, and that a repetition starts nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    RequestReusedError,
    ResourceExhaustedError,
    StartFailedError,
)
from jobworker.model import (
    EndReason,
    JobFilter,
    JobPolicy,
    JobSpec,
    JobState,
    Limits,
    RequestId,
)
from jobworker.model.spec import ARGUMENT_BYTES_MAX
from jobworker.worker import Worker
from support.guards import only_on
from support.worker import ALICE, BOB, WorkerPlace, collect, output_of, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]


def _script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def _refusal(worker: Worker, spec: JobSpec) -> StartFailedError:
    """A start that fails, and is recorded as a job that failed to start."""
    with pytest.raises(StartFailedError) as caught:
        await worker.start(spec, owner=ALICE)
    error = caught.value
    page = await worker.list(JobFilter(states=frozenset({JobState.ENDED})), page_size=1)
    (job,) = page.jobs
    assert job.id == error.job_id
    assert job.ending is not None
    assert job.ending.reason is EndReason.START_FAILED
    assert str(error) == f"cannot start the command: {job.ending.message}"
    output = await collect(worker, job.id)
    assert (output.whole, output.ending) == (b"", job.ending)
    return error


async def test_what_can_not_be_executed_says_why(place: WorkerPlace) -> None:
    here = place.state_dir
    closed = here / "closed"
    closed.mkdir(mode=0o700)
    gone = _script(here / "no-interpreter", "#!/no/such/interpreter\n")
    cases: list[tuple[JobSpec, str, str]] = [
        (JobSpec(argv=("no-such-program",)), "COMMAND_NOT_FOUND", "no such program in PATH"),
        (JobSpec(argv=("/no/such/file",)), "COMMAND_NOT_FOUND", "No such file or directory"),
        (JobSpec(argv=("/etc",)), "COMMAND_NOT_EXECUTABLE", "Permission denied"),
        (JobSpec(argv=("/etc/passwd",)), "COMMAND_NOT_EXECUTABLE", "Permission denied"),
        (JobSpec(argv=("/etc/passwd/x",)), "COMMAND_NOT_EXECUTABLE", "Not a directory"),
        (JobSpec(argv=(gone,)), "COMMAND_NOT_FOUND", "the interpreter that it names is not"),
        (
            JobSpec(argv=(_script(here / "text", "not a program"),)),
            "COMMAND_NOT_EXECUTABLE",
            "Exec format error",
        ),
        (
            JobSpec(argv=(_script(here / "root-only", "#!/bin/sh\n", 0o700),)),
            "COMMAND_NOT_EXECUTABLE",
            "Permission denied",
        ),
        (JobSpec(argv=("true",), cwd="/no/such/place"), "START_FAILED", "'/no/such/place'"),
        (JobSpec(argv=("true",), cwd=str(closed)), "START_FAILED", "working directory"),
        (JobSpec(argv=("true",), cwd="/etc/passwd"), "START_FAILED", "Not a directory"),
        (
            JobSpec(argv=("only-here",), env={"PATH": str(here / "nowhere")}),
            "COMMAND_NOT_FOUND",
            "no such program in PATH",
        ),
        (
            JobSpec(argv=("root-only",), env={"PATH": f"{here}:/bin"}),
            "COMMAND_NOT_EXECUTABLE",
            "Permission denied",
        ),
    ]
    async with place.open() as worker:
        for spec, reason, text in cases:
            error = await _refusal(worker, spec)
            assert error.reason == reason, (spec.argv, str(error))
            assert text in str(error), (spec.argv, str(error))
    assert not list((here / "scratch").iterdir())


async def test_a_job_starts_where_and_with_what_it_was_told(place: WorkerPlace) -> None:
    async with place.open() as worker:
        many = JobSpec(argv=("/bin/sh", "-c", 'echo $# "${10000}"', "sh", *["x"] * 9999, "last"))
        assert await output_of(worker, many) == "10000 last\n"
        with pytest.raises(InvalidArgumentError, match=r"argv\[1\]"):
            JobSpec(argv=("echo", "x" * 128 * 1024))
        longest = "y" * (ARGUMENT_BYTES_MAX - 1)
        assert await output_of(worker, JobSpec(argv=("/bin/echo", longest))) == f"{longest}\n"
        odd = "a b\n'\"$HOME\\ *é"
        text = await output_of(worker, sh('printf "%s|" "$@" "$ODD"', odd, "", env={"ODD": odd}))
        assert text == f"{odd}||{odd}|"
        assert await output_of(worker, sh("pwd", cwd="/usr/bin")) == "/usr/bin\n"
        assert await output_of(worker, sh("pwd; echo x > f; cat f")) != ""
        job, _ = await run(worker, sh("true", name="a name", labels={"k": "v"}))
        assert (job.spec.name, job.spec.labels, job.owner) == ("a name", {"k": "v"}, ALICE)


async def test_a_repeated_request_starts_nothing(place: WorkerPlace) -> None:
    request = RequestId("r-1")
    spec = sh("echo once")
    async with place.open() as worker:
        async with asyncio.TaskGroup() as tasks:
            starts = [
                tasks.create_task(worker.start(spec, owner=ALICE, request_id=request))
                for _ in range(10)
            ]
        assert len({task.result().id for task in starts}) == 1
        job = await worker.wait(starts[0].result().id)
        assert (await worker.start(spec, owner=ALICE, request_id=request)) == job
        with pytest.raises(RequestReusedError):
            await worker.start(sh("echo other"), owner=ALICE, request_id=request)
        other = await worker.start(spec, owner=BOB, request_id=request)
        assert other.id != job.id
        missing = JobSpec(argv=("/no/such/file",))
        failures = []
        for _ in range(2):
            with pytest.raises(StartFailedError) as caught:
                await worker.start(missing, owner=ALICE, request_id=RequestId("r-2"))
            failures.append(caught.value)
        assert str(failures[0]) == str(failures[1])
        assert failures[0].details == failures[1].details
        assert len((await worker.list()).jobs) == 3
    async with place.open() as worker:
        assert (await worker.start(spec, owner=ALICE, request_id=request)).id == job.id
        with pytest.raises(StartFailedError) as caught:
            await worker.start(missing, owner=ALICE, request_id=RequestId("r-2"))
        assert caught.value.details == failures[0].details


async def test_an_owner_has_so_many_jobs_at_a_time(place: WorkerPlace) -> None:
    policy = JobPolicy(max_running_jobs=3)
    async with place.open() as worker:

        async def attempt() -> bool:
            try:
                await worker.start(sh("exec sleep 60"), owner=ALICE, policy=policy)
            except ResourceExhaustedError:
                return False
            return True

        async with asyncio.TaskGroup() as tasks:
            attempts = [tasks.create_task(attempt()) for _ in range(10)]
        assert sum(task.result() for task in attempts) == 3
        await worker.start(sh("true"), owner=BOB, policy=policy)
        (job, *_) = (await worker.list(JobFilter(owner=ALICE))).jobs
        await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
        assert await attempt()
        assert not await attempt()


async def test_an_owner_keeps_so_much_output(place: WorkerPlace) -> None:
    policy = JobPolicy(max_kept_bytes=1000)
    async with place.open() as worker:
        job, _ = await run(worker, sh("printf %01000d 0"), policy=policy)
        with pytest.raises(ResourceExhaustedError, match="remove jobs that have ended"):
            await worker.start(sh("true"), owner=ALICE, policy=policy)
        await worker.start(sh("true"), owner=BOB, policy=policy)
    async with place.open() as worker:
        with pytest.raises(ResourceExhaustedError):
            await worker.start(sh("true"), owner=ALICE, policy=policy)
        await worker.delete(job.id)
        await worker.start(sh("true"), owner=ALICE, policy=policy)


async def test_a_job_gets_no_more_than_the_policy_allows(place: WorkerPlace) -> None:
    policy = JobPolicy(timeout_s=3600, max_output_bytes=10 << 30)
    async with place.open() as worker:
        much = sh("true", max_output_bytes=(10 << 30) + 1)
        with pytest.raises(InvalidArgumentError, match="timeout 3601: the policy allows 3600 s"):
            await worker.start(sh("true", timeout_s=3601), owner=ALICE, policy=policy)
        with pytest.raises(InvalidArgumentError, match="the policy allows 10737418240 bytes"):
            await worker.start(much, owner=ALICE, policy=policy)
        assert not (await worker.list()).jobs


async def test_too_little_memory_to_start_in_is_told(place: WorkerPlace) -> None:
    async with place.open() as worker:
        mode = worker.hierarchy.mode
    # Elsewhere a process enters the cgroup only when it is about to become the command.
    only_on(mode is Mode.UNIFIED, "hosts with v2 controllers")
    async with place.open() as worker:
        error = await _refusal(worker, sh("true", limits=Limits(memory_bytes=1 << 20)))
    why = "the process that starts it was killed: out of memory at its own limit of 1M"
    assert str(error).startswith(f"cannot start the command: {why} (")


async def test_nothing_starts_on_a_full_disk(place: WorkerPlace) -> None:
    async with place.open(min_free_bytes=1 << 60) as worker:
        with pytest.raises(ResourceExhaustedError, match="no space for its output"):
            await worker.start(sh("true"), owner=ALICE)
        assert (await worker.list()).jobs == ()


async def test_a_second_worker_on_the_same_directory_is_refused(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        with pytest.raises(FailedPreconditionError, match=r"another jobworker uses it \(pid \d+\)"):
            async with place.open():
                pass
        assert (await worker.get(job.id)).state is JobState.RUNNING


async def test_a_start_goes_on_when_its_caller_goes_away(place: WorkerPlace) -> None:
    async with place.open() as worker:
        starting = asyncio.timeout(0)
        with pytest.raises(TimeoutError):
            async with starting:
                await worker.start(sh("echo ran"), owner=ALICE, request_id=RequestId("gone"))
        # The caller may have left before the start was even looked at; a repetition settles it.
        job = await worker.start(sh("echo ran"), owner=ALICE, request_id=RequestId("gone"))
        assert (await collect(worker, job.id)).stdout == b"ran\n"
