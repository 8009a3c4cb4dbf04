"""Laws of a job's output: whatever is written comes back, from every offset, in every view."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from jobworker.model import Chunk, Stream
from jobworker.output.cursor import Cursor, View
from jobworker.output.follow import read_log
from jobworker.output.log import (
    INDEX_FILE,
    OUTPUT_FILE,
    RECORD_BYTES,
    LogWriter,
    make_log,
)
from jobworker.output.reader import LogReader
from jobworker.output.tail import find_tail
from jobworker.output.turns import Turns
from jobworker.output.watch import Signal

#: (stream, bytes, microseconds since the write before): as often within one record's millisecond as
#: beyond it.
_WRITES = st.lists(
    st.tuples(
        st.sampled_from(Stream),
        st.binary(min_size=1, max_size=40) | st.just(b"\n") | st.just(b"line\n"),
        st.integers(0, 3000),
    ),
    max_size=30,
)
_STREAMS = st.sampled_from([None, *Stream])
_START_US = 1_700_000_000_000_000


@dataclass
class Model:
    """What a log must hold: each byte with its stream."""

    data: bytes = b""
    streams: list[Stream] = field(default_factory=list)

    def add(self, stream: Stream, data: bytes) -> None:
        self.data += data
        self.streams += [stream] * len(data)

    def view(self, stream: Stream | None, offset: int = 0) -> bytes:
        """From an offset on, of one stream or both."""
        pairs = zip(self.data[offset:], self.streams[offset:], strict=True)
        return bytes(byte for byte, of in pairs if stream in (None, of))


@contextlib.contextmanager
def _written(writes: list[tuple[Stream, bytes, int]]) -> Iterator[tuple[LogReader, Model, Path]]:
    """A log that was written through pipes, as a shim does it."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        directory = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, directory)
        output, index = make_log(directory)
        stack.callback(os.close, output)
        stack.callback(os.close, index)
        writer = LogWriter(directory, output, index)
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)
        time_us = _START_US
        for stream, data, after_us in writes:
            time_us += after_us
            os.write(write_end, data)
            assert writer.take(read_end, stream, len(data), time_us) == len(data)
            model.add(stream, data)
        writer.flush()
        yield stack.enter_context(LogReader(directory)), model, Path(folder)


def _read(log: LogReader, view: View, *, is_complete: bool = True) -> list[Chunk]:
    async def read() -> list[Chunk]:
        events = read_log(
            log,
            view,
            changed=Signal(),
            is_complete=lambda: is_complete,
            follow=is_complete,
            heartbeat_s=None,
            turns=Turns(),
        )
        return [event async for event in events if isinstance(event, Chunk)]

    return asyncio.run(read())


def _bytes(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


@given(writes=_WRITES, offset=st.integers(0, 1200), stream=_STREAMS, exact=st.booleans())
def test_every_view_is_its_part_of_the_whole(
    writes: list[tuple[Stream, bytes, int]], offset: int, stream: Stream | None, exact: bool
) -> None:
    with _written(writes) as (log, model, _):
        offset = min(offset, len(model.data))
        for is_complete in (True, False):
            view = View(offset=offset, stream=stream, exact_times=exact)
            chunks = _read(log, view, is_complete=is_complete)
            assert _bytes(chunks) == model.view(stream, offset)
            at = offset
            for chunk in chunks:
                assert chunk.data
                assert chunk.offset >= at
                assert set(model.streams[chunk.offset : chunk.end]) == {chunk.stream}
                assert chunk.data == model.data[chunk.offset : chunk.end]
                at = chunk.end
        totals = log.totals()
        assert totals.stdout_bytes == len(model.view(Stream.STDOUT))
        assert totals.stderr_bytes == len(model.view(Stream.STDERR))


@given(writes=_WRITES)
def test_records_tile_the_output_and_backward_is_forward_reversed(
    writes: list[tuple[Stream, bytes, int]],
) -> None:
    with _written(writes) as (log, model, _):
        pieces = list(log.pieces())
        at = 0
        for piece in pieces:
            assert piece.start == at < piece.end
            assert set(model.streams[piece.start : piece.end]) == {piece.stream}
            at = piece.end
        assert at == len(model.data) == log.kept_bytes() == log.indexed_bytes()
        assert list(log.pieces_backward()) == pieces[::-1]
        times = [piece.time_us for piece in pieces]
        assert times == sorted(times)
        for offset in range(len(model.data) + 1):
            record = log.record_at(offset)
            assert record == sum(piece.end <= offset for piece in pieces)
            assert log.start_of(record) <= offset


@given(writes=_WRITES, lines=st.integers(0, 12), stream=_STREAMS)
@example(writes=[(Stream.STDOUT, b"\n", 0)], lines=1, stream=None)
@example(writes=[(Stream.STDOUT, b"a\n", 0), (Stream.STDERR, b"b", 0)], lines=1, stream=None)
def test_tail_is_the_last_lines(
    writes: list[tuple[Stream, bytes, int]], lines: int, stream: Stream | None
) -> None:
    with _written(writes) as (log, model, _):
        wanted = model.view(stream)
        ended = wanted.split(b"\n")
        # What follows the last newline is a line only if it has a byte.
        whole = [line + b"\n" for line in ended[:-1]] + ([ended[-1]] if ended[-1] else [])
        expected = b"".join(whole[max(0, len(whole) - lines) :]) if lines else b""
        assert _bytes(_read(log, View(tail_lines=lines, stream=stream))) == expected


@given(writes=_WRITES, after_us=st.integers(-10, 60_000))
def test_since_begins_with_the_first_piece_of_then(
    writes: list[tuple[Stream, bytes, int]], after_us: int
) -> None:
    since_us = _START_US + after_us
    with _written(writes) as (log, model, _):
        start = next(
            (piece.start for piece in log.pieces() if piece.time_us >= since_us), len(model.data)
        )
        assert _bytes(_read(log, View(since_us=since_us))) == model.data[start:]


@given(writes=_WRITES, cut=st.integers(0, 31 * RECORD_BYTES), offset=st.integers(0, 1200))
def test_no_byte_depends_on_the_index(
    writes: list[tuple[Stream, bytes, int]], cut: int, offset: int
) -> None:
    """Killed between the bytes and their record, a shim leaves output that is read all the same."""
    with _written(writes) as (log, model, folder):
        os.truncate(folder / INDEX_FILE, min(cut, log.record_count() * RECORD_BYTES))
        offset = min(offset, len(model.data))
        assert _bytes(_read(log, View(offset=offset))) == model.data[offset:]
        assert log.totals().kept_bytes == len(model.data)


@given(
    writes=_WRITES.filter(len),
    number=st.integers(0, 29),
    record=st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES)
    | st.builds(
        lambda end, stamp: struct.pack("<QQ", end, stamp),
        st.integers(0, 1200) | st.integers(0, (1 << 64) - 1),
        st.integers(0, 3) | st.integers(0, (1 << 64) - 1),
    ),
    view=st.builds(
        View,
        offset=st.integers(0, 1200),
        stream=_STREAMS,
        exact_times=st.booleans(),
        tail_lines=st.none() | st.integers(0, 5),
    ),
)
@example(
    writes=[(Stream.STDOUT, b"a", 0)],
    number=0,
    record=struct.pack("<QQ", (1 << 64) - 1, _START_US << 8 | 1),
    view=View(tail_lines=1),
)
def test_a_damaged_record_harms_no_reader(
    writes: list[tuple[Stream, bytes, int]], number: int, record: bytes, view: View
) -> None:
    """It may be told wrongly which stream a byte was of, but nothing raises, repeats or is lost."""
    with _written(writes) as (log, model, folder):
        number = min(number, log.record_count() - 1)
        with (folder / INDEX_FILE).open("r+b") as index:
            index.seek(number * RECORD_BYTES)
            index.write(record)
        if view.tail_lines is not None:
            *_, offset = find_tail(log, view.tail_lines, view.stream)
            assert offset is not None
            view = replace(view, offset=offset)
        cursor = Cursor(log, view)
        while (piece := cursor.next_piece() or cursor.rest()) is not None:
            assert cursor.offset <= piece.start < piece.end <= len(model.data)
            cursor.advance(piece.end - piece.start)
        if view.tail_lines is None and view.stream is None:
            offset = min(view.offset, len(model.data))
            assert _bytes(_read(log, View(offset=offset))) == model.data[offset:]
        log.totals()


@given(data=st.binary(min_size=1, max_size=5000), sizes=st.lists(st.integers(1, 700), min_size=1))
def test_however_it_is_taken_from_the_pipe_it_is_the_same(data: bytes, sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        directory = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, directory)
        output, index = make_log(directory)
        stack.callback(os.close, output)
        stack.callback(os.close, index)
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 16)
        os.write(write_end, data)
        os.close(write_end)
        writer = LogWriter(directory, output, index)
        turn = 0
        while writer.take(read_end, Stream.STDOUT, sizes[turn % len(sizes)], turn * 700):
            turn += 1
        assert writer.end == len(data)
        assert (Path(folder) / OUTPUT_FILE).read_bytes() == data
