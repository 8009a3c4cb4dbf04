"""A host without cgroups: the shim holds the job together by descent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.model import EndReason
from jobworker.worker import Worker
from support.faults import is_alive
from support.worker import ALICE, WorkerPlace, collect, python, read_until, run, sh

pytestmark = pytest.mark.anyio

#: Children that leave the group and the session and fork on; of some of them the parents die.
_SCATTER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
here, there = os.pipe()
def scatter(depth):
    for number in range(3):
        if os.fork() == 0:
            os.setsid()
            os.write(1, b"%d\\n" % os.getpid())
            os.write(there, b"!")
            if depth:
                scatter(depth - 1)
            if depth and number == 0:
                os._exit(0)
            time.sleep(1000)
scatter(2)
os.write(1, b"done\\n")
count = 0
while count < 39:
    count += len(os.read(here, 39))
if sys.argv[1] == "stay":
    time.sleep(1000)
"""


@contextlib.asynccontextmanager
async def worker_without_cgroups(place: WorkerPlace) -> AsyncIterator[Worker]:
    # A parent that no cgroup can have.
    async with place.open(cgroup_parent="no\nname") as worker:
        assert worker.hierarchy.mode is Mode.NONE
        yield worker


def has_all(data: bytes) -> bool:
    return b"done" in data and data.count(b"\n") == 40


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
async def test_a_stop_reaches_what_left_its_group_session_and_parent(
    place: WorkerPlace, grace_s: float
) -> None:
    async with worker_without_cgroups(place) as worker:
        job = await worker.start(python(_SCATTER, "stay"), owner=ALICE)
        data = await read_until(worker, job.id, has_all)
        pids = [int(line) for line in data.split() if line.isdigit()]
        assert any(map(is_alive, pids))
        ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=grace_s)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.STOPPED
        assert not any(map(is_alive, pids))


async def test_what_the_main_process_leaves_is_killed(place: WorkerPlace) -> None:
    async with worker_without_cgroups(place) as worker:
        job, output = await run(worker, python(_SCATTER, "leave"))
        pids = [int(line) for line in output.stdout.split() if line.isdigit()]
        assert len(pids) == 39
        assert not any(map(is_alive, pids))
        assert job.ending is not None
        assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 0)
        assert "that it left behind were killed" in job.ending.message


async def test_nothing_is_said_to_be_left_where_nothing_is(place: WorkerPlace) -> None:
    async with worker_without_cgroups(place) as worker:
        for _ in range(10):
            job, _ = await run(worker, sh("exit 0"))
            assert job.ending is not None
            assert job.ending.message == "exited with code 0"


async def test_sigterm_reaches_every_descendant(place: WorkerPlace) -> None:
    child = "(trap 'echo told; exit' TERM; echo on; while :; do sleep 0.05; done)"
    script = f"trap : TERM; {child} & wait; wait"
    async with worker_without_cgroups(place) as worker:
        job = await worker.start(sh(f'trap : TERM; setsid sh -c "{script}"'), owner=ALICE)
        await read_until(worker, job.id, lambda data: data == b"on\n")
        await worker.stop(job.id, stopped_by=ALICE, grace_s=5)
        assert (await collect(worker, job.id)).stdout == b"on\ntold\n"
