"""The hand-made bytes are those that protobuf makes, and are read as protobuf reads them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobworker.api.events import event_from_proto, event_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.wire import decode_event, encode_event
from jobworker.errors import DataLossError
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream
from unit.api import strategies


@given(strategies.events)
@example(Chunk(0, Stream.STDOUT, 0, b""))
@example(Chunk((1 << 63) - 1, Stream.STDERR, -1, b"x"))
def test_an_event_is_encoded_as_protobuf_does(event: Chunk | Heartbeat | EndOfOutput) -> None:
    encoded = encode_event(event)
    assert encoded == event_to_proto(event).SerializeToString()
    assert event_from_proto(pb.StreamOutputResponse.FromString(encoded)) == event


# Around each length at which one of the two length fields takes a byte more.
@given(st.sampled_from([1 << 7, 1 << 14, 1 << 18, 1 << 21]), st.integers(-12, 12))
def test_the_lengths_of_large_chunks_are_right(near: int, off_by: int) -> None:
    chunk = Chunk(1, Stream.STDOUT, 1, bytes(near + off_by))
    assert encode_event(chunk) == event_to_proto(chunk).SerializeToString()


@given(strategies.events)
@example(Chunk(0, Stream.STDOUT, 0, b""))
@example(Chunk((1 << 63) - 1, Stream.STDERR, -1, b"x"))
def test_an_event_comes_out_as_it_went_in(event: Chunk | Heartbeat | EndOfOutput) -> None:
    assert decode_event(encode_event(event)) == event


_DATA, _OFFSET, _STREAM = b"\x0a\x02ab", b"\x10\x05", b"\x18\x01"


@pytest.mark.parametrize(
    "chunk",
    [
        _OFFSET + _STREAM + _DATA,
        _DATA + _OFFSET + _STREAM + b"\x0a\x01c",
        _DATA + _OFFSET + _STREAM + b"\xfa\x07\x03new",
        _DATA + _STREAM,
    ],
    ids=["another order", "data twice", "an unknown field", "no offset"],
)
def test_a_chunk_of_another_encoder_is_read_as_protobuf_does(chunk: bytes) -> None:
    message = b"\x0a" + bytes([len(chunk)]) + chunk
    assert decode_event(message) == event_from_proto(pb.StreamOutputResponse.FromString(message))


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05\x0a\x02a",
        b"\x0a\x04\x0a\x09ab",
        b"\x0a" + b"\xff" * 11,
        b"\x0a\x05\x0a\x02ab\x10",
        b"\x0a\x04" + _DATA,
        b"",
    ],
)
def test_a_damaged_message_is_no_event(message: bytes) -> None:
    with pytest.raises(DataLossError):
        decode_event(message)
