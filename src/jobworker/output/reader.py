"""The reader's side of a job's output: its log, which may still grow, and its board.

Source of the format: log.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final, Self

from jobworker.model.output import Stream
from jobworker.model.usage import OutputTotals
from jobworker.output.log import (
    BOARD,
    BOARD_FILE,
    INDEX_FILE,
    OUTPUT_FILE,
    RECORD,
    RECORD_BYTES,
    Piece,
)

#: 64 KiB of index at a time.
_BLOCK_RECORDS: Final = 4096

_STREAMS: Final = {int(stream): stream for stream in Stream}


def stream_of(stamp: int) -> Stream | None:
    """The stream in a record's second word; None if the record is damaged."""
    return _STREAMS.get(stamp & 0xFF)


def read_board(directory: int) -> tuple[OutputTotals, int]:
    """Totals so far and the errno that blocks writing, 0 if none does.

    directory: of the job; borrowed.  All 0 if there is no board yet.
    """
    data = b""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(BOARD_FILE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            data = os.pread(fd, BOARD.size, 0)
        finally:
            os.close(fd)
    if len(data) < BOARD.size:
        return OutputTotals(), 0
    stdout, stderr, dropped, blocked = BOARD.unpack(data)
    return OutputTotals(stdout_bytes=stdout, stderr_bytes=stderr, dropped_bytes=dropped), blocked


class LogReader:
    """A cursor-free view of a log that may still grow.  Owns its two descriptors."""

    def __init__(self, directory: int) -> None:
        """directory: of the job; borrowed.  Raises FileNotFoundError if there is no log."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        self.output = os.open(OUTPUT_FILE, flags, dir_fd=directory)
        try:
            self.index = os.open(INDEX_FILE, flags, dir_fd=directory)
        except BaseException:
            os.close(self.output)
            raise

    def close(self) -> None:
        os.close(self.output)
        os.close(self.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record_count(self) -> int:
        """Whole records now; a half-written one at the end does not count."""
        return os.fstat(self.index).st_size // RECORD_BYTES

    def kept_bytes(self) -> int:
        """Bytes in ``output`` now, indexed or not."""
        return os.fstat(self.output).st_size

    def records(self, first: int, most: int) -> list[tuple[int, int]]:
        """Up to ``most`` records from number ``first`` on, as (end offset, stamp)."""
        data = os.pread(self.index, most * RECORD_BYTES, first * RECORD_BYTES)
        whole = len(data) - len(data) % RECORD_BYTES
        return list(RECORD.iter_unpack(data[:whole]))

    def indexed_bytes(self) -> int:
        """Offset after the last piece that the index knows."""
        count = self.record_count()
        return self.records(count - 1, 1)[0][0] if count else 0

    def record_at(self, offset: int) -> int:
        """Number of the first record that ends after ``offset``; the count if none does."""
        return self._bisect(lambda end, _: end > offset)

    def record_since(self, time_us: int) -> int:
        """Number of the first record made at or after a time; the count if none was."""
        return self._bisect(lambda _, stamp: stamp >> 8 >= time_us)

    def _bisect(self, is_past: Callable[[int, int], bool]) -> int:
        low, high = 0, self.record_count()
        while low < high:
            middle = (low + high) // 2
            if is_past(*self.records(middle, 1)[0]):
                high = middle
            else:
                low = middle + 1
        return low

    def start_of(self, record: int) -> int:
        """Offset of the first byte of a record's piece."""
        return self.records(record - 1, 1)[0][0] if record else 0

    def totals(self) -> OutputTotals:
        """Counted from the files, not from the board: for a job whose shim was killed."""
        sizes = {Stream.STDOUT: 0, Stream.STDERR: 0}
        end = 0
        for piece in self.pieces():
            sizes[piece.stream] += piece.end - piece.start
            end = piece.end
        sizes[Stream.STDOUT] += max(0, self.kept_bytes() - end)
        return OutputTotals(stdout_bytes=sizes[Stream.STDOUT], stderr_bytes=sizes[Stream.STDERR])

    def pieces(self) -> Iterator[Piece]:
        """All pieces from the first on; ends at a record that can't be right."""
        first = start = 0
        kept = self.kept_bytes()
        while block := self.records(first, _BLOCK_RECORDS):
            for end, stamp in block:
                stream = stream_of(stamp)
                if stream is None or not start <= end <= kept:
                    return
                yield Piece(start, end, stream, stamp >> 8)
                start = end
            first += len(block)

    def pieces_backward(self) -> Iterator[Piece]:
        """All pieces from the last one to the first, without those that can't be right."""
        kept = self.kept_bytes()
        last = self.record_count()
        while last:
            first = max(0, last - _BLOCK_RECORDS)
            # One more before them, if there is one: its end is where the first one starts.
            block = self.records(max(0, first - 1), last - max(0, first - 1))
            starts = [0, *(end for end, _ in block)] if first == 0 else [end for end, _ in block]
            records = block if first == 0 else block[1:]
            for (end, stamp), start in zip(reversed(records), reversed(starts[:-1]), strict=True):
                stream = stream_of(stamp)
                if stream is not None and start <= end <= kept:
                    yield Piece(start, end, stream, stamp >> 8)
            last = first
