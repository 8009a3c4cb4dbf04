"""Turns of readers that all have something to read.

Each piece that is handed on keeps the event loop busy, most of all where it is encrypted, and what
became of it comes back in the order of sending.  With hundreds of readers at full speed, whatever
else there is (a new call, a sign of life of a connection) would come after one piece for each of
them: 500 new readers were not accepted in half a minute.  So only a few pieces are on their way at
one time, and their readers take turns.

A reader takes its turn before it reads, so those who wait hold nothing.  A turn is over when the
reader is back, or soon: one whose client is slow keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

#: Large enough that a stream is fast, small enough that a call beside it is not slow.
CHUNK_BYTES: Final = 256 * 1024
#: A call waits for a piece of each of those that are on their way.
_CHUNK_BYTES_OF_SEVERAL: Final = 160 * 1024
#: A client that does not read keeps more than two pieces in memory: our own, and gRPC's copy.
_CHUNK_BYTES_OF_MANY: Final = 120 * 1024
_READERS_AT_EASE: Final = 128
#: Enough to keep two processors busy at all times.
_TURNS: Final = 16
#: Several times what a piece takes on the way to a client that reads; and with this alone, nobody
#: giving back anything, there would still be 800 turns in a second.
_TURN_S: Final = 0.02


class Turn:
    """Of one reader."""

    __slots__ = ("_turns", "until")

    def __init__(self, turns: Turns, until: float) -> None:
        self._turns: Turns | None = turns
        self.until = until

    @property
    def is_over(self) -> bool:
        return self._turns is None

    def end(self) -> None:
        """No-op after the first."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.hand_on()


class Turns:
    """So many turns at one time.  Belongs to the event loop that it is made in."""

    def __init__(self, count: int = _TURNS, longest_s: float = _TURN_S) -> None:
        self._free = count
        self._readers = 0
        self._longest_s = longest_s
        self._taken: deque[Turn] = deque()
        """In the order of beginning; those that are over are taken out when they come first."""
        self._waiting: deque[asyncio.Future[Turn]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def reader(self) -> Iterator[None]:
        """Count one who will take turns, for the length of the block."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @property
    def piece_bytes(self) -> int:
        """What to read at most in a turn: less beside others, and where many may all be slow."""
        if self._readers <= 1:
            return CHUNK_BYTES
        several = self._readers <= _READERS_AT_EASE
        return _CHUNK_BYTES_OF_SEVERAL if several else _CHUNK_BYTES_OF_MANY

    async def take(self) -> Turn:
        """Returns when it is one's turn: at once if few others have one, else in order."""
        if self._free and not self._waiting:
            return self._begin()
        waiting: asyncio.Future[Turn] = self._loop.create_future()
        self._waiting.append(waiting)
        self._watch_oldest()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                waiting.result().end()
            raise

    def hand_on(self) -> None:
        """A turn is over: to the next who waits."""
        self._free += 1
        while self._taken and self._taken[0].is_over:
            self._taken.popleft()
        while self._waiting and self._free:
            waiting = self._waiting.popleft()
            if not waiting.done():  # else its reader is gone
                waiting.set_result(self._begin())

    def _begin(self) -> Turn:
        self._free -= 1
        turn = Turn(self, self._loop.time() + self._longest_s)
        self._taken.append(turn)
        return turn

    def _watch_oldest(self) -> None:
        if self._timer is None and self._taken:
            self._timer = self._loop.call_at(self._taken[0].until, self._end_old)

    def _end_old(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._taken and (self._taken[0].is_over or self._taken[0].until <= now):
            self._taken.popleft().end()
        if self._waiting:
            self._watch_oldest()
