"""A reader's place in a log.

Reads the index, and nothing of the output.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from jobworker.model.output import Stream
from jobworker.output.log import Piece
from jobworker.output.reader import LogReader, stream_of

logger = logging.getLogger(__name__)

#: Large enough that a stream is fast, small enough that a call beside it is not slow.
CHUNK_BYTES: Final = 256 * 1024
#: 16 KiB of index at a time.
_RECORDS_AT_ONCE: Final = 1024
#: To look through these for pieces that are wanted takes as long as handing on a chunk.
_BLOCKS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which part of a log a reader wants."""

    offset: int = 0
    stream: Stream | None = None
    """None: both."""
    tail_lines: int | None = None
    """Instead of ``offset``: from the beginning of the last so many lines that are there now."""
    since_us: int | None = None
    """Instead of ``offset``: from what was written then."""
    exact_times: bool = False
    """Do not join pieces that have times of their own."""

    @property
    def is_place_chosen(self) -> bool:
        """Is the reader to be told where it begins?"""
        return self.tail_lines is not None or self.since_us is not None


class Cursor:
    """A place in a log that moves forward only."""

    def __init__(self, log: LogReader, view: View) -> None:
        """log: borrowed.  view: with an offset or a time; for lines see tail.py."""
        self._log = log
        self._view = view
        self.offset = view.offset
        if view.since_us is not None:
            self.offset = log.start_of(log.record_since(view.since_us))
        self._base = log.record_at(self.offset)
        self._block: list[tuple[int, int]] = []
        """Records from number ``_base`` on; the last one of the log may have grown since."""
        self._place = 0
        """In ``_block``: records before it end at or before ``offset``."""
        self._is_damaged = False
        self.is_behind = False
        """``next_piece`` found nothing, and has not yet looked through all that the index knows."""

    def next_piece(self) -> Piece | None:
        """What can be read at one go, at most a chunk; None if the index knows no more now.

        Pieces of a stream that is not wanted are passed over, so many in one call: see
        ``is_behind``.  The caller says with ``advance`` how far it came.
        """
        self.is_behind = False
        for _ in range(_BLOCKS_AT_ONCE):
            piece = self._find_in_block()
            if piece is not None or not self._load_block():
                return piece
        self.is_behind = True
        return None

    def advance(self, count: int) -> None:
        """So many bytes of the piece were read."""
        self.offset += count

    def rest(self) -> Piece | None:
        """For a log that is complete: what lies beyond the index, of a stream that is not known."""
        end = self._log.kept_bytes()
        if self.offset >= end or self._view.stream is Stream.STDERR:
            return None
        return Piece(self.offset, min(end, self.offset + CHUNK_BYTES), Stream.STDOUT, 0)

    def _find_in_block(self) -> Piece | None:
        while (piece := self._piece_in_block()) is not None:
            if self._view.stream in (None, piece.stream):
                return piece
            self.offset = piece.end
        return None

    def _piece_in_block(self) -> Piece | None:
        """From ``offset`` on: records of one stream, joined to at most a chunk."""
        block = self._block
        while self._place < len(block) and block[self._place][0] <= self.offset:
            self._place += 1
        if self._place == len(block):
            return None
        end, stamp = block[self._place]
        most = self.offset + CHUNK_BYTES
        if not self._view.exact_times:
            for next_end, next_stamp in block[self._place + 1 :]:
                if end >= most or (next_stamp ^ stamp) & 0xFF:
                    break
                end, stamp = next_end, next_stamp
        return Piece(self.offset, min(end, most), Stream(stamp & 0xFF), stamp >> 8)

    def _load_block(self) -> bool:
        """Read on in the index; False if it has nothing beyond ``offset``."""
        if self._is_damaged:
            return False
        # The last record is read again: it may have grown.
        self._base += max(0, min(self._place, len(self._block) - 1))
        self._block = self._log.records(self._base, _RECORDS_AT_ONCE)
        self._place = 0
        self._cut_damage(self._log.kept_bytes())
        return bool(self._block) and self._block[-1][0] > self.offset

    def _cut_damage(self, kept_bytes: int) -> None:
        """Leave out what can't be true; ``rest`` serves those bytes when the job has ended."""
        before = 0
        for place, (end, stamp) in enumerate(self._block):
            if end < before or end > kept_bytes or stream_of(stamp) is None:
                self._is_damaged = True
                record = self._base + place
                logger.error("index is damaged", extra={"record": record, "offset": before})
                del self._block[place:]
                return
            before = end
