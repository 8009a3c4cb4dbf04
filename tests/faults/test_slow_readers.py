"""Readers that stand still: neither the job nor the worker notices."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jobworker.client import connect
from jobworker.model import Chunk
from jobworker.output.cursor import CHUNK_BYTES
from support.certificates import Installation, make_installation
from support.faults import open_daemon
from support.worker import ALICE, WorkerPlace, collect, sh

pytestmark = pytest.mark.anyio

_READERS = 200
_BYTES = 256 << 20


@pytest.fixture
def installation(place: WorkerPlace) -> Installation:
    return make_installation(place.state_dir / "certificates")


async def write_much(place: WorkerPlace, *, readers: int) -> tuple[float, int]:
    """Seconds that a job takes to write much, and bytes by which the worker's process grows."""
    async with place.open() as worker, contextlib.AsyncExitStack() as stack:
        script = "echo first; while [ ! -e go ]; do sleep 0.02; done; exec head -c $1 /dev/zero"
        job = await worker.start(sh(script, str(_BYTES)), owner=ALICE)
        for _ in range(readers):
            events = await stack.enter_async_context(contextlib.aclosing(worker.follow(job.id)))
            # It has begun, and now stands still.
            first = await anext(events)
            assert isinstance(first, Chunk)
        before = psutil.Process().memory_info().rss
        began = time.monotonic()
        (place.state_dir / "scratch" / job.id / "go").touch()
        ended = await worker.wait(job.id)
        took_s = time.monotonic() - began
        grown = psutil.Process().memory_info().rss - before
        assert ended.output.kept_bytes == _BYTES + len(b"first\n")
    return took_s, grown


@pytest.mark.slow
async def test_stopped_readers_cost_neither_time_nor_memory(place: WorkerPlace) -> None:
    alone_s, _ = await write_much(place, readers=0)
    watched_s, grown = await write_much(place, readers=_READERS)
    # The machine is noisy; a reader that held up the job would do so for ever.
    assert watched_s < 3 * alone_s + 1
    assert grown < 32 << 20


async def test_a_reader_that_went_to_sleep_gets_all_when_it_wakes(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("seq 100000"), owner=ALICE)
        async with contextlib.aclosing(worker.follow(job.id)) as events:
            first = await anext(events)
            await worker.wait(job.id)
            await asyncio.sleep(0)  # noqa: TID251 - lets everything settle
            rest = b"".join([event.data async for event in events if isinstance(event, Chunk)])
        assert isinstance(first, Chunk)
        assert first.data + rest == (await collect(worker, job.id)).whole


#: A client with many streams open, each of which has begun.
_CLIENT = """
import asyncio, sys
from pathlib import Path
from jobworker.client import Target, connect
async def main(server, ca, cert, key, job_id, count):
    target = Target(server=server, ca=Path(ca), cert=Path(cert), key=Path(key))
    async with connect(target) as client:
        streams = [client.follow(job_id) for _ in range(int(count))]
        for stream in streams:
            await anext(stream)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for stream in streams:
                tasks.create_task(read(stream))
async def read(stream):
    async for _ in stream:
        pass
asyncio.run(main(*sys.argv[1:]))
"""
_STREAMS = 150


@pytest.mark.slow
async def test_a_stopped_client_with_many_streams_costs_the_daemon_nothing(
    place: WorkerPlace, installation: Installation, cgroup_name: str
) -> None:
    folder = place.state_dir
    async with (
        open_daemon(folder, installation, cgroup_name) as daemon,
        connect(daemon.target(installation, "admin")) as client,
    ):
        script = "echo first; while [ ! -e go ]; do sleep 0.02; done; exec head -c $1 /dev/zero"
        job = await client.start(sh(script, str(_BYTES)))
        target = daemon.target(installation, "admin")
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CLIENT, target.server, target.ca, target.cert, target.key),
            *(job.id, str(_STREAMS)),
            stdout=subprocess.PIPE,
        )
        try:
            assert reader.stdout is not None
            assert await reader.stdout.readline() == b"ready\n"
            reader.send_signal(signal.SIGSTOP)
            before = psutil.Process(daemon.pid).memory_info().rss
            began = time.monotonic()
            (folder / "state" / "scratch" / job.id / "go").touch()
            ended = await client.wait(job.id)
            took_s = time.monotonic() - began
            grown = psutil.Process(daemon.pid).memory_info().rss - before
        finally:
            reader.kill()
            await reader.wait()
    assert ended.output.kept_bytes == _BYTES + len(b"first\n")
    assert took_s < 30
    # Each stream holds one chunk, and gRPC its copy of it.
    assert grown < _STREAMS * 3 * CHUNK_BYTES < _BYTES
