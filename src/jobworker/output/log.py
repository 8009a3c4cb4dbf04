"""The two files of a job's output, and the board that says how it goes.

``output`` has the bytes of both streams exactly as written, in the order observed.  ``index`` has
records of 16 bytes, little-endian: the offset after the last byte of a piece, and the time when its
first one was taken, in microseconds since 1970 shifted left by 8 with the stream's number in the
low byte.  A piece begins where the one before ends.  The last record may still grow: its offset is
rewritten in place while the same stream goes on within a millisecond of that time.  ``board`` has
the totals and what is wrong, in memory shared with its readers.

One shim writes; anybody reads.  Bytes beyond the last record were moved but not indexed when the
shim was killed: they are output, of a stream that is not known.

Space is taken ahead of what is written, so that a job that ends on a full disk ends with all that
it wrote: see ``LogWriter.make_room``.

Offsets are absolute and never change.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from typing import Final

from jobworker.kernel import pipes, space
from jobworker.kernel.durable import DurableFile, forget_copy
from jobworker.model.output import Stream

OUTPUT_FILE: Final = "output"
INDEX_FILE: Final = "index"
BOARD_FILE: Final = "board"

RECORD: Final = struct.Struct("<QQ")
RECORD_BYTES: Final = RECORD.size
#: While one stream goes on within this time its last record grows, so that a job which prints byte
#: by byte does not make an index larger than its output.
_SAME_PIECE_US: Final = 1000

#: What two pipes of the default size hold, twice over.
FIRST_ROOM_BYTES: Final = 4 * 64 * 1024
#: Taken at a time by a job that goes on writing, so that it is not done for every piece.
_ROOM_STEP_BYTES: Final = 4 * 1024 * 1024
#: Enough records for the last drain of two pipes, whatever pieces it comes in.
_INDEX_ROOM_BYTES: Final = 4096
_INDEX_STEP_BYTES: Final = 16 * 1024

#: stdout bytes, stderr bytes, dropped bytes, errno that blocks writing (0: none).
BOARD: Final = struct.Struct("<QQQQ")
_BOARD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of one stream."""

    start: int
    end: int
    stream: Stream
    time_us: int


def make_board(directory: int) -> int:
    """Make the file and open it for its writer; the caller closes it.  Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    board = os.open(BOARD_FILE, flags, 0o600, dir_fd=directory)
    try:
        # Allocated now, so that a full disk takes it too, unless each write takes a block anew.
        os.posix_fallocate(board, 0, _BOARD_BYTES)
    except BaseException:
        os.close(board)
        raise
    return board


def make_log(directory: int) -> tuple[int, int]:
    """Make ``output`` and ``index`` and open them for their writer; the caller closes both.

    directory: of the job; borrowed.  Raises OSError, FileExistsError if there is a log already,
    ENOSPC if there is no room for what two fresh pipes hold.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.ExitStack() as undo:
        output = os.open(OUTPUT_FILE, flags, 0o600, dir_fd=directory)
        undo.callback(os.close, output)
        index = os.open(INDEX_FILE, flags, 0o600, dir_fd=directory)
        undo.callback(os.close, index)
        space.reserve(output, 0, FIRST_ROOM_BYTES)
        space.reserve(index, 0, _INDEX_ROOM_BYTES)
        undo.pop_all()
    return output, index


def release_room(directory: int) -> None:
    """Give back the space that a shim which was killed had taken; no-op without a log.

    directory: of the job; borrowed.
    """
    for name in (OUTPUT_FILE, INDEX_FILE):
        forget_copy(directory, name)
        with contextlib.suppress(OSError):
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
            try:
                space.release(fd)
            finally:
                os.close(fd)


class Board:
    """The writer's side of ``board``."""

    def __init__(self, board: int) -> None:
        """board: from ``make_board``; taken."""
        self._board = board

    def show(self, stdout: int, stderr: int, dropped: int, blocked_errno: int) -> None:
        """Replace what readers see, where the disk takes it.

        They may see some fields older than others.
        """
        # Not a store to mapped memory: where each write takes a block anew (btrfs), one on a full
        # disk would end in SIGBUS.
        try:  # noqa: SIM105 - for each piece of output: suppress() would cost a microsecond
            os.pwrite(self._board, BOARD.pack(stdout, stderr, dropped, blocked_errno), 0)
        except OSError:
            pass  # readers see the older one


class LogWriter:
    """The only writer of ``output`` and ``index``."""

    def __init__(self, directory: int, output: int, index: int) -> None:
        """directory: of the job; borrowed.  output, index: from ``make_log``, empty; taken."""
        self._output = output
        self._index = index
        self._durable = (
            DurableFile(directory, OUTPUT_FILE, output),
            DurableFile(directory, INDEX_FILE, index),
        )
        self.end = 0
        """Offset after the last byte kept."""
        self._slot = 0
        """Offset in ``index`` of the last record."""
        self._piece: Piece | None = None
        self._unwritten: Piece | None = None
        """A record that the disk did not take yet: its bytes are in ``output`` already."""
        self._output_room = FIRST_ROOM_BYTES
        self._index_room = _INDEX_ROOM_BYTES
        """Offsets up to which space is taken."""

    def make_room(self, bytes_ahead: int) -> None:
        """Have space for so many more bytes, and for their records, whatever fills the disk.

        Raises OSError (ENOSPC, EDQUOT) if it is not there; what was taken before stays taken.
        """
        need = self.end + bytes_ahead
        if need > self._output_room:
            self._output_room = _extend(self._output, self._output_room, need, _ROOM_STEP_BYTES)
        need = self._slot + _INDEX_ROOM_BYTES
        if need > self._index_room:
            self._index_room = _extend(self._index, self._index_room, need, _INDEX_STEP_BYTES)

    def take(self, pipe: int, stream: Stream, most: int, time_us: int) -> int:
        """Move up to ``most`` bytes of a pipe to the end of the log; 0 means end of file.

        Raises as ``pipes.move`` does.  After an OSError call it again later: nothing is lost, and
        bytes that were moved are counted in ``end``.
        """
        self._flush_record()
        count = pipes.move(pipe, self._output, self.end, most)
        if count:
            start = self.end
            self.end += count
            self._unwritten = Piece(start, self.end, stream, time_us)
        return count

    def index(self) -> None:
        """Write the record of what was taken: from here on readers see it.  Raises OSError."""
        self._flush_record()

    def flush(self) -> None:
        """Put everything onto the disk: fsync(2) of both files; the log is complete.

        Raises OSError: call it again later.
        """
        self._flush_record()
        space.release(self._output)
        space.release(self._index)
        for file in self._durable:
            file.sync()

    def _flush_record(self) -> None:
        new = self._unwritten
        if new is None:
            return
        slot = self._slot
        old = self._piece
        if old is not None:
            if old.stream is new.stream and new.time_us - old.time_us < _SAME_PIECE_US:
                # The time stays that of the piece's beginning, or it would grow for ever.
                new = Piece(old.start, new.end, old.stream, old.time_us)
            else:
                slot += RECORD_BYTES
        os.pwrite(self._index, RECORD.pack(new.end, new.time_us << 8 | new.stream), slot)
        self._slot, self._piece, self._unwritten = slot, new, None


def _extend(file: int, start: int, need: int, step: int) -> int:
    """Take space up to ``need``, and a step more if that is there; the offset reached."""
    try:
        space.reserve(file, start, need + step)
    except OSError:
        space.reserve(file, start, need)
        return need
    return need + step
