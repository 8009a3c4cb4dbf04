"""The laws of an output stream, as its receiver checks them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.client.follow import OutputCursor
from jobworker.errors import DataLossError
from jobworker.model import Chunk, Ending, EndOfOutput, EndReason, Heartbeat, OutputTotals, Stream

ENDING = Ending(reason=EndReason.EXITED, exit_code=0)

pieces = st.lists(
    st.tuples(st.sampled_from(Stream), st.binary(min_size=1, max_size=8)), max_size=12
)


def chunks_of(parts) -> list[Chunk]:
    chunks, offset = [], 0
    for stream, data in parts:
        chunks.append(Chunk(offset, stream, 0, data))
        offset += len(data)
    return chunks


def accept_all(cursor: OutputCursor, events: Iterable[Chunk | EndOfOutput]) -> None:
    for event in events:
        cursor.accept(event)


def totals_of(chunks) -> OutputTotals:
    sizes = dict.fromkeys(Stream, 0)
    for chunk in chunks:
        sizes[chunk.stream] += len(chunk.data)
    return OutputTotals(stdout_bytes=sizes[Stream.STDOUT], stderr_bytes=sizes[Stream.STDERR])


@given(parts=pieces)
def test_whole_output_is_accepted_and_the_cursor_stands_at_its_end(parts) -> None:
    cursor, chunks = OutputCursor(), chunks_of(parts)
    for chunk in chunks:
        cursor.accept(Heartbeat(chunk.offset))
        cursor.accept(chunk)
    totals = totals_of(chunks)
    cursor.accept(EndOfOutput(totals, ENDING))
    assert cursor.offset == totals.kept_bytes


@given(parts=pieces, place=st.integers(0, 11))
def test_a_missing_piece_is_always_noticed(parts, place: int) -> None:
    chunks = chunks_of(parts)
    totals = totals_of(chunks)
    if place >= len(chunks):
        return
    del chunks[place]
    cursor = OutputCursor()
    if place < len(chunks):
        # By the very next piece: nothing after a gap is handed on.
        with pytest.raises(DataLossError):
            accept_all(cursor, chunks[: place + 1])
    else:
        accept_all(cursor, chunks)
        with pytest.raises(DataLossError):
            cursor.accept(EndOfOutput(totals, ENDING))


@given(parts=pieces, place=st.integers(0, 11))
def test_a_repeated_piece_is_always_noticed(parts, place: int) -> None:
    chunks = chunks_of(parts)
    if place >= len(chunks):
        return
    chunks.insert(place, chunks[place])
    with pytest.raises(DataLossError):
        accept_all(OutputCursor(), chunks)


@given(parts=pieces, wanted=st.sampled_from(Stream))
def test_one_stream_alone_is_accepted_with_its_gaps_and_counted(parts, wanted: Stream) -> None:
    chunks = chunks_of(parts)
    totals = totals_of(chunks)
    mine = [chunk for chunk in chunks if chunk.stream is wanted]
    cursor = OutputCursor(stream=wanted)
    for chunk in mine:
        cursor.accept(chunk)
    cursor.accept(EndOfOutput(totals, ENDING))
    if mine:
        short = OutputCursor(stream=wanted)
        for chunk in mine[:-1]:
            short.accept(chunk)
        with pytest.raises(DataLossError):
            short.accept(EndOfOutput(totals, ENDING))


def test_a_stream_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(DataLossError, match="not asked for"):
        OutputCursor(stream=Stream.STDERR).accept(Chunk(0, Stream.STDOUT, 0, b"x"))


def test_while_the_job_writes_on_the_totals_may_be_ahead() -> None:
    cursor = OutputCursor()
    cursor.accept(Chunk(0, Stream.STDOUT, 0, b"ab"))
    cursor.accept(EndOfOutput(OutputTotals(stdout_bytes=9), None))


@pytest.mark.parametrize("options", [{"tail_lines": 3}, {"since_us": 5}])
def test_a_place_that_the_service_chooses_is_known_from_its_first_message(options) -> None:
    cursor = OutputCursor(**options)
    assert OutputCursor(**options).offset is None
    assert (cursor.tail_lines, cursor.since_us) == (
        options.get("tail_lines"),
        options.get("since_us"),
    )
    cursor.accept(Heartbeat(40))
    assert cursor.offset == 40
    assert cursor.tail_lines is None
    assert cursor.since_us is None
    cursor.accept(Chunk(40, Stream.STDOUT, 0, b"ab"))
    with pytest.raises(DataLossError):
        cursor.accept(EndOfOutput(OutputTotals(stdout_bytes=43), ENDING))


def test_a_tail_of_nothing_ends_well() -> None:
    OutputCursor(tail_lines=1).accept(EndOfOutput(OutputTotals(), ENDING))
