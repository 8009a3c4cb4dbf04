"""Events of an output stream as the bytes that go over the wire.

Owns: the hand-made encoding of a chunk.  It is what protobuf makes of the message, byte for byte,
with one copy of the data instead of three: at 256 KiB a chunk that is a tenth of the service's CPU
time, at 1 MiB two thirds.  Its reader takes the data out with one copy too, and leaves everything
else to protobuf.

Source: protobuf.dev, "Encoding"; the field numbers are those of ``StreamOutputResponse`` and
``OutputChunk`` in proto/jobworker/v1/job_worker.proto, and a test holds them to it.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from jobworker.api.events import event_from_proto, event_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import DataLossError
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat

#: Field 1 in StreamOutputResponse (chunk) and in OutputChunk (data), each with a length before it.
_TAG_CHUNK: Final = b"\x0a"
_TAG_DATA: Final = b"\x0a"
#: Fields 2 to 4 in OutputChunk, each a varint.
_TAG_OFFSET: Final = b"\x10"
_TAG_STREAM: Final = b"\x18"
_TAG_TIME_US: Final = b"\x20"

_VARINT_BITS: Final = 7
_MORE: Final = 0x80
#: What a varint of 64 bits takes.
_VARINT_BYTES_MAX: Final = 10
_UINT64_MASK: Final = (1 << 64) - 1


def encode_event(event: Chunk | Heartbeat | EndOfOutput) -> bytes:
    """A serialized ``StreamOutputResponse``."""
    if isinstance(event, Chunk):
        return encode_chunk(event)
    return event_to_proto(event).SerializeToString()


def encode_chunk(chunk: Chunk) -> bytes:
    """A serialized ``StreamOutputResponse`` with this chunk; copies the data once."""
    # A field with the value zero is left out, as proto3 does.
    before = _TAG_DATA + _varint(len(chunk.data)) if chunk.data else b""
    after = b"".join(
        tag + _varint(value)
        for tag, value in (
            (_TAG_OFFSET, chunk.offset),
            (_TAG_STREAM, chunk.stream),
            # Negative numbers go as their two's complement of 64 bits.
            (_TAG_TIME_US, chunk.time_us & _UINT64_MASK),
        )
        if value
    )
    size = len(before) + len(chunk.data) + len(after)
    return b"".join((_TAG_CHUNK, _varint(size), before, chunk.data, after))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set on all but the last."""
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & (_MORE - 1) | _MORE)
        value >>= _VARINT_BITS
    encoded.append(value)
    return bytes(encoded)


def decode_event(message: bytes) -> Chunk | Heartbeat | EndOfOutput:
    """Of a serialized ``StreamOutputResponse``, whoever serialized it.

    Raises DataLossError for what no service of this version sends.
    """
    try:
        span = _span_of_data(message)
        if span is not None:
            begin, end = span
            rest = pb.OutputChunk.FromString(message[end:])
            chunk = event_from_proto(pb.StreamOutputResponse(chunk=rest))
            # Data once more, behind: allowed, and then the last one counts.
            if isinstance(chunk, Chunk) and not chunk.data:
                return Chunk(chunk.offset, chunk.stream, chunk.time_us, message[begin:end])
        return event_from_proto(pb.StreamOutputResponse.FromString(message))
    except DecodeError as error:
        raise DataLossError("read the answer of the service", "it is damaged") from error


def _span_of_data(message: bytes) -> tuple[int, int] | None:
    """Where the data of a chunk stands, if it begins the chunk and the chunk is all there is."""
    if message[:1] != _TAG_CHUNK:
        return None
    size, begin = _read_varint(message, 1)
    if begin + size != len(message) or message[begin : begin + 1] != _TAG_DATA:
        return None
    size, begin = _read_varint(message, begin + 1)
    return (begin, begin + size) if begin + size <= len(message) else None


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """The number and the place after it; one that is cut off or too long reaches beyond the end."""
    value = 0
    for number, byte in enumerate(message[place : place + _VARINT_BYTES_MAX]):
        value |= (byte & (_MORE - 1)) << (_VARINT_BITS * number)
        if byte < _MORE:
            return value, place + number + 1
    return 0, len(message) + 1
