"""The time before each line of output, for ``logs --timestamps``.

A line is one of its stream: pieces of the other stream that come between its parts do not end it.
It gets the time of the piece in which it begins.
"""

from __future__ import annotations

import datetime
from typing import Final

from jobworker.cli.render import rfc3339
from jobworker.model.output import Chunk, Stream

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class LineStamper:
    """Puts times into the pieces of one output."""

    def __init__(self) -> None:
        self._is_inside_line = dict.fromkeys(Stream, False)

    def stamp(self, chunk: Chunk) -> bytes:
        """The bytes of the piece with a time at the begin of each line."""
        if not chunk.data:
            return b""
        prefix = f"{_shown_time(chunk.time_us)} ".encode()
        ends_line = chunk.data.endswith(b"\n")
        # The line after the last newline begins with the next piece, and has its time.
        body = chunk.data[:-1] if ends_line else chunk.data
        stamped = body.replace(b"\n", b"\n" + prefix) + (b"\n" if ends_line else b"")
        if not self._is_inside_line[chunk.stream]:
            stamped = prefix + stamped
        self._is_inside_line[chunk.stream] = not ends_line
        return stamped


def _shown_time(time_us: int) -> str:
    # By whole numbers: a float has no room for microseconds since 1970 and their rounding.
    return rfc3339(_EPOCH + datetime.timedelta(microseconds=time_us)) or ""
