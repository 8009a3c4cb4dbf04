"""Shims are killed at drawn moments; the machine goes down: LOST, and all that was written."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import random
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobworker.errors import JobNotFoundError, UnavailableError
from jobworker.model import EndReason, JobState, Stream
from jobworker.shim.launcher import Launcher, Place
from jobworker.worker import Worker
from support.faults import (
    Writing,
    is_alive,
    is_writing,
    job_cgroups,
    kill,
    kill_jobs,
    shims_of,
    small_disk,
    wait_dead,
    witness_directory,
    witnessed,
)
from support.guards import need
from support.triggers import Waiting, start_waiting, when_told
from support.worker import ALICE, Collected, WorkerPlace, collect, read_until, run, sh

pytestmark = pytest.mark.anyio


async def test_a_job_whose_shim_is_killed_is_lost_with_all_output_until_then(
    place: WorkerPlace, cgroup_name: str
) -> None:
    drawn = random.Random(3)
    with witness_directory(place.state_dir) as witnesses:
        async with place.open() as worker:
            writings = [
                Writing(name=f"w{number}", lines=200_000, width=drawn.choice((40, 2000)))
                for number in range(6)
            ]
            jobs, followers = [], []
            async with asyncio.TaskGroup() as tasks:
                for writing in writings:
                    job = await worker.start(writing.spec(witnesses), owner=ALICE)
                    jobs.append(job)
                    followers.append(tasks.create_task(collect(worker, job.id)))
                    # Before it has written all that it would.
                    await asyncio.sleep(drawn.uniform(0, 0.03))  # noqa: TID251 - a drawn moment
                    kill(place.shim_pid(job.id))
            for job, writing, follower in zip(jobs, writings, followers, strict=True):
                output = follower.result()
                ended = await worker.wait(job.id)
                assert ended.ending == output.ending
                assert output.ending.reason is EndReason.LOST
                assert (output.ending.exit_code, output.ending.signal) == (None, None)
                assert "its shim was killed" in output.ending.message
                assert ended.output.kept_bytes == len(output.whole)
                enough = writing.expected(2 * output.whole.count(b"\n") + 2)
                assert _is_beginning(output, enough), writing.name
        pids = [pid for runs in witnessed(witnesses).values() for pid in runs]
        assert not any(is_writing(pid, witnesses) for pid in pids)
    assert not job_cgroups(cgroup_name)


def _is_beginning(output: Collected, expected: tuple[bytes, bytes]) -> bool:
    """What a shim had moved but not indexed when it was killed may be of either stream.

    It has no time; see ``jobworker.output.log``.
    """
    known = [
        b"".join(chunk.data for chunk in output.chunks if chunk.stream is stream and chunk.time_us)
        for stream in Stream
    ]
    rest = b"".join(chunk.data for chunk in output.chunks if not chunk.time_us)
    streams = list(zip(known, expected, strict=True))
    return all(whole.startswith(got) for got, whole in streams) and any(
        whole.startswith(rest, len(got)) for got, whole in streams
    )


async def test_what_a_killed_job_left_is_killed_though_it_hides(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(
            sh("setsid sh -c 'setsid sleep 1000 & echo $!' ; exec sleep 1000"), owner=ALICE
        )
        pid = int(await read_until(worker, job.id, lambda data: data.endswith(b"\n")))
        assert is_alive(pid)
        kill(place.shim_pid(job.id))
        ended = await worker.wait(job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.LOST
        assert not is_alive(pid)


async def test_a_machine_that_went_down_leaves_lost_jobs_and_true_endings(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open(stop_jobs=False) as worker:
        over = await worker.start(sh("echo over; exit 4"), owner=ALICE)
        await worker.wait(over.id)
        running = await worker.start(sh("echo so far; exec sleep 1000"), owner=ALICE)
        await read_until(worker, running.id, lambda data: data == b"so far\n")
        unheard = await start_waiting(worker, when_told("exit 6"))
    unheard.go()
    for pid in shims_of(place.state_dir):
        if pid != place.shim_pid(running.id):
            await wait_dead(pid)
    await kill_jobs(place.state_dir, cgroup_name)
    # What another boot looks like: no process of the old one, another name of the boot.
    (place.state_dir / "boot").write_text("another")
    for record in (place.state_dir / "jobs").glob("*/shim.json"):
        name = json.loads(record.read_bytes())
        record.write_text(json.dumps({**name, "boot_id": "another"}))
    async with place.open() as worker:
        found = {job.id: job for job in (await worker.list()).jobs}
        assert {job.state for job in found.values()} == {JobState.ENDED}
        endings = [found[job.id].ending for job in (over, running, unheard.job)]
        assert [(one.reason, one.exit_code) for one in endings if one] == [
            (EndReason.EXITED, 4),
            (EndReason.LOST, None),
            (EndReason.EXITED, 6),
        ]
        assert endings[1] is not None
        assert endings[1].message == "the machine went down while it ran"
        assert (await collect(worker, running.id)).whole == b"so far\n"


@pytest.fixture
def frozen(place: WorkerPlace) -> Iterator[Callable[[str], None]]:
    """A disk at ``frozen`` in the state directory, to freeze ("-f") and thaw ("-u").

    Who writes to a frozen one dies of no signal: ioctl_fsfreeze(2).
    """
    loops = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    need(loops.returncode == 0, "loop devices")
    with small_disk(place.state_dir / "frozen", 16 << 20, kind="ext4") as disk:
        disk.chmod(0o777)

        def freeze(how: str) -> None:
            subprocess.run(["fsfreeze", how, disk], check=True)

        try:
            yield freeze
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # it is thawed
                freeze("-u")


async def test_a_job_that_cannot_be_killed_keeps_no_worker_from_starting(
    place: WorkerPlace, frozen: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobworker.jobs.recovery._PATIENCE_S", 0.3)
    waiting = await _leave_unkillable(place, frozen)
    boot = place.state_dir / "boot"
    boot.write_text("another")
    async with asyncio.timeout(60), place.open(stop_jobs=False) as worker:
        job = await worker.get(waiting.job.id)
        assert job.state is JobState.RUNNING
        so_far = await collect(worker, job.id, follow=False)
        assert so_far.whole == b"%d\n" % waiting.pid
        await _check_start(worker)
        asked = await worker.stop(job.id, stopped_by=ALICE, wait=False)
        assert asked.state is JobState.STOPPING
    # Closed before it is over: the next one has it to do.
    assert boot.read_text() == "another"
    async with asyncio.timeout(60), place.open(stop_jobs=False) as worker:
        await asyncio.to_thread(frozen, "-u")
        ended = await worker.wait(job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.LOST
        assert not is_alive(waiting.pid)
        while boot.read_text() == "another":  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.01)  # noqa: TID251 - nothing announces it


async def test_a_stray_that_cannot_be_killed_keeps_no_worker_from_starting(
    place: WorkerPlace,
    cgroup_name: str,
    frozen: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobworker.jobs.recovery._PATIENCE_S", 0.3)
    waiting = await _leave_unkillable(place, frozen)
    await asyncio.to_thread(_forget_jobs, place.state_dir / "journal.sqlite")
    async with asyncio.timeout(60), place.open() as worker:
        with pytest.raises(JobNotFoundError):
            await worker.get(waiting.job.id)
        await _check_start(worker)
        await asyncio.to_thread(frozen, "-u")
        # Not those of the place that is made ahead.
        while any(path.name == waiting.job.id for path in job_cgroups(cgroup_name)):  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.01)  # noqa: TID251 - nothing announces it
        assert not is_alive(waiting.pid)


def _forget_jobs(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.execute("DELETE FROM jobs")
        connection.commit()


async def _leave_unkillable(place: WorkerPlace, frozen: Callable[[str], None]) -> Waiting:
    """A job without shim and worker, whose process nobody can kill until the disk is thawed."""
    async with place.open(stop_jobs=False) as worker:
        target = f"{place.state_dir}/frozen/file"
        waiting = await start_waiting(worker, when_told(": > $1", target))
    await asyncio.to_thread(frozen, "-f")
    waiting.go()
    await _wait_state(waiting.pid, psutil.STATUS_DISK_SLEEP)
    (shim,) = shims_of(place.state_dir)
    kill(shim)
    await wait_dead(shim)
    return waiting


async def _wait_state(pid: int, state: str) -> None:
    async with asyncio.timeout(20):
        while psutil.Process(pid).status() != state:  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.01)  # noqa: TID251 - nothing announces it


async def test_a_pid_that_another_process_has_now_is_not_taken_for_the_shim(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open(stop_jobs=False) as worker:
        job = await worker.start(sh("exec sleep 1000"), owner=ALICE)
        record = place.job_directory(job.id) / "shim.json"
    await kill_jobs(place.state_dir, cgroup_name)
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        name = json.loads(record.read_bytes())
        record.write_text(json.dumps({**name, "pid": stranger.pid}))
        async with place.open() as worker:
            found = await worker.get(job.id)
            assert found.ending is not None
            assert found.ending.reason is EndReason.LOST
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.parametrize("victim", ["jobworker-spare", "jobworker-start"])
async def test_a_place_that_dies_before_its_order_costs_nothing(
    place: WorkerPlace, cgroup_name: str, victim: str
) -> None:
    async with place.open() as worker:
        await _kill_place(victim)
        await _check_start(worker)
    assert not job_cgroups(cgroup_name)


@pytest.mark.parametrize("victim", ["jobworker-spare", "jobworker-start"])
async def test_a_place_that_dies_as_it_is_ordered_costs_nothing(
    place: WorkerPlace, cgroup_name: str, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    order, victims = Launcher.order, [victim]

    async def order_of_the_dead(launcher: Launcher, its_place: Place) -> dict[str, Any] | None:
        while victims:
            await _kill_place(victims.pop())
        return await order(launcher, its_place)

    monkeypatch.setattr(Launcher, "order", order_of_the_dead)
    async with place.open() as worker:
        await _check_start(worker)
    assert not victims
    assert not job_cgroups(cgroup_name)


async def test_a_launcher_that_dies_before_an_order_costs_nothing(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open() as worker:
        await _kill_launcher()
        await _check_start(worker)
    assert not job_cgroups(cgroup_name)


async def test_who_waits_for_earlier_starts_in_vain_keeps_nobody_waiting(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open() as worker:
        await _kill_launcher()
        with (place.state_dir / "starting.lock").open("rb") as lock:
            # As a start of an earlier worker has it that does not come to its end.
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await worker._starter._launcher.ensure()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("jobworker.shim.settling._TIMEOUT_S", 0.05)
                with pytest.raises(UnavailableError, match="starts of an earlier run"):
                    await worker.start(sh("true"), owner=ALICE)
            waiting = [each for each in threading.enumerate() if each.name == "starting-lock"]
        assert len(waiting) == 2
        for thread in waiting:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), "it waits for another one, which keeps the lock"
        await _check_start(worker)
    assert not job_cgroups(cgroup_name)


async def _kill_place(victim: str) -> None:
    """Of the two processes that wait in it the one does not outlive the other."""
    pids = {name: await _pid_of_ours(name) for name in ("jobworker-spare", "jobworker-start")}
    kill(pids[victim])
    for pid in pids.values():
        await wait_dead(pid)


async def _kill_launcher() -> None:
    """With the place that it has made."""
    await _kill_place("jobworker-start")
    pid = await _pid_of_ours("jobworker-launc")
    kill(pid)
    await wait_dead(pid)


async def _check_start(worker: Worker) -> None:
    job, output = await run(worker, sh("echo there; exit 3"))
    assert output.stdout == b"there\n"
    assert job.ending is not None
    assert job.ending.exit_code == 3


async def _pid_of_ours(name: str) -> int:
    """Once there is a process of this name: our worker's launcher, or one below it."""
    async with asyncio.timeout(10):
        while (pid := await asyncio.to_thread(_find_ours, name)) is None:  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.01)  # noqa: TID251 - nothing announces a process
    return pid


def _find_ours(name: str) -> int | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for launcher in psutil.Process().children():
            if launcher.name() == "jobworker-launc":
                processes = [launcher, *launcher.children(recursive=True)]
                return next((int(one.pid) for one in processes if one.name() == name), None)
    return None
