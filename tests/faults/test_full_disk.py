"""The disk of the state directory is full: jobs wait, nothing is lost, a stop still ends them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from jobworker.errors import ResourceExhaustedError, UnavailableError
from jobworker.model import EndReason, Job, JobId
from jobworker.worker import Worker
from support.faults import fill, shims_of, small_disk, wait_dead, wait_settled
from support.guards import need
from support.triggers import start_waiting, when_told
from support.worker import ALICE, BOB, WorkerPlace, collect, python, run, sh

pytestmark = pytest.mark.anyio

_DISK_BYTES: Final = 48 << 20

#: Writes numbered lines of 100 bytes for ever and tells in a file how many were taken from it.
_COUNTER: Final = """
import os, sys
count = os.open("count", os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(count, b"0".ljust(20), 0)
number = 0
while True:
    os.write(1 + number % 2, f"{number:099d}\\n".encode())
    number += 1
    os.pwrite(count, str(number).encode().ljust(20), 0)
"""


#: Takes a line into a log, with the board in another directory: one without a block of its own.
_PUMP_ONCE: Final = """
import os, sys
from jobworker.model.spec import OnOutputLimit
from jobworker.output.log import Board, LogWriter, make_log
from jobworker.output.pump import Pump
log, board_file = sys.argv[1:]
directory = os.open(log, os.O_RDONLY)
board = os.open(board_file, os.O_RDWR)
(stdout, ours), (stderr, _) = os.pipe(), os.pipe()
writer = LogWriter(directory, *make_log(directory))
limit = OnOutputLimit.STOP
pump = Pump(writer, Board(board), most_bytes=None, on_limit=limit, stdout=stdout, stderr=stderr)
os.write(ours, b"line\\n")
sys.exit(not pump.pump(stdout) or writer.end != len(b"line\\n"))
"""


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(
    request: pytest.FixtureRequest, place: WorkerPlace, tmp_path: Path
) -> Iterator[WorkerPlace]:
    """A worker's place on a small disk; the jobs' scratch is elsewhere and has space."""
    if request.param == "ext4":
        loops = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
        need(loops.returncode == 0, "loop devices")
    with small_disk(place.state_dir / "disk", _DISK_BYTES, kind=request.param) as mounted:
        scratch = place.state_dir / "scratch"
        scratch.mkdir()
        scratch.chmod(0o711)
        settings = dataclasses.replace(place.settings, scratch_dir=scratch, min_free_bytes=1 << 20)
        yield WorkerPlace(state_dir=mounted / "state", settings=settings)
        wait_settled(mounted / "state")


async def wait_condition(worker: Worker, job_id: JobId) -> Job:
    """Until the job says that something is wrong; nothing announces it."""
    async with asyncio.timeout(20):
        while not (job := await worker.get(job_id)).conditions:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.05)  # noqa: TID251 - see above
    return job


async def wait_stuck(disk: WorkerPlace, job_id: JobId) -> int:
    """How many lines a job has written that fills its pipes until it can't go on."""
    looks: list[int] = []
    async with asyncio.timeout(20):
        # So many that they span several of the shim's retries, each of which may take some more.
        while len(looks) < 5 or len(set(looks[-5:])) > 1:
            looks.append(count_of(disk, job_id))
            await asyncio.sleep(0.3)  # noqa: TID251 - nothing announces that nothing happens
    return looks[-1]


def count_of(disk: WorkerPlace, job_id: JobId) -> int:
    assert disk.settings.scratch_dir is not None
    return int((disk.settings.scratch_dir / job_id / "count").read_bytes().rstrip() or b"0")


def lines_to(number: int) -> list[bytes]:
    return [f"{each:099d}\n".encode() for each in range(number)]


async def test_a_job_waits_for_space_and_loses_nothing(disk: WorkerPlace) -> None:
    async with disk.open() as worker:
        # More than is taken ahead.
        script = "while [ ! -e go ]; do sleep 0.05; done; exec seq 1000000 2000000"
        job = await worker.start(sh(script), owner=ALICE)
        ballast = fill(disk.state_dir)
        assert disk.settings.scratch_dir is not None
        (disk.settings.scratch_dir / job.id / "go").touch()
        blocked = await wait_condition(worker, job.id)
        assert blocked.conditions == ("output blocked: no space",)
        with pytest.raises(ResourceExhaustedError, match="no space"):
            await worker.start(sh("true"), owner=ALICE)
        ballast.unlink()
        output = await collect(worker, job.id)
        assert output.whole == b"".join(b"%d\n" % number for number in range(1000000, 2000001))
        ended = await worker.wait(job.id)
        assert (output.ending.reason, output.ending.exit_code) == (EndReason.EXITED, 0)
        assert ended.conditions == ()


async def test_a_stop_on_a_full_disk_ends_the_job_with_all_that_it_wrote(
    disk: WorkerPlace,
) -> None:
    async with disk.open() as worker:
        job = await worker.start(python(_COUNTER), owner=ALICE)
        ballast = fill(disk.state_dir)
        await wait_condition(worker, job.id)
        count = await wait_stuck(disk, job.id)
        directory = disk.job_directory(job.id)
        async with asyncio.timeout(15):
            ended = await worker.stop(job.id, stopped_by=BOB, grace_s=1)
        assert ended.ending is not None
        assert (ended.ending.reason, ended.ending.stopped_by) == (EndReason.STOPPED, BOB)
        output = await collect(worker, job.id)
        lines = output.stdout.splitlines(keepends=True) + output.stderr.splitlines(keepends=True)
        # One line may have been taken whose number was not told any more.
        written = len(lines)
        assert count <= written <= count + 1
        assert sorted(lines) == lines_to(written)
        # What was reserved for the end is given back.
        blocks = sum((directory / name).stat().st_blocks for name in ("output", "index"))
        kept = ended.output.kept_bytes
        assert blocks * 512 <= kept + (directory / "index").stat().st_size + 3 * 4096
        ballast.unlink()
    # The journal could not take the ending, and is whole.
    async with disk.open() as worker:
        found = await worker.get(job.id)
        assert found.ending == ended.ending
        next_job, _ = await run(worker, sh("exit 5"))
        assert next_job.ending is not None
        assert next_job.ending.exit_code == 5


async def test_jobs_that_end_on_a_full_disk_end_truly_also_without_a_worker(
    disk: WorkerPlace,
) -> None:
    async with disk.open(stop_jobs=False) as worker:
        waiting = await start_waiting(worker, when_told("echo last words; exit 9"))
        (shim,) = shims_of(disk.state_dir)
        ballast = fill(disk.state_dir)
    waiting.go()
    async with asyncio.timeout(20):
        await wait_dead(shim)
    ballast.unlink()
    async with disk.open() as worker:
        output = await collect(worker, waiting.job.id)
        assert output.stdout == b"%d\nlast words\n" % waiting.pid
        assert (output.ending.reason, output.ending.exit_code) == (EndReason.EXITED, 9)


def _remount(mounted: Path, how: str) -> bool:
    done = subprocess.run(
        ["mount", "-o", f"remount,{how}", mounted], capture_output=True, check=False
    )
    return done.returncode == 0


async def test_a_state_directory_that_cannot_be_written_is_refused_with_the_reason(
    disk: WorkerPlace,
) -> None:
    mounted = disk.state_dir.parent
    assert _remount(mounted, "ro")
    try:
        with pytest.raises(UnavailableError, match="Read-only file system"):
            async with disk.open():
                pass
    finally:
        assert _remount(mounted, "rw")


def test_totals_that_a_full_disk_does_not_take_end_no_shim(tmp_path: Path) -> None:
    """Where each write takes a block anew (btrfs), having written before does not help."""
    need(os.geteuid() == 0, "root")
    log = tmp_path / "log"
    log.mkdir()
    with small_disk(tmp_path / "disk", 1 << 20, kind="tmpfs") as full:
        board = full / "board"
        board.touch()
        os.truncate(board, 4096)
        fill(full)
        arguments = (sys.executable, "-c", _PUMP_ONCE, log, board)
        assert subprocess.run(arguments, check=False).returncode == 0
    assert (log / "output").read_bytes() == b"line\n"
