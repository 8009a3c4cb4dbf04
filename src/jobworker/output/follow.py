"""Readers of a job's output: from any offset, then live, any number of them.

The log is the buffer.  A reader holds two descriptors and an offset; how slow it is costs nobody
anything.  So nothing on the way of a chunk keeps it in a variable while it has been handed on: with
a thousand readers that would be a thousand chunks.

Source: preadv2(2), RWF_NOWAIT.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from jobworker.errors import DataLossError
from jobworker.model.output import Chunk, Heartbeat, Stream
from jobworker.output.cursor import Cursor, View
from jobworker.output.log import Piece
from jobworker.output.reader import LogReader
from jobworker.output.tail import find_tail
from jobworker.output.turns import Reader, Turns
from jobworker.output.watch import Signal


async def read_log(
    log: LogReader,
    view: View,
    *,
    changed: Signal,
    is_complete: Callable[[], bool],
    follow: bool,
    heartbeat_s: float | None,
    turns: Turns,
) -> AsyncGenerator[Chunk | Heartbeat, None]:
    """Pieces of a log as they are wanted; ends when the log is complete and read, or without
    ``follow`` at what was there when it began.

    log: borrowed.  changed: notified after the log grew and after it became complete.  is_complete:
    nothing will be added to the log any more.  turns: shared with all other readers.

    Raises DataLossError if bytes are missing, and what ``is_complete`` raises.
    """
    last = None if follow else log.indexed_bytes()
    if view.tail_lines is not None:
        offset = await _tail_offset(log, view.tail_lines, view.stream)
        view = replace(view, offset=offset, since_us=None)
    cursor = Cursor(log, view)
    if heartbeat_s is not None and view.is_place_chosen:
        # A reader whose stream breaks before the first output then knows where to go on: asking for
        # the last lines anew would pass over what was written meanwhile.
        yield Heartbeat(cursor.offset)
    said_at = time.monotonic()
    reader = Reader(turns)
    while True:
        # Both are taken before the look: taken after it, a change in between would be announced to
        # nobody, or the last bytes would be left behind an early end.
        wake, complete = changed.take(), is_complete()
        piece = cursor.next_piece()
        if piece is None and complete and not cursor.is_behind:
            piece = cursor.rest()
        if piece is not None and (last is None or complete or piece.start < last):
            await reader.begin()
            try:
                yield await _next_chunk(log, cursor, piece, turns)
            finally:
                reader.end()
            said_at = time.monotonic()
        elif not cursor.is_behind and (complete or last is not None):
            return
        elif not await _wait(
            reader.let_others if cursor.is_behind else wake.wait, said_at, heartbeat_s
        ):
            yield Heartbeat(cursor.offset)
            said_at = time.monotonic()


async def _tail_offset(log: LogReader, lines: int, stream: Stream | None) -> int:
    search = find_tail(log, lines, stream)
    # Step by step: the threads are few, stops and starts wait for one too, and nobody can end what
    # a thread has begun.
    while (offset := await asyncio.to_thread(next, search)) is None:
        pass
    return offset


async def _next_chunk(log: LogReader, cursor: Cursor, piece: Piece, turns: Turns) -> Chunk:
    buffer = memoryview(turns.buffer)[: min(turns.piece_bytes, piece.end - piece.start)]
    data = await _read(log.output, piece, buffer)
    cursor.advance(len(data))
    return Chunk(piece.start, piece.stream, piece.time_us, data)


async def _wait(
    wait: Callable[[], Awaitable[object]], said_at: float, heartbeat_s: float | None
) -> bool:
    """False if it is time for a sign of life, also when only the other stream goes on."""
    rest_s = None if heartbeat_s is None else said_at + heartbeat_s - time.monotonic()
    if rest_s is not None and rest_s <= 0:
        return False
    try:
        async with asyncio.timeout(rest_s):
            await wait()
    except TimeoutError:
        return False
    return True


async def _read(output: int, piece: Piece, buffer: memoryview) -> bytes:
    """The first bytes of a piece, at most what fits: never none.  Waits for a disk in a thread."""
    data = _read_cached(output, buffer, piece.start)
    if data is None:
        data = await asyncio.to_thread(os.pread, output, len(buffer), piece.start)
    if not data:
        why = f"its log ends at byte {piece.start}, and its index knows {piece.end}"
        raise DataLossError("read the output of a job", why)
    return data


def _read_cached(output: int, buffer: memoryview, offset: int) -> bytes | None:
    """What is in the page cache, or None if that is nothing that one could be sure of."""
    try:
        count = os.preadv(output, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        # File systems that keep everything in memory have no such flag.
        if error.errno != errno.EOPNOTSUPP:
            raise
        return None
    # Linux 5.9 and 5.10 may answer 0 where there is more (preadv2(2), BUGS): a read that waits
    # tells whether this is the end.
    return bytes(buffer[:count]) if count else None
