"""Readers of a job's output: from any offset, then live, any number of them.

The log is the buffer.  A reader holds two descriptors and an offset; how slow it is costs nobody
anything.  Writers are not asked either: one inotify instance tells all readers of all jobs.

Source: inotify(7); preadv2(2), RWF_NOWAIT.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobworker.errors import DataLossError
from jobworker.kernel.readiness import IN_MODIFY, IN_Q_OVERFLOW, Inotify
from jobworker.model.output import Chunk, Heartbeat, Stream
from jobworker.output.log import INDEX_FILE, Piece
from jobworker.output.reader import LogReader, stream_of
from jobworker.output.turns import CHUNK_BYTES, Turns

logger = logging.getLogger(__name__)

#: 16 KiB of index at a time.
_RECORDS_AT_ONCE: Final = 1024


class Signal:
    """Tells any number of waiters that something changed.  Take it before you look."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def take(self) -> asyncio.Event:
        """Set at the next change after this call."""
        return self._event

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class LogWatcher:
    """One inotify instance for all logs that are followed.  Made inside a running loop."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._signals: dict[int, Signal] = {}
        self._users: dict[int, int] = {}
        self.turns = Turns()
        """For all readers together."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fileno(), self._on_events)

    def close(self) -> None:
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()

    def watch(self, job_directory: Path, changed: Signal) -> int:
        """Notify ``changed`` whenever the log grows; a number for ``unwatch``.

        All readers of one log give the same Signal.  Raises FileNotFoundError.
        """
        number = self._inotify.watch(job_directory / INDEX_FILE, IN_MODIFY)
        self._users[number] = self._users.get(number, 0) + 1
        self._signals[number] = changed
        return number

    def unwatch(self, number: int) -> None:
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number], self._signals[number]
            self._inotify.unwatch(number)

    def _on_events(self) -> None:
        for number, mask in self._inotify.read():
            if mask & IN_Q_OVERFLOW:
                for signal in self._signals.values():
                    signal.notify()
            elif number in self._signals:
                self._signals[number].notify()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which part of a log a reader wants."""

    offset: int = 0
    stream: Stream | None = None
    """None: both."""
    tail_lines: int | None = None
    """Instead of ``offset``: from the beginning of the last so many lines that are there now."""
    since_us: int | None = None
    """Instead of ``offset``: from what was written then."""
    exact_times: bool = False
    """Do not join pieces that have times of their own."""


class Cursor:
    """A place in a log that moves forward only."""

    def __init__(self, log: LogReader, view: View) -> None:
        """log: borrowed."""
        self._log = log
        self._view = view
        self.offset = _first_offset(log, view)
        self._base = log.record_at(self.offset)
        self._block: list[tuple[int, int]] = []
        """Records from number ``_base`` on; the last one of the log may have grown since."""
        self._place = 0
        """In ``_block``: records before it end at or before ``offset``."""
        self._is_damaged = False

    def next_piece(self) -> Piece | None:
        """What can be read at one go, at most a chunk; None if the index knows no more now.

        Pieces of a stream that is not wanted are passed over.  The caller says with ``advance`` how
        far it came.
        """
        piece = self._find_in_block()
        while piece is None and self._load_block():
            piece = self._find_in_block()
        return piece

    def advance(self, count: int) -> None:
        """So many bytes of the piece were read."""
        self.offset += count

    def rest(self) -> Piece | None:
        """For a log that is complete: what lies beyond the index, of a stream that is not known."""
        end = self._log.kept_bytes()
        if self.offset >= end or self._view.stream is Stream.STDERR:
            return None
        return Piece(self.offset, min(end, self.offset + CHUNK_BYTES), Stream.STDOUT, 0)

    def _find_in_block(self) -> Piece | None:
        while (piece := self._piece_in_block()) is not None:
            if self._view.stream in (None, piece.stream):
                return piece
            self.offset = piece.end
        return None

    def _piece_in_block(self) -> Piece | None:
        """From ``offset`` on: records of one stream, joined to at most a chunk."""
        block = self._block
        while self._place < len(block) and block[self._place][0] <= self.offset:
            self._place += 1
        if self._place == len(block):
            return None
        end, stamp = block[self._place]
        most = self.offset + CHUNK_BYTES
        if not self._view.exact_times:
            for next_end, next_stamp in block[self._place + 1 :]:
                if end >= most or (next_stamp ^ stamp) & 0xFF:
                    break
                end, stamp = next_end, next_stamp
        return Piece(self.offset, min(end, most), Stream(stamp & 0xFF), stamp >> 8)

    def _load_block(self) -> bool:
        """Read on in the index; False if it has nothing beyond ``offset``."""
        if self._is_damaged:
            return False
        # The last record is read again: it may have grown.
        self._base += max(0, min(self._place, len(self._block) - 1))
        self._block = self._log.records(self._base, _RECORDS_AT_ONCE)
        self._place = 0
        self._cut_damage(self._log.kept_bytes())
        return bool(self._block) and self._block[-1][0] > self.offset

    def _cut_damage(self, kept_bytes: int) -> None:
        """Leave out what can't be true; ``rest`` serves those bytes when the job has ended."""
        before = 0
        for place, (end, stamp) in enumerate(self._block):
            if end < before or end > kept_bytes or stream_of(stamp) is None:
                self._is_damaged = True
                record = self._base + place
                logger.error("index is damaged", extra={"record": record, "offset": before})
                del self._block[place:]
                return
            before = end


def _first_offset(log: LogReader, view: View) -> int:
    if view.tail_lines is not None:
        return _tail_offset(log, view.tail_lines, view.stream)
    if view.since_us is not None:
        return log.start_of(log.record_since(view.since_us))
    return view.offset


def _tail_offset(log: LogReader, lines: int, stream: Stream | None) -> int:
    """Where the last so many lines of what is there now begin; looks at no more than it must."""
    end = log.indexed_bytes()
    wanted = lines
    is_last_byte = True
    for piece in log.pieces_backward():
        if stream not in (None, piece.stream):
            continue
        at = piece.end
        while at > piece.start:
            start = max(piece.start, at - CHUNK_BYTES)
            data = os.pread(log.output, at - start, start)
            place = len(data)
            # A newline that ends the output ends its last line and begins none.
            if is_last_byte and data.endswith(b"\n"):
                place -= 1
            is_last_byte = False
            while (place := data.rfind(b"\n", 0, place)) >= 0:
                wanted -= 1
                if wanted <= 0:
                    return start + place + 1 if lines else end
            at = start
    return 0 if lines else end


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

    Raises DataLossError if bytes are missing.
    """
    last = None if follow else log.indexed_bytes()
    if view.tail_lines is None:
        cursor = Cursor(log, view)
    else:
        # Looks for its lines in the bytes, which may be many and on a slow disk.
        cursor = await asyncio.to_thread(Cursor, log, view)
    said_at = time.monotonic()
    with turns.reader():
        while True:
            # Both are taken before the look: taken after it, a change in between would be announced
            # to nobody, or the last bytes would be left behind an early end.
            wake, complete = changed.take(), is_complete()
            piece = cursor.next_piece()
            if piece is None and complete:
                piece = cursor.rest()
            if piece is not None and (last is None or complete or piece.start < last):
                turn = await turns.take()
                try:
                    data = await _read(log.output, piece, turns.piece_bytes)
                    cursor.advance(len(data))
                    yield Chunk(piece.start, piece.stream, piece.time_us, data)
                finally:
                    turn.end()
                said_at = time.monotonic()
            elif complete or last is not None:
                return
            elif not await _wait(wake, said_at, heartbeat_s):
                yield Heartbeat(cursor.offset)
                said_at = time.monotonic()


async def _wait(wake: asyncio.Event, said_at: float, heartbeat_s: float | None) -> bool:
    """False if it is time for a sign of life, also when only the other stream goes on."""
    rest_s = None if heartbeat_s is None else said_at + heartbeat_s - time.monotonic()
    if rest_s is not None and rest_s <= 0:
        return False
    try:
        async with asyncio.timeout(rest_s):
            await wake.wait()
    except TimeoutError:
        return False
    return True


async def _read(output: int, piece: Piece, most: int) -> bytes:
    """The bytes of a piece, or the first of them: never none.  Waits for a disk in a thread."""
    most = min(most, piece.end - piece.start)
    data = _read_cached(output, most, piece.start)
    if data is None:
        data = await asyncio.to_thread(os.pread, output, most, piece.start)
    if not data:
        why = f"its log ends at byte {piece.start}, and its index knows {piece.end}"
        raise DataLossError("read the output of a job", why)
    return data


def _read_cached(output: int, most: int, offset: int) -> bytes | None:
    """What is in the page cache, or None if that is nothing."""
    buffer = bytearray(most)
    try:
        count = os.preadv(output, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        # File systems that keep everything in memory have no such flag.
        if error.errno != errno.EOPNOTSUPP:
            raise
        return None
    return bytes(memoryview(buffer)[:count])
