"""How a reader goes through a log, and what it makes of the answers that a file gives."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobworker.model import Chunk, Heartbeat, Stream
from jobworker.output.cursor import View
from jobworker.output.follow import _read_cached, read_log
from jobworker.output.log import INDEX_FILE, OUTPUT_FILE, RECORD
from jobworker.output.reader import LogReader
from jobworker.output.turns import Turns
from jobworker.output.watch import Signal

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def _log(folder: Path, ends: list[tuple[int, Stream]]) -> Iterator[LogReader]:
    """A log of zeros; its pieces are a second apart."""
    (folder / OUTPUT_FILE).touch()
    os.truncate(folder / OUTPUT_FILE, ends[-1][0])
    records = (
        RECORD.pack(end, (second * 1_000_000) << 8 | stream)
        for second, (end, stream) in enumerate(ends)
    )
    (folder / INDEX_FILE).write_bytes(b"".join(records))
    directory = os.open(folder, os.O_RDONLY)
    try:
        with LogReader(directory) as log:
            yield log
    finally:
        os.close(directory)


async def _read(
    log: LogReader, view: View, heartbeat_s: float | None = None
) -> list[Chunk | Heartbeat]:
    """All of a log that is complete."""
    events = read_log(
        log,
        view,
        changed=Signal(),
        is_complete=lambda: True,
        follow=True,
        heartbeat_s=heartbeat_s,
        turns=Turns(),
    )
    return [event async for event in events]


def test_a_read_that_does_not_wait_never_says_that_a_file_ends(tmp_path: Path) -> None:
    """Linux 5.9 and 5.10 say so in the middle of one: preadv2(2), BUGS."""
    file = tmp_path / "output"
    file.write_bytes(b"abc")
    with file.open("rb") as output:
        assert _read_cached(output.fileno(), memoryview(bytearray(8)), 1) == b"bc"
        assert _read_cached(output.fileno(), memoryview(bytearray(8)), 3) is None


async def test_passing_over_what_is_not_wanted_lets_others_run(tmp_path: Path) -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)  # noqa: TID251 - a round of the loop, no time
            rounds += 1

    # Each would be passed over by itself.
    unwanted = [(end, Stream.STDOUT) for end in range(1, 100_001)]
    with _log(tmp_path, [*unwanted, (100_002, Stream.STDERR)]) as log:
        async with asyncio.TaskGroup() as tasks:
            others = tasks.create_task(count())
            (chunk,) = await _read(log, View(stream=Stream.STDERR))
            others.cancel()
    assert isinstance(chunk, Chunk)
    assert (chunk.offset, chunk.data) == (100_000, b"\0\0")
    assert rounds > 20


async def test_passing_over_what_is_not_wanted_shows_signs_of_life(tmp_path: Path) -> None:
    with _log(tmp_path, [(end, Stream.STDOUT) for end in range(1, 20_001)]) as log:
        beats = await _read(log, View(stream=Stream.STDERR), heartbeat_s=0)
    offsets = [beat.offset for beat in beats if isinstance(beat, Heartbeat)]
    assert len(offsets) == len(beats) > 2
    assert offsets == sorted(offsets)


async def test_a_tail_that_looks_through_everything_keeps_nobody_from_the_threads(
    tmp_path: Path,
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    # To look through it takes half a minute at least.
    with _log(tmp_path, [(128 << 30, Stream.STDOUT)]) as log:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tail = tasks.create_task(_read(log, View(tail_lines=1)))
            for _ in range(3):
                await asyncio.to_thread(os.getpid)
            assert not tail.done()
            tail.cancel()
        # And once it is cancelled it looks no further.
        async with asyncio.timeout(10):
            await asyncio.to_thread(os.getpid)
