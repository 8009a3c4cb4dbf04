"""The hand-made bytes are those that protobuf makes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from jobworker.api.convert import event_from_proto, event_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.wire import encode_event
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
