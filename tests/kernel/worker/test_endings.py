"""How a job ended: told truly, by whatever way it ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from jobworker.model import (
    EndReason,
    Job,
    JobPolicy,
    JobState,
    Limits,
    OnOutputLimit,
)
from jobworker.model.spec import TIMEOUT_S_MAX
from jobworker.shim.supervise import WAKE_SIGNAL
from jobworker.worker import Worker
from support.faults import wait_dead
from support.guards import in_guest, too_much_for_a_guest
from support.worker import (
    ALICE,
    BOB,
    WorkerPlace,
    collect,
    python,
    read_until,
    run,
    sh,
    starting_job,
)

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

_MIB = 1 << 20


def _state_of(pid: str) -> str:
    """The state of a process, "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return stat[stat.rindex(")") + 2]


@too_much_for_a_guest("26 jobs, and nothing of it depends on the kind of cgroups")
async def test_every_exit_code_is_told(place: WorkerPlace) -> None:
    async with place.open() as worker:

        async def check(code: int) -> None:
            job, output = await run(worker, sh(f"exit {code}"))
            assert job.ending is not None
            ending = job.ending
            assert (ending.reason, ending.exit_code, ending.signal) == (
                EndReason.EXITED,
                code,
                None,
            )
            assert ending.message == f"exited with code {code}"
            assert ending.stopped_by == ""
            assert output.ending == ending
            assert job.state is JobState.ENDED
            assert job.started_at is not None
            assert job.ended_at is not None
            assert job.created_at <= job.started_at <= job.ended_at

        async with asyncio.TaskGroup() as tasks:
            for code in (*range(0, 256, 17), 1, 2, 125, 126, 127, 128, 130, 137, 143, 254):
                tasks.create_task(check(code))


@too_much_for_a_guest("24 jobs, and nothing of it depends on the kind of cgroups")
async def test_every_signal_that_kills_is_told(place: WorkerPlace) -> None:
    numbers = [
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT,
        signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGUSR1, signal.SIGSEGV,
        signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU,
        signal.SIGXFSZ, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR,
        signal.SIGSYS, signal.SIGRTMIN, signal.SIGRTMAX,
    ]  # fmt: skip
    async with place.open() as worker:

        async def check(number: signal.Signals) -> None:
            job, _ = await run(worker, sh(f"kill -{int(number)} $$"))
            assert job.ending is not None
            ending = job.ending
            told = (ending.reason, ending.exit_code, ending.signal)
            assert told == (EndReason.SIGNALED, None, number)
            assert number.name in ending.message

        async with asyncio.TaskGroup() as tasks:
            for number in numbers:
                tasks.create_task(check(number))


async def test_a_kill_from_outside_is_a_signal_and_no_oom(place: WorkerPlace) -> None:
    async with place.open() as worker:
        limits = Limits(memory_bytes=64 * _MIB)
        job = await worker.start(sh("echo $$; exec sleep 60", limits=limits), owner=ALICE)
        pid = await read_until(worker, job.id, lambda data: data.endswith(b"\n"))
        os.kill(int(pid), signal.SIGKILL)
        ending = (await worker.wait(job.id)).ending
    assert ending is not None
    assert (ending.reason, ending.signal) == (EndReason.SIGNALED, signal.SIGKILL)
    assert ending.message == "ended by signal 9 (SIGKILL), which jobworker did not send"


async def test_memory_that_ran_out_is_told_with_evidence(place: WorkerPlace) -> None:
    limits = Limits(memory_bytes=24 * _MIB)
    async with place.open() as worker:
        hog, _ = await run(worker, python("x = bytearray(200 << 20)", limits=limits))
        assert hog.ending is not None
        assert (hog.ending.reason, hog.ending.signal) == (EndReason.OOM_KILLED, signal.SIGKILL)
        assert "its own limit of 24M (" in hog.ending.message
        assert hog.usage.oom_kills
        assert hog.usage.memory_peak_bytes is not None
        assert 16 * _MIB < hog.usage.memory_peak_bytes <= 24 * _MIB


async def test_a_job_that_survives_its_childs_oom_has_exited(place: WorkerPlace) -> None:
    limits = Limits(memory_bytes=24 * _MIB)
    script = "/usr/bin/python3 -I -S -c 'x = bytearray(200 << 20)'; echo child $?; exit 3"
    async with place.open() as worker:
        job, output = await run(worker, sh(script, limits=limits))
        assert job.ending is not None
        if worker.hierarchy.mode.value == "v2":
            # memory.oom.group: there the kernel takes the whole job.
            assert job.ending.reason is EndReason.OOM_KILLED
        else:
            assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 3)
            assert output.stdout == b"child 137\n"
            assert "the kernel killed 1 of its processes for want of memory" in job.ending.message


async def test_a_time_limit_ends_a_job_and_is_told(place: WorkerPlace) -> None:
    async with place.open(default_grace_s=0.2) as worker, asyncio.TaskGroup() as tasks:
        mild = tasks.create_task(run(worker, sh("exec sleep 60", timeout_s=0.1)))
        deaf = tasks.create_task(
            # Its time has to be enough for it to become deaf, beside the starts of the others.
            run(worker, sh("trap '' TERM; echo deaf; while :; do sleep 60; done", timeout_s=2))
        )
        by_policy = tasks.create_task(
            run(worker, sh("exec sleep 60"), policy=JobPolicy(timeout_s=0.1))
        )
        less = tasks.create_task(
            run(worker, sh("exec sleep 60", timeout_s=0.1), policy=JobPolicy(timeout_s=60))
        )
    for task in (mild, by_policy, less):
        job, _ = task.result()
        assert job.ending is not None
        told = (job.ending.reason, job.ending.signal)
        assert told == (EndReason.TIMED_OUT, signal.SIGTERM)
        assert "its time limit of 0.1 s" in job.ending.message
        assert job.ending.stopped_by == ""
    job, output = deaf.result()
    assert output.stdout == b"deaf\n"
    assert job.ending is not None
    assert (job.ending.reason, job.ending.signal) == (EndReason.TIMED_OUT, signal.SIGKILL)
    assert "forced after the grace period" in job.ending.message
    assert job.started_at is not None
    assert job.ended_at is not None
    assert 2.15 < (job.ended_at - job.started_at).total_seconds() < 7


async def test_a_time_limit_may_be_as_long_as_a_spec_allows(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, output = await run(worker, sh("sleep 0.1; echo done; exit 3", timeout_s=TIMEOUT_S_MAX))
    assert output.stdout == b"done\n"
    assert job.ending is not None
    assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 3)


@pytest.mark.parametrize(
    ("script", "left_behind"),
    [
        pytest.param("sleep 60 & sleep 60 & echo done", 2, id="background"),
        pytest.param("setsid sleep 60 & echo done; sleep 0.05", 1, id="own session"),
        pytest.param("(setsid sh -c 'sleep 60 & sleep 60' &); sleep 0.1; echo done", 3, id="twice"),
        pytest.param("trap '' TERM; (trap '' TERM HUP; sleep 60) & echo done", 2, id="deaf"),
    ],
)
async def test_what_the_main_process_leaves_is_killed_with_it(
    place: WorkerPlace, script: str, left_behind: int
) -> None:
    """Though it holds the pipes: the end does not wait for it."""
    async with place.open() as worker:
        async with asyncio.timeout(10):
            job, output = await run(worker, sh(script))
        assert output.stdout == b"done\n"
        assert job.ending is not None
        assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 0)
        found = job.ending.message.partition("; ")[2]
        assert re.fullmatch(
            r"(1 process that it left behind was|\d+ processes that it left behind were) killed",
            found,
        )
        # A subshell may have been between two of its steps.
        assert 1 <= int(found.split()[0]) <= left_behind


async def test_a_daemon_of_the_job_does_not_outlive_it(place: WorkerPlace) -> None:
    program = """
import os, time
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(2, b"%d" % os.getpid())
        for fd in (0, 1, 2, tell):
            os.close(fd)
        time.sleep(60)
    os._exit(0)
os.close(tell)
os.wait()
os.read(told, 1)  # ends when the last one has closed it
"""
    async with place.open() as worker:
        job, output = await run(worker, python(program))
    assert job.ending is not None
    assert "1 process that it left behind was killed" in job.ending.message
    # A zombie, until init has taken it over from the shim and waited for it.
    assert _state_of(output.stderr.decode()) in {"", "Z"}


async def test_a_pipe_end_outside_the_job_does_not_hold_its_end(place: WorkerPlace) -> None:
    """Handed over a socket to a process that goes on writing to it for ever."""
    program = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print("before", flush=True)
socket.send_fds(s, [b"x"], [1])
s.recv(1)
"""
    path = f"{place.state_dir}/meet"
    flood = f"""
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind({path!r})
os.chmod({path!r}, 0o777)
s.listen()
print("ready", flush=True)
c, _ = s.accept()
_, fds, _, _ = socket.recv_fds(c, 1, 1)
os.set_blocking(fds[0], True)
c.send(b"y")
try:
    while True:
        os.write(fds[0], b"z" * 65536)
except BrokenPipeError:
    print("broken", flush=True)
"""
    outside = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-I", "-c", flood, stdout=asyncio.subprocess.PIPE
    )
    assert outside.stdout is not None
    assert await outside.stdout.readline() == b"ready\n"
    async with place.open() as worker:
        async with asyncio.timeout(20):
            job, output = await run(worker, python(program, path))
        assert output.stdout.startswith(b"before\n")
        assert job.ending is not None
        assert job.ending.exit_code == 0
        assert await outside.stdout.readline() == b"broken\n"
    await outside.wait()


@pytest.mark.parametrize("limit", [0, 1, 4096, 100_000])
async def test_not_one_byte_is_kept_beyond_the_output_limit(place: WorkerPlace, limit: int) -> None:
    writer = "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxx; echo yyyyyyyyyy >&2; done"
    async with place.open() as worker:
        stopped, output = await run(worker, sh(writer, max_output_bytes=limit))
        assert stopped.ending is not None
        assert stopped.ending.reason is EndReason.OUTPUT_LIMIT
        assert f"its output limit of {limit} bytes" in stopped.ending.message
        assert stopped.output.kept_bytes == limit == len(output.whole)
        assert stopped.output.dropped_bytes > 0
        assert (place.job_directory(stopped.id) / "output").stat().st_size == limit

        bounded, output = await run(
            worker,
            sh("seq 50000; echo end >&2"),
            policy=JobPolicy(max_output_bytes=limit, on_output_limit=OnOutputLimit.DISCARD),
        )
        written = sum(len(f"{number}\n") for number in range(1, 50001)) + len("end\n")
        assert bounded.ending is not None
        assert bounded.ending.reason is EndReason.EXITED
        assert bounded.output.kept_bytes == limit == len(output.whole)
        assert bounded.output.dropped_bytes == written - limit

        exact, output = await run(worker, sh("printf %s $1", "x" * limit, max_output_bytes=limit))
        assert exact.ending is not None
        assert exact.ending.reason is EndReason.EXITED
        assert exact.output.dropped_bytes == 0
        assert len(output.whole) == limit


async def test_too_much_output_is_told_though_the_job_ended_before_it_was_read(
    place: WorkerPlace,
) -> None:
    script = "until [ -e go ]; do sleep 0.02; done; head -c 8192 /dev/zero; exit 3"
    async with place.open() as worker:
        job = await worker.start(sh(f"echo $$; {script}", max_output_bytes=4096), owner=ALICE)
        pid = int(await read_until(worker, job.id, lambda data: data.endswith(b"\n")))
        shim = place.shim_pid(job.id)
        os.kill(shim, signal.SIGSTOP)
        (place.state_dir / "scratch" / job.id / "go").touch()
        await wait_dead(pid)
        os.kill(shim, signal.SIGCONT)
        ended = await worker.wait(job.id)
    assert ended.ending is not None
    assert (ended.ending.reason, ended.ending.exit_code) == (EndReason.OUTPUT_LIMIT, 3)
    assert ended.ending.message == "wrote more than its output limit of 4096 bytes: exit code 3"
    assert ended.output.kept_bytes == 4096


async def test_a_stop_is_told_with_who_and_how(place: WorkerPlace) -> None:
    async with place.open() as worker:
        mild = await worker.start(sh("exec sleep 60"), owner=ALICE)
        ended = await worker.stop(mild.id, stopped_by=BOB)
        assert ended.state is JobState.ENDED
        assert ended.ending is not None
        told = (ended.ending.reason, ended.ending.signal, ended.ending.stopped_by)
        assert told == (EndReason.STOPPED, signal.SIGTERM, BOB)
        assert ended.ending.message == "stopped by 'bob': signal 15 (SIGTERM)"

        script = "trap 'echo cleaning; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
        tidy = await worker.start(sh(script), owner=ALICE)
        await read_until(worker, tidy.id, lambda data: b"ready" in data)
        ended = await worker.stop(tidy.id, stopped_by=BOB)
        assert ended.ending is not None
        assert (ended.ending.reason, ended.ending.exit_code) == (EndReason.STOPPED, 5)
        assert (await collect(worker, tidy.id)).stdout == b"ready\ncleaning\n"

        again = await worker.stop(tidy.id, stopped_by=ALICE)
        assert again == ended


async def test_a_deaf_job_is_killed_after_the_grace_and_a_second_stop_shortens_it(
    place: WorkerPlace,
) -> None:
    deaf = "trap '' TERM; echo ready; while :; do sleep 60 & wait; done"
    async with place.open() as worker:
        job = await worker.start(sh(deaf), owner=ALICE)
        await read_until(worker, job.id, lambda data: data == b"ready\n")
        asked = await worker.stop(job.id, stopped_by=BOB, grace_s=3600, wait=False)
        assert asked.state is JobState.STOPPING
        # Neither later nor by somebody else.
        longer = await worker.stop(job.id, stopped_by=ALICE, grace_s=7200, wait=False)
        assert longer.state is JobState.STOPPING
        async with asyncio.timeout(10):
            ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=0.05)
        assert ended.ending is not None
        told = (ended.ending.reason, ended.ending.signal, ended.ending.stopped_by)
        assert told == (EndReason.STOPPED, signal.SIGKILL, BOB)
        assert "forced after the grace period" in ended.ending.message


async def test_what_is_ended_with_the_main_process_was_not_left_behind(
    place: WorkerPlace,
) -> None:
    """By a stop, by a forced one, and for too much output."""
    deaf = "trap '' TERM; for n in $(seq 40); do sleep 600 & done; echo ready"
    async with place.open() as worker:
        ended = await _stopped(worker, f"{deaf}; trap - TERM; echo mild; wait", grace_s=60)
        forced = await _stopped(worker, f"{deaf}; echo deaf; wait", grace_s=0)
        killed, _ = await run(worker, sh(f"{deaf}; cat /dev/zero", max_output_bytes=4096))
    assert [job.ending and job.ending.message for job in (ended, forced, killed)] == [
        "stopped by 'bob': signal 15 (SIGTERM)",
        "stopped by 'bob', forced after the grace period: signal 9 (SIGKILL)",
        "wrote more than its output limit of 4096 bytes: signal 9 (SIGKILL)",
    ]


async def _stopped(worker: Worker, script: str, *, grace_s: float) -> Job:
    """Once it has said all that it says."""
    job = await worker.start(sh(script), owner=ALICE)
    await read_until(worker, job.id, lambda data: data.count(b"\n") == 2)
    return await worker.stop(job.id, stopped_by=BOB, grace_s=grace_s)


async def test_a_stopped_process_can_be_stopped(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo ready; kill -STOP $$"), owner=ALICE)
        await read_until(worker, job.id, lambda data: data == b"ready\n")
        async with asyncio.timeout(10):
            ended = await worker.stop(job.id, stopped_by=ALICE)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.STOPPED


async def test_many_stops_at_once_are_one_stop(place: WorkerPlace) -> None:
    async with place.open() as worker:
        for _ in range(5):
            job = await worker.start(sh("exec sleep 60"), owner=ALICE)
            async with asyncio.TaskGroup() as tasks:
                stops = [
                    tasks.create_task(worker.stop(job.id, stopped_by=ALICE)) for _ in range(20)
                ]
            assert len({task.result().ended_at for task in stops}) == 1
        # Beside an end that comes by itself.
        for _ in range(20):
            job = await worker.start(sh("exit 0"), owner=ALICE)
            ended = await worker.stop(job.id, stopped_by=ALICE)
            assert ended.state is JobState.ENDED
            assert ended.ending is not None
            assert ended.ending.reason in {EndReason.EXITED, EndReason.STOPPED}


async def test_a_stop_is_carried_out_when_its_caller_goes_away(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker.stop(job.id, stopped_by=BOB, grace_s=0)
        async with asyncio.timeout(10):
            ended = await worker.wait(job.id)
        assert ended.ending is not None
        assert (ended.ending.reason, ended.ending.stopped_by) == (EndReason.STOPPED, BOB)


async def test_a_stop_overtakes_a_start(place: WorkerPlace) -> None:
    async with place.open() as worker:
        for _ in range(10):
            async with asyncio.TaskGroup() as tasks:
                starting = tasks.create_task(worker.start(sh("exec sleep 60"), owner=ALICE))
                job_id = await starting_job(worker)
                async with asyncio.timeout(10):
                    stopped = await worker.stop(job_id, stopped_by=BOB)
            assert starting.result().id == job_id
            assert stopped.ending is not None
            told = (stopped.ending.reason, stopped.ending.stopped_by)
            assert told == (EndReason.STOPPED, BOB)


async def test_jobs_of_a_program_that_blocks_signals_end_and_can_be_stopped(
    place: WorkerPlace,
) -> None:
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, WAKE_SIGNAL})
    try:
        async with place.open() as worker, asyncio.timeout(20):
            job, _ = await run(worker, sh("exit 3"))
            assert job.ending is not None
            assert job.ending.exit_code == 3
            endless = await worker.start(sh("exec sleep 600"), owner=ALICE)
            ended = await worker.stop(endless.id, stopped_by=BOB)
            assert ended.ending is not None
            assert ended.ending.reason is EndReason.STOPPED
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


async def test_a_fork_bomb_within_its_limit_is_stopped(place: WorkerPlace) -> None:
    bomb = "b() { b | b & }; b; while :; do sleep 60; done"
    async with place.open() as worker:
        job = await worker.start(sh(bomb, limits=Limits(tasks=40)), owner=ALICE)
        await read_until(worker, job.id, lambda data: b"fork" in data)
        now = await worker.get(job.id)
        assert now.usage.tasks is None or now.usage.tasks <= 40
        async with asyncio.timeout(20):
            ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=0.1)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.STOPPED
        assert "its task limit of 40 refused" in ended.ending.message


async def test_many_jobs_at_once(place: WorkerPlace) -> None:
    count = 20 if in_guest() else 200
    async with place.open() as worker:
        async with asyncio.TaskGroup() as tasks:
            done = [
                tasks.create_task(run(worker, sh(f"echo {number}; exit {number % 100}")))
                for number in range(count)
            ]
        for number, task in enumerate(done):
            job, output = task.result()
            assert output.stdout == b"%d\n" % number
            assert job.ending is not None
            assert job.ending.exit_code == number % 100


async def test_usage_in_the_ending_is_plausible(place: WorkerPlace) -> None:
    program = """
import os, time
x = bytearray(32 << 20)
end = time.process_time() + 0.3
while time.process_time() < end: pass
"""
    async with place.open() as worker:
        job, _ = await run(worker, python(program))
        assert job.ending is not None
        usage = job.ending.usage
        assert usage == job.usage
        assert usage.cpu_seconds is not None
        # A guest kernel charges a task with the time for which the host ran something else.
        assert 0.25 < usage.cpu_seconds < (10 if in_guest() else 2)
        assert usage.memory_bytes is None
        assert usage.memory_peak_bytes is None or 32 * _MIB < usage.memory_peak_bytes < 64 * _MIB
        assert usage.oom_kills in (0, None)


async def test_a_shim_sleeps_while_its_job_sleeps(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo $$; exec sleep 60"), owner=ALICE)
        await read_until(worker, job.id, lambda data: data.endswith(b"\n"))
        shim = place.shim_pid(job.id)
        plan = worker.hierarchy.plan(job.id)
        if plan.job:
            # An event of the cgroup that does not empty it must not keep the shim busy.
            await asyncio.to_thread(_freeze_and_thaw, Path(plan.members))
        before = await _asleep(shim)
        await asyncio.sleep(1)  # noqa: TID251 - what is tested is that nothing happens
        assert _woken(shim) == before


async def _asleep(shim_pid: int) -> tuple[int, ...]:
    """What ``_woken`` tells once the shim has come to rest.

    Not while it waits for the kernel to move it into its own cgroup, which no signal would wake.
    """
    before = None
    async with asyncio.timeout(20):
        while _state_of(str(shim_pid)) != "S" or before != (before := _woken(shim_pid)):  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.3)  # noqa: TID251 - nothing announces it
    return before


def _freeze_and_thaw(members: Path) -> None:
    deadline = time.monotonic() + 10
    (members / "cgroup.freeze").write_text("1")
    while "frozen 1" not in (members / "cgroup.events").read_text():
        assert time.monotonic() < deadline
    (members / "cgroup.freeze").write_text("0")


def _woken(shim_pid: int) -> tuple[int, ...]:
    """How often it gave up a CPU and was taken off one, and the ticks of CPU time it used."""
    status = Path(f"/proc/{shim_pid}/status").read_text().splitlines()
    lines = dict(line.split(":", 1) for line in status)
    fields = Path(f"/proc/{shim_pid}/stat").read_text().rpartition(")")[2].split()
    names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    return (*(int(lines[name]) for name in names), int(fields[11]), int(fields[12]))
