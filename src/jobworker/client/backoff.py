"""How long to wait before trying again, and when to give up.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: with full jitter, clients
that lost one service at the same moment come back spread out evenly.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jobworker.errors import JobWorkerError

#: Ceiling of the first delay; a service that is only being restarted is back within a second.
FIRST_DELAY_S: Final = 0.1
#: Ceiling of every delay: the longest that a follower lags behind a service that has come back.
LONGEST_DELAY_S: Final = 5.0
#: Between the signs of life of a service ("heartbeat" in its configuration, 5 s at most); three
#: missing ones mean that it does nothing any more.  A connection that is gone is noticed sooner.
HEARTBEAT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client bears with a service that does not answer, in seconds."""

    connect_s: float = 10.0
    """Until the first connection stands.  One that is refused is not tried again."""
    call_s: float = 30.0
    """For one call, its repetitions included."""
    silence_s: float = 3 * HEARTBEAT_S
    """Without any message on a stream; then it counts as broken."""
    resume_s: float = 300.0
    """Without any message while a stream breaks again and again; then it has failed."""


def _draw_evenly(low: float, high: float) -> float:
    # Not by the module random: it loads all hash functions, which takes 2 ms of every start.
    return low + (high - low) * (int.from_bytes(os.urandom(7), "big") / 2**56)


class Backoff:
    """The delays of one row of attempts.

    patience_s: from the first failure of the row to the moment of giving up.
    """

    def __init__(
        self,
        patience_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = _draw_evenly,
    ) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._draw = draw
        self._attempts = 0
        self._failing_since: float | None = None

    @property
    def attempts(self) -> int:
        """Failures since the last progress."""
        return self._attempts

    def progress(self) -> None:
        """Something came: the next failure begins a new row."""
        self._attempts = 0
        self._failing_since = None

    def next_delay_s(self, failure: JobWorkerError) -> float:
        """Count a failure; raises it if patience is over before another attempt could be made."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        # The exponent is bounded, or a long row would overflow a float.
        ceiling = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._attempts, 16))
        delay = self._draw(0.0, ceiling)
        if now + delay - self._failing_since > self._patience_s:
            raise failure
        self._attempts += 1
        return delay

    async def pause(self, failure: JobWorkerError) -> None:
        """Wait out the next delay; raises the failure when patience is over."""
        delay = self.next_delay_s(failure)
        # The passing of time is the very thing that is waited for here.
        await asyncio.sleep(delay)  # noqa: TID251 -- see above
