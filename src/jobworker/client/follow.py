"""Where a follower stands: what it has received, what it asks for next, whether that was all.

Owns: the laws of an output stream as its receiver can check them.  No network in it.

A broken stream is resumed at the byte after the last one received.  Pieces must join without a gap
or an overlap; the totals in the last message must be what arrived.  Anything else is DataLossError:
output that is silently short is worse than none.
"""

from __future__ import annotations

from jobworker.errors import DataLossError
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream


class OutputCursor:
    """The place of one follower in the output of one job.

    tail_lines, since_us: leave it to the service where to begin; the first message tells.
    """

    def __init__(
        self,
        *,
        offset: int = 0,
        stream: Stream | None = None,
        tail_lines: int | None = None,
        since_us: int | None = None,
    ) -> None:
        self._stream = stream
        self._tail_lines = tail_lines
        self._since_us = since_us
        self._is_whole = offset == 0 and tail_lines is None and since_us is None
        self._offset: int | None = offset if tail_lines is None and since_us is None else None
        self._received = dict.fromkeys(Stream, 0)

    @property
    def offset(self) -> int | None:
        """Of the next byte; ``None`` as long as only the service knows."""
        return self._offset

    @property
    def tail_lines(self) -> int | None:
        """To be asked for; ``None`` once the place is known."""
        return self._tail_lines if self._offset is None else None

    @property
    def since_us(self) -> int | None:
        """To be asked for; ``None`` once the place is known."""
        return self._since_us if self._offset is None else None

    def accept(self, event: Chunk | Heartbeat | EndOfOutput) -> None:
        """Move on; raises DataLossError if the event cannot be what follows."""
        match event:
            case Chunk():
                self._accept_chunk(event)
            case Heartbeat():
                self._move_to(event.offset, is_exact=self._stream is None)
            case EndOfOutput():
                self._accept_end(event)

    def _accept_chunk(self, chunk: Chunk) -> None:
        if self._stream is not None and chunk.stream is not self._stream:
            raise _loss(f"a piece of {chunk.stream.name.lower()} came that was not asked for")
        self._move_to(chunk.offset, is_exact=self._stream is None)
        self._offset = chunk.end
        self._received[chunk.stream] += len(chunk.data)

    def _move_to(self, offset: int, *, is_exact: bool) -> None:
        """With only one stream asked for, the other's bytes are left out between the pieces."""
        if self._offset is not None and (
            offset < self._offset or (is_exact and offset > self._offset)
        ):
            raise _loss(f"after byte {self._offset} came byte {offset}")
        self._offset = offset

    def _accept_end(self, end: EndOfOutput) -> None:
        totals = {
            Stream.STDOUT: end.totals.stdout_bytes,
            Stream.STDERR: end.totals.stderr_bytes,
        }
        if self._offset is not None and self._offset > end.totals.kept_bytes:
            raise _loss(f"{self._offset} bytes came of {end.totals.kept_bytes} that there are")
        if end.ending is None:
            return  # the job writes on, so the totals may be ahead of what was asked for
        if self._stream is None and self._offset not in (None, end.totals.kept_bytes):
            raise _loss(f"it ended at byte {self._offset} of {end.totals.kept_bytes}")
        if self._is_whole:
            for stream in Stream if self._stream is None else (self._stream,):
                if self._received[stream] != totals[stream]:
                    name = stream.name.lower()
                    raise _loss(f"{self._received[stream]} of {totals[stream]} bytes of {name}")


def _loss(why: str) -> DataLossError:
    return DataLossError("deliver the output of the job whole", why)
