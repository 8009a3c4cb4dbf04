"""What a stream of output carries, to protobuf messages and back, as convert.py does it.

Chunks travel in a hand-made encoding of the same messages (wire.py).
"""

from __future__ import annotations

from jobworker.api.convert import (
    ending_from_proto,
    ending_to_proto,
    totals_from_proto,
    totals_to_proto,
)
from jobworker.api.fields import reading_an_answer
from jobworker.api.scalars import STREAM_NUMBERS, member
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import InvalidArgumentError
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream


def stream_to_proto(stream: Stream | None) -> pb.OutputStream:
    """``None`` is both."""
    return pb.OUTPUT_STREAM_UNSPECIFIED if stream is None else STREAM_NUMBERS[stream]


def stream_from_proto(number: int) -> Stream | None:
    """``None`` is both; raises InvalidArgumentError."""
    if number == pb.OUTPUT_STREAM_UNSPECIFIED:
        return None
    return member(STREAM_NUMBERS, number, "stream")


def event_to_proto(event: Chunk | Heartbeat | EndOfOutput) -> pb.StreamOutputResponse:
    match event:
        case Chunk():
            chunk = pb.OutputChunk(
                data=event.data,
                offset=event.offset,
                stream=STREAM_NUMBERS[event.stream],
                time_us=event.time_us,
            )
            return pb.StreamOutputResponse(chunk=chunk)
        case Heartbeat():
            return pb.StreamOutputResponse(heartbeat=pb.OutputHeartbeat(offset=event.offset))
        case EndOfOutput():
            end = pb.OutputEnd(
                totals=totals_to_proto(event.totals),
                ending=None if event.ending is None else ending_to_proto(event.ending),
            )
            return pb.StreamOutputResponse(end=end)


def event_from_proto(message: pb.StreamOutputResponse) -> Chunk | Heartbeat | EndOfOutput:
    """Raises DataLossError for what no service of this version sends."""
    with reading_an_answer():
        match message.WhichOneof("event"):
            case "chunk":
                chunk = message.chunk
                stream = member(STREAM_NUMBERS, chunk.stream, "chunk.stream")
                return Chunk(chunk.offset, stream, chunk.time_us, chunk.data)
            case "heartbeat":
                return Heartbeat(message.heartbeat.offset)
            case "end":
                end = message.end
                ending = ending_from_proto(end.ending) if end.HasField("ending") else None
                return EndOfOutput(totals_from_proto(end.totals), ending)
            case other:
                why = "this version of jobworker knows no such event"
                raise InvalidArgumentError("event", other, why)
