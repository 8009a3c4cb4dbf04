"""Times before lines, whatever the borders of the pieces."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.stamps import LineStamper
from jobworker.model import Chunk, Stream

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "

data = st.lists(st.sampled_from([b"\n", b"a", b"\0", b"\xff"]), max_size=30).map(b"".join)
parts = st.lists(st.tuples(st.sampled_from(Stream), data), max_size=10)


def stamped(parts, *, time_us: int = 0) -> dict[Stream, bytes]:
    """What comes out on each stream."""
    stamper, found = LineStamper(), dict.fromkeys(Stream, b"")
    for stream, piece in parts:
        found[stream] += stamper.stamp(Chunk(0, stream, time_us, piece))
    return found


@given(parts=parts)
def test_without_the_times_the_bytes_are_what_they_were(parts) -> None:
    found = stamped(parts)
    for stream in Stream:
        whole = b"".join(piece for name, piece in parts if name is stream)
        assert re.sub(rb"(?m)^" + STAMP, b"", found[stream]) == whole


@given(parts=parts)
def test_every_line_has_one_time(parts) -> None:
    for text in stamped(parts).values():
        for line in text.split(b"\n")[: -1 if text.endswith(b"\n") or not text else None]:
            assert len(re.findall(STAMP, line)) == 1


@given(whole=data, cuts=st.lists(st.integers(0, 30)))
def test_where_pieces_are_cut_changes_nothing(whole: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [(Stream.STDOUT, whole[begin:end]) for begin, end in itertools.pairwise(places)]
    assert stamped(pieces) == stamped([(Stream.STDOUT, whole)])


def test_a_line_has_the_time_of_its_first_byte() -> None:
    stamper = LineStamper()
    first = stamper.stamp(Chunk(0, Stream.STDOUT, 1_000_001, b"a\nb"))
    other = stamper.stamp(Chunk(3, Stream.STDERR, 2_000_000, b"err\n"))
    second = stamper.stamp(Chunk(7, Stream.STDOUT, 3_000_000, b"c\nd\n"))
    early, late = b"1970-01-01T00:00:01.000001Z ", b"1970-01-01T00:00:03.000000Z "
    assert first == early + b"a\n" + early + b"b"
    assert other == b"1970-01-01T00:00:02.000000Z err\n"
    assert second == b"c\n" + late + b"d\n"
