"""From a job's two pipes into its log, until end of file, with an exact ceiling.

Single-threaded, never waits: the shim calls it when a pipe is readable.  When the disk takes
nothing (full, over quota, broken) the pump stops reading: the job blocks on its pipe, nothing is
lost, the board says why, and the shim lets it try again later.

It stops while there is still room for all that the pipes can hold.  That room is for the end of the
job: what it wrote before it was stopped is kept, though the disk be full.
"""

from __future__ import annotations

import os
import time
from typing import Final

from jobworker.kernel import pipes
from jobworker.model.output import Stream
from jobworker.model.spec import OnOutputLimit
from jobworker.model.usage import OutputTotals
from jobworker.output.log import Board, LogWriter

#: A stream that fills half of a default pipe between two looks is worth a larger one.
_GROW_AT_BYTES: Final = 32 * 1024


class Pump:
    """Moves what a job writes; counts it; enforces the ceiling."""

    def __init__(
        self,
        log: LogWriter,
        board: Board,
        *,
        most_bytes: int | None,
        on_limit: OnOutputLimit,
        stdout: int,
        stderr: int,
    ) -> None:
        """stdout, stderr: non-blocking read ends; taken, closed at their end of file."""
        self._log = log
        self._board = board
        self._most_bytes = most_bytes
        self._on_limit = on_limit
        self._kept = {Stream.STDOUT: 0, Stream.STDERR: 0}
        self._dropped = 0
        self._open = {stdout: Stream.STDOUT, stderr: Stream.STDERR}
        self._grown: set[int] = set()
        self._pipes_bytes = pipes.capacity(stdout) + pipes.capacity(stderr)
        """The most that is still to come once nobody writes any more."""
        self._null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.blocked_errno = 0
        """Why the log takes nothing just now; 0 if it does."""

    @property
    def open_pipes(self) -> tuple[int, ...]:
        """Those that have not reached their end of file."""
        return tuple(self._open)

    @property
    def totals(self) -> OutputTotals:
        return OutputTotals(
            stdout_bytes=self._kept[Stream.STDOUT],
            stderr_bytes=self._kept[Stream.STDERR],
            dropped_bytes=self._dropped,
        )

    @property
    def is_over_limit(self) -> bool:
        """Did the job write more than its ceiling, where that is to end it?"""
        return self._dropped > 0 and self._on_limit is OnOutputLimit.STOP

    def pump(self, pipe: int) -> bool:
        """Move what one pipe holds, once; False if it holds nothing more just now.

        At end of file the pipe is closed and is no longer among ``open_pipes``.
        """
        try:
            self._log.make_room(self._room_bytes())
        except OSError as error:
            self._block(error)
            return False
        count = self._pump_once(pipe)
        if count >= _GROW_AT_BYTES and pipe not in self._grown:
            self._grow(pipe)
        return count > 0

    def _pump_once(self, pipe: int) -> int:
        """0 if the pipe holds nothing more just now, or the log takes nothing."""
        try:
            count = self._move(pipe, self._open[pipe])
            # First: who has read bytes must not be told that there are fewer.
            self._show()
            self._log.index()
        except BlockingIOError:
            # The pipe is empty and the log took its last record: nothing is held up any more.
            self._unblock()
            return 0
        except OSError as error:
            self._block(error)
            return 0
        self._unblock()
        if count == 0:
            del self._open[pipe]
            os.close(pipe)
        return count

    def _room_bytes(self) -> int:
        """What is moved now is no more than the pipes hold, and as much is to stay."""
        room = 2 * self._pipes_bytes
        if self._most_bytes is None:
            return room
        return max(0, min(room, self._most_bytes - self._log.end))

    def _grow(self, pipe: int) -> None:
        self._grown.add(pipe)
        more = pipes.PIPE_BYTES - pipes.capacity(pipe)
        try:
            self._log.make_room(self._room_bytes() + 2 * more)
        except OSError:
            return  # On a disk that is nearly full it stays small.
        if pipes.grow_pipe(pipe):
            self._pipes_bytes += more

    def drain(self) -> bool:
        """Move all that a dead job left in its pipes; False when the log takes nothing.

        For this there is room.  No more than a pipe holds: what comes after that is from a process
        outside the job, which was handed the write end and could keep us here for ever.
        """
        for pipe in self.open_pipes:
            rest = pipes.capacity(pipe)
            while rest > 0 and (count := self._pump_once(pipe)):
                rest -= count
            if self.blocked_errno:
                return False
        return True

    def close(self) -> None:
        """Take nothing more: a pipe that is still open is held by a process outside the job."""
        for pipe in self.open_pipes:
            del self._open[pipe]
            os.close(pipe)

    def flush(self) -> bool:
        """Put the log onto the disk; False when the log takes nothing."""
        try:
            self._log.flush()
        except OSError as error:
            self._block(error)
            return False
        self._unblock()
        return True

    def _move(self, pipe: int, stream: Stream) -> int:
        most = pipes.SPLICE_BYTES_MAX
        if self._most_bytes is not None:
            most = min(most, self._most_bytes - self._log.end)
        if most <= 0:
            count = pipes.discard(pipe, self._null, pipes.SPLICE_BYTES_MAX)
            self._dropped += count
            return count
        before = self._log.end
        try:
            return self._log.take(pipe, stream, most, time.time_ns() // 1000)
        finally:
            # Also when it raises: what has left the pipe counts.
            self._kept[stream] += self._log.end - before

    def _unblock(self) -> None:
        if self.blocked_errno:
            self.blocked_errno = 0
            self._show()

    def _block(self, error: OSError) -> None:
        self.blocked_errno = error.errno or 0
        self._show()

    def _show(self) -> None:
        kept = self._kept
        self._board.show(
            kept[Stream.STDOUT], kept[Stream.STDERR], self._dropped, self.blocked_errno
        )
