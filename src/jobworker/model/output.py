"""What a follower of a job's output is given."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from jobworker.model.ending import Ending
from jobworker.model.usage import OutputTotals


class Stream(enum.IntEnum):
    """Which of the two the job wrote to.  The numbers are those of the index and of the wire."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one stream that stand together in the output log."""

    offset: int
    """Of the first byte, from the start of the output of both streams."""
    stream: Stream
    time_us: int
    """When the last byte was taken from the job or up to a millisecond before, microseconds since
    1970; 0 where that is not known."""
    data: bytes

    @property
    def end(self) -> int:
        """Offset after the last byte: where a broken stream is resumed."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing was written for a while, and the other side is there; or it tells where it begins."""

    offset: int
    """Up to here everything was sent."""


@dataclass(frozen=True, slots=True)
class EndOfOutput:
    """The last thing that a follower is given.  A stream without it is broken, not ended."""

    totals: OutputTotals
    """Of the whole output, whatever part of it was asked for."""
    ending: Ending | None
    """``None`` when the follower asked for what is there now and the job still runs."""
