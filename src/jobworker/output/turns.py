"""Turns of readers that all have something to read.

Each piece that is handed on keeps the event loop busy for a millisecond or two, most of all where
it is encrypted, and what became of it comes back in the order of sending.  With many readers at
full speed, whatever else there is (a call, a new reader, a sign of life of a connection) would come
after one piece for each of them.  So only a few pieces are on their way at one time, and their
readers take turns.

A reader takes its turn before it reads, so those who wait hold nothing.  One whose client is slow
keeps nobody waiting: its turn is over soon, and from then on it goes beside the others, without
turns, until it is quick again.  It does hold its piece, twice (gRPC has its own copy), so where
many are slow at the same time pieces are small.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from jobworker.output.cursor import CHUNK_BYTES

#: Enough to keep two processors busy.  Measured with 16 to 1000 readers at full speed: 6 and 16
#: were no faster altogether, and a call beside them waited two and five times as long.
_TURNS: Final = 3
#: Several times what a piece takes on the way to a client that reads.
_TURN_S: Final = 0.02
#: With so many whose clients do not take what they are given, 70 MiB are held.
_SLOW_AT_EASE: Final = 128
_CHUNK_BYTES_OF_MANY: Final = 64 * 1024


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


class Reader:
    """Of one log, piece by piece."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn: Turn | None = None
        self._began_at = 0.0
        self._is_slow = False

    async def begin(self) -> None:
        """Returns when a piece may be read."""
        # Others come in between, whatever the reader's own consumer does: it may never wait.
        await asyncio.sleep(0)  # noqa: TID251 - a round of the loop, no time
        if not self._is_slow:
            self._turn = await self._turns.take()
        self._began_at = self._turns.now()
        self._turns.busy += 1

    async def let_others(self) -> None:
        """Returns when it is one's turn once more: for who has much to do and no piece yet."""
        await self.begin()
        self.end()

    def end(self) -> None:
        """The piece has been handed on."""
        self._turns.busy -= 1
        self._is_slow = self._turns.now() - self._began_at >= self._turns.longest_s
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()


class Turns:
    """So many turns at one time.  Belongs to the event loop that it is made in."""

    def __init__(self, count: int = _TURNS, longest_s: float = _TURN_S) -> None:
        self.longest_s = longest_s
        self.buffer = bytearray(CHUNK_BYTES)
        """To read into, for whoever copies it out before anybody else on this loop runs.  One that
        is new for each piece would be cleared each time."""
        self.busy = 0
        """Readers whose piece is on its way, slow ones among them."""
        self._free = count
        self._taken: deque[Turn] = deque()
        """In the order of beginning; those that are over are taken out when they come first."""
        self._waiting: deque[asyncio.Future[Turn]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def piece_bytes(self) -> int:
        """What to read at most at one go."""
        return CHUNK_BYTES if self.busy <= _SLOW_AT_EASE else _CHUNK_BYTES_OF_MANY

    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self._loop.time()

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
        turn = Turn(self, self.now() + self.longest_s)
        self._taken.append(turn)
        return turn

    def _watch_oldest(self) -> None:
        if self._timer is None and self._taken:
            self._timer = self._loop.call_at(self._taken[0].until, self._end_old)

    def _end_old(self) -> None:
        self._timer = None
        now = self.now()
        while self._taken and (self._taken[0].is_over or self._taken[0].until <= now):
            self._taken.popleft().end()
        if self._waiting:
            self._watch_oldest()
