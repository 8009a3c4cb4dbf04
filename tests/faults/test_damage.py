"""Files of the state directory are damaged: it is noticed and told, and all else is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from jobworker.errors import DataLossError, FailedPreconditionError, UnavailableError
from jobworker.model import Chunk, EndReason, Job, JobState, RequestId, Stream
from jobworker.worker import Retention, Worker
from support.faults import job_cgroups, kill, shims_of, told_by, wait_dead
from support.triggers import Waiting, start_waiting, when_told
from support.worker import ALICE, BOB, WorkerPlace, collect, output_of, read_until, run, sh

pytestmark = pytest.mark.anyio

_LINES: Final = "for i in 1 2 3; do echo $i; echo err $i >&2; sleep 0.01; done"


def cut(file: Path, size_bytes: int) -> None:
    os.truncate(file, size_bytes)


def scribble(file: Path) -> None:
    """Over the middle of a file, as a broken disk or a careless program does."""
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xff" * 64)


# -- the log ---------------------------------------------------------------------------------------


async def read_with_fault(worker: Worker, job: Job, **view: Any) -> tuple[bytes, str]:
    """All that is delivered, and the fault by which the stream ends instead of an end message."""
    data = b""
    async with contextlib.aclosing(worker.follow(job.id, **view)) as events:
        try:
            async for event in events:
                assert isinstance(event, Chunk)
                data += event.data
        except DataLossError as fault:
            return data, str(fault)
    raise AssertionError("the damage was not told")


async def test_a_cut_index_costs_no_byte_and_is_told(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, whole = await run(worker, sh(_LINES))
        index = place.job_directory(job.id) / "index"
        for size_bytes in (index.stat().st_size - 7, 16, 0):
            cut(index, size_bytes)
            data, fault = await read_with_fault(worker, job)
            assert data == whole.whole
            assert "whose the others are is not known" in fault
            # Or the end would say that this was all.
            data, _ = await read_with_fault(worker, job, stream=Stream.STDERR)
            assert whole.stderr.startswith(data)


async def test_a_scribbled_index_costs_no_byte_and_is_told(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, whole = await run(worker, sh(_LINES))
        scribble(place.job_directory(job.id) / "index")
        assert (await read_with_fault(worker, job))[0] == whole.whole


async def test_cut_output_is_told_and_never_a_short_read(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, whole = await run(worker, sh(_LINES))
        other, _ = await run(worker, sh("echo fine"))
        cut(place.job_directory(job.id) / "output", len(whole.whole) - 1)
        with pytest.raises(DataLossError, match="bytes were kept"):
            await collect(worker, job.id)
        assert (await collect(worker, other.id)).whole == b"fine\n"


# -- records ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def ended_unheard(place: WorkerPlace, script: str) -> AsyncIterator[Waiting]:
    """A job that ends while there is no worker."""
    async with place.open(stop_jobs=False) as worker:
        waiting = await start_waiting(worker, when_told(script))
        (shim,) = shims_of(place.state_dir)
    waiting.go()
    await wait_dead(shim)
    yield waiting


@pytest.mark.parametrize("size_bytes", [0, 1, 100])
async def test_a_half_written_ending_is_no_ending(place: WorkerPlace, size_bytes: int) -> None:
    async with ended_unheard(place, "echo said; exit 3") as ended:
        cut(place.job_directory(ended.job.id) / "exit.json", size_bytes)
        async with place.open() as worker:
            found = await worker.get(ended.job.id)
            assert found.ending is not None
            assert (found.ending.reason, found.ending.exit_code) == (EndReason.LOST, None)
            assert "exit.json" in found.ending.message
            said = (await collect(worker, ended.job.id)).whole
            assert said == b"%d\nsaid\n" % ended.pid
            assert await output_of(worker, sh("echo fine")) == "fine\n"


@pytest.mark.parametrize("name", ["spec.json", "started.json", "stop.json"])
async def test_a_damaged_record_does_not_cost_a_running_job(
    place: WorkerPlace, cgroup_name: str, name: str
) -> None:
    async with place.open(stop_jobs=False) as worker:
        job = await worker.start(
            sh("trap '' TERM; echo on; while :; do sleep 0.1; done"), owner=ALICE
        )
        await read_until(worker, job.id, lambda data: data == b"on\n")
        if name == "stop.json":
            await worker.stop(job.id, stopped_by=BOB, grace_s=60, wait=False)
        cut(place.job_directory(job.id) / name, 5)
    async with place.open(default_grace_s=0.2) as worker:
        assert (await worker.get(job.id)).state in {JobState.RUNNING, JobState.STOPPING}
        assert len(shims_of(place.state_dir)) == 1
        # Without its order the worker still finds the job's processes.
        kill(place.shim_pid(job.id))
        ended = await worker.wait(job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.LOST
    assert not job_cgroups(cgroup_name)


# -- the journal -----------------------------------------------------------------------------------


async def three_jobs(worker: Worker) -> list[Job]:
    """One that ended, one that runs, and one that a request made."""
    ended, _ = await run(worker, sh("echo ended; exit 3"))
    running = await worker.start(sh("echo on; exec sleep 1000"), owner=BOB)
    asked, _ = await run(worker, sh("exit 4"), request_id=RequestId("asked"))
    return [ended, running, asked]


async def check_three(worker: Worker, jobs: list[Job]) -> None:
    ended, running, asked = jobs
    found = {job.id: job for job in (await worker.list()).jobs}
    assert found.keys() == {job.id for job in jobs}
    assert [found[job.id].owner for job in jobs] == [ALICE, BOB, ALICE]
    assert found[running.id].state is JobState.RUNNING
    assert found[ended.id].ending == ended.ending
    assert (await collect(worker, ended.id)).whole == b"ended\n"
    again = await worker.start(sh("exit 4"), owner=ALICE, request_id=RequestId("asked"))
    assert again.id == asked.id
    stopped = await worker.stop(running.id, stopped_by=BOB, grace_s=0)
    assert stopped.ending is not None
    assert stopped.ending.reason is EndReason.STOPPED


async def test_a_journal_that_is_none_is_made_anew(place: WorkerPlace) -> None:
    async with place.open(stop_jobs=False) as worker:
        jobs = await three_jobs(worker)
        uids = [await worker.start(sh("id -u"), owner=owner) for owner in (ALICE, BOB)]
        before = [(await collect(worker, job.id)).whole for job in uids]
        for job in uids:
            await worker.delete(job.id)
    (place.state_dir / "journal.sqlite").write_bytes(b"no database" * 1000)
    async with place.open() as worker:
        await check_three(worker, jobs)
        # Nobody is given the user of somebody else.
        uids = [await worker.start(sh("id -u"), owner=owner) for owner in (BOB, ALICE)]
        after = [(await collect(worker, job.id)).whole for job in uids]
    assert after == before[::-1]
    assert list(place.state_dir.glob("journal.sqlite.damaged-*"))


async def test_damage_found_in_use_is_told_and_mended_by_the_next_start(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.state_dir / "journal.sqlite"
    async with place.open(stop_jobs=False) as worker:
        jobs = await three_jobs(worker)
    _pass_for_large(monkeypatch)
    async with place.open(stop_jobs=False) as worker:
        # What a list needs has not been read yet.
        _ruin_pages(journal)
        with pytest.raises(DataLossError, match="started anew"):
            await worker.list()
        # What runs is served without it.
        assert (await worker.get(jobs[1].id)).state is JobState.RUNNING
        assert b"on\n" in await read_until(worker, jobs[1].id, lambda data: data)
    assert (place.state_dir / "journal.sqlite.damaged").exists()
    async with place.open() as worker:
        await check_three(worker, jobs)
    assert not (place.state_dir / "journal.sqlite.damaged").exists()


async def test_damage_that_a_start_fails_at_is_mended_by_the_next(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(stop_jobs=False) as worker:
        jobs = await three_jobs(worker)
    _pass_for_large(monkeypatch)
    _ruin_pages(place.state_dir / "journal.sqlite")
    with pytest.raises(DataLossError, match="started anew"):
        async with place.open():
            pass
    async with place.open() as worker:
        await check_three(worker, jobs)


def _pass_for_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that is too large to be checked at each start."""
    monkeypatch.setattr("jobworker.jobs.journal._CHECKED_BYTES_MAX", 0)


async def test_old_jobs_are_removed_though_the_journal_refused_it_once(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobworker.jobs.retention._AGAIN_S", 0.2)
    async with place.open() as worker:
        await run(worker, sh("true"))
    journal = place.state_dir / "journal.sqlite"
    refusal = "CREATE TRIGGER refusal BEFORE DELETE ON jobs BEGIN SELECT * FROM missing; END"
    await asyncio.to_thread(_alter, journal, refusal)
    with told_by("jobworker.jobs.retention") as is_told:
        async with place.open(retention=Retention(max_age_s=0.01)) as worker:
            await is_told.wait()
            assert len((await worker.list()).jobs) == 1
            await asyncio.to_thread(_alter, journal, "DROP TRIGGER refusal")
            async with asyncio.timeout(20):
                # No other job ends meanwhile.
                while place.job_directories():  # noqa: ASYNC110 - see below
                    await asyncio.sleep(0.01)  # noqa: TID251 - a removal is announced to nobody


def _alter(journal: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.execute(statement)


def _ruin_pages(journal: Path) -> None:
    """All but the first page, which makes it a database still."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    size_bytes = journal.stat().st_size
    with journal.open("r+b") as stream:
        stream.seek(page_bytes)
        stream.write(b"\xa5" * (size_bytes - page_bytes))


_KILLED_REBUILD: Final = """
import asyncio, os, signal, sys
from pathlib import Path
import jobworker.jobs.recovery as recovery
from jobworker.worker import WorkerSettings, open_worker
recovery._put_all = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with open_worker(Path(sys.argv[1]), WorkerSettings(cgroup_parent=sys.argv[2])):
        pass
asyncio.run(main())
"""


async def test_a_rebuild_that_is_killed_is_done_again(place: WorkerPlace, cgroup_name: str) -> None:
    async with place.open(stop_jobs=False) as worker:
        jobs = await three_jobs(worker)
    (place.state_dir / "journal.sqlite").write_bytes(b"no database" * 1000)
    for _ in range(2):
        killed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _KILLED_REBUILD, place.state_dir, cgroup_name)
        )
        assert await killed.wait() == -signal.SIGKILL
    async with place.open() as worker:
        await check_three(worker, jobs)


# -- the directory itself --------------------------------------------------------------------------


async def test_a_job_directory_that_was_removed_is_told(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open() as worker:
        waiting = await start_waiting(worker, when_told("exit 1"))
        (shim,) = shims_of(place.state_dir)
        shutil.rmtree(place.job_directory(waiting.job.id))
        waiting.go()
        ended = await worker.wait(waiting.job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.LOST
        assert "its directory is gone" in ended.ending.message
        assert await output_of(worker, sh("echo fine")) == "fine\n"
    # Its shim does not try for ever to write where nothing can be written.
    await wait_dead(shim)
    assert not job_cgroups(cgroup_name)


async def test_a_job_directory_that_is_none_keeps_no_worker_from_starting(
    place: WorkerPlace,
) -> None:
    async with ended_unheard(place, "exit 3") as ended:
        _make_unreadable(place.job_directory(ended.job.id))
        async with place.open() as worker:
            found = await worker.get(ended.job.id)
            assert found.ending is not None
            assert found.ending.reason is EndReason.LOST
            assert "its directory cannot be read: Not a directory" in found.ending.message
            assert await output_of(worker, sh("echo fine")) == "fine\n"


async def test_a_job_directory_that_is_none_any_more_costs_only_its_own_job(
    place: WorkerPlace, cgroup_name: str
) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo $$; exec sleep 1000"), owner=ALICE)
        pid = int(await read_until(worker, job.id, lambda data: data.endswith(b"\n")))
        _make_unreadable(place.job_directory(job.id))
        assert [each.state for each in (await worker.list()).jobs] == [JobState.RUNNING]
        kill(pid)
        ended = await worker.wait(job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.LOST
        assert "Not a directory" in ended.ending.message
        assert await output_of(worker, sh("echo fine")) == "fine\n"
    assert not job_cgroups(cgroup_name)


def _make_unreadable(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.touch()


@pytest.mark.parametrize("number", [-1, 0, 1 << 70, "1"])
async def test_a_shim_that_can_be_none_keeps_no_worker_from_starting(
    place: WorkerPlace, number: object
) -> None:
    async with ended_unheard(place, "exit 3") as ended:
        directory = place.job_directory(ended.job.id)
        (directory / "exit.json").unlink()
        record = directory / "shim.json"
        record.write_text(json.dumps({**json.loads(record.read_bytes()), "pid": number}))
        async with place.open() as worker:
            found = await worker.get(ended.job.id)
            assert found.ending is not None
            assert found.ending.reason is EndReason.LOST
            assert "shim.json" in found.ending.message


async def test_a_state_directory_that_vanished_is_told(place: WorkerPlace) -> None:
    moved = place.state_dir.with_name(f"{place.state_dir.name}-moved")
    async with place.open() as worker:
        place.state_dir.rename(moved)
        try:
            with pytest.raises(UnavailableError, match="No such file or directory"):
                await worker.start(sh("true"), owner=ALICE)
        finally:
            moved.rename(place.state_dir)
        assert await output_of(worker, sh("echo back")) == "back\n"


async def test_a_second_worker_is_refused_by_name(place: WorkerPlace) -> None:
    async with place.open() as worker:
        with pytest.raises(FailedPreconditionError, match=rf"pid {os.getpid()}\b"):
            async with place.open():
                pass
        assert await output_of(worker, sh("echo fine")) == "fine\n"
