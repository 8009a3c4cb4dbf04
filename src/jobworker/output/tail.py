"""Where the last lines of a log begin.

Lines are not in the index, so they are looked for in the bytes, from the end: in a log without
newlines in all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from jobworker.model.output import Stream
from jobworker.output.cursor import CHUNK_BYTES
from jobworker.output.reader import LogReader

#: A millisecond or less from memory, a few from a disk.
_STEP_BYTES: Final = 1024 * 1024
#: To read one more piece takes as long as to look through so many bytes.
_READ_COST_BYTES: Final = 256


def find_tail(log: LogReader, lines: int, stream: Stream | None) -> Iterator[int | None]:
    """Where the last so many lines of what is there now begin; looks at no more than it must.

    In short steps, each of which may wait for the disk: ``None`` is "not yet", and the last one is
    the answer.
    """
    end = log.indexed_bytes()
    if lines == 0:
        yield end
        return
    wanted, looked_at, is_last_byte = lines, 0, True
    for start, data in _chunks_backward(log, stream):
        place = len(data)
        # A newline that ends the output ends its last line and begins none.
        if is_last_byte and data.endswith(b"\n"):
            place -= 1
        is_last_byte = is_last_byte and not data
        while (place := data.rfind(b"\n", 0, place)) >= 0:
            wanted -= 1
            if wanted == 0:
                yield start + place + 1
                return
        looked_at += len(data) + _READ_COST_BYTES
        if looked_at >= _STEP_BYTES:
            looked_at = 0
            yield None
    yield 0


def _chunks_backward(log: LogReader, stream: Stream | None) -> Iterator[tuple[int, bytes]]:
    """Offsets and bytes from the end to the beginning; nothing for a piece that is not wanted."""
    for piece in log.pieces_backward():
        if stream not in (None, piece.stream):
            yield piece.start, b""
            continue
        at = piece.end
        while at > piece.start:
            start = max(piece.start, at - CHUNK_BYTES)
            yield start, os.pread(log.output, at - start, start)
            at = start
