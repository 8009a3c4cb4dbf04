"""The SDK against services that break, fall silent, lie or go away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobworker.client import Client, Patience, Target, connect
from jobworker.errors import (
    DataLossError,
    DeadlineExceededError,
    JobNotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    StartFailedError,
    UnavailableError,
    UnreachableError,
)
from jobworker.model import Chunk, EndOfOutput, JobSpec, JobState, Stream
from jobworker.model.ids import JobId, RequestId

import grpc  # isort: skip -- after jobworker.client, which loads it under the TLS policy
from jobworker.api import convert, status
from jobworker.api.v1 import job_worker_pb2 as pb
from support.certificates import Installation, make_installation
from support.scripted import ScriptedService, serving, target_of

pytestmark = pytest.mark.anyio

JOB = JobId("0123456789abcdefghjk")
#: Short enough for tests, long enough for a loaded machine.
PATIENCE = Patience(connect_s=10, call_s=5, silence_s=1, resume_s=3)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("pki") / "pki")


@contextlib.asynccontextmanager
async def connected(
    service: ScriptedService, installation: Installation, patience: Patience = PATIENCE
) -> AsyncIterator[Client]:
    async with (
        serving(service, installation) as port,
        connect(target_of(installation, port), patience=patience) as client,
    ):
        yield client


def job(state: pb.JobState = pb.JOB_STATE_RUNNING, **fields) -> pb.Job:
    made = pb.Job(id=JOB, owner="alice", state=state, spec=pb.JobSpec(argv=["true"]), **fields)
    made.isolation = pb.ISOLATION_NONE
    made.created_at.GetCurrentTime()
    if state == pb.JOB_STATE_ENDED:
        made.ending.CopyFrom(pb.Ending(reason=pb.END_REASON_EXITED, exit_code=0))
    return made


def piece(offset: int, data: bytes, stream: pb.OutputStream = pb.OUTPUT_STREAM_STDOUT):
    chunk = pb.OutputChunk(data=data, offset=offset, stream=stream, time_us=1)
    return pb.StreamOutputResponse(chunk=chunk)


def heartbeat(offset: int):
    return pb.StreamOutputResponse(heartbeat=pb.OutputHeartbeat(offset=offset))


def end(stdout: int, stderr: int = 0, *, is_ended: bool = True):
    ending = pb.Ending(reason=pb.END_REASON_EXITED, exit_code=0) if is_ended else None
    totals = pb.OutputTotals(stdout_bytes=stdout, stderr_bytes=stderr)
    return pb.StreamOutputResponse(end=pb.OutputEnd(totals=totals, ending=ending))


async def refuse(context, error) -> None:
    code, message, details = status.to_status(error)
    await context.abort(code, message, ((status.DETAILS_KEY, details),))


async def text_of(client: Client, **options) -> bytes:
    async with contextlib.aclosing(client.follow(JOB, **options)) as events:
        return b"".join([event.data async for event in events if isinstance(event, Chunk)])


# -- follow


async def test_a_stream_that_breaks_again_and_again_gives_each_byte_once(installation) -> None:
    service, whole = ScriptedService(), bytes(range(200))

    async def stream(request, context):
        # Seven bytes each time, then the stream breaks in one of three ways.
        part = whole[request.offset : request.offset + 7]
        if part:
            yield piece(request.offset, part)
        if request.offset + 7 >= len(whole):
            yield end(len(whole))
            return
        match request.offset // 7 % 3:
            case 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            case 1:
                await context.abort(grpc.StatusCode.CANCELLED, "cancelled")
            case _:
                return  # ends well, but without the last message

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        assert await text_of(client) == whole
    offsets = [request.offset for request in service.requests]
    assert offsets == list(range(0, len(whole), 7))


async def test_the_last_event_is_the_end(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        yield piece(0, b"out")
        yield heartbeat(3)
        yield piece(3, b"err", pb.OUTPUT_STREAM_STDERR)
        yield end(3, 3)

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        events = [event async for event in client.follow(JOB)]
    assert [event.stream for event in events if isinstance(event, Chunk)] == list(Stream)
    assert isinstance(events[-1], EndOfOutput)


async def test_a_silent_stream_is_resumed(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        if request.offset == 0:
            yield piece(0, b"before")
            await asyncio.Event().wait()
        yield piece(6, b" after")
        yield end(12)

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        assert await text_of(client) == b"before after"


async def test_heartbeats_keep_an_idle_stream(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        for _ in range(6):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE.silence_s / 3):
                    await asyncio.Event().wait()
            yield heartbeat(0)
        yield end(0)

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        assert await text_of(client) == b""
    assert len(service.requests) == 1


async def test_a_place_that_the_service_chose_is_resumed_by_offset(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        if request.HasField("tail_lines"):
            yield piece(100, b"tail ")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield piece(request.offset, b"rest")
        yield end(109)

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        assert await text_of(client, tail_lines=1) == b"tail rest"
    first, second = service.requests
    assert first.tail_lines == 1
    assert (second.HasField("tail_lines"), second.offset) == (False, 105)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        pytest.param(
            [piece(0, b"ab"), piece(3, b"d"), end(4)], "after byte 2 came byte 3", id="gap"
        ),
        pytest.param([piece(0, b"ab"), piece(1, b"b"), end(2)], "after byte 2", id="overlap"),
        pytest.param([piece(0, b"ab"), end(5)], "byte 2 of 5", id="short"),
        pytest.param([piece(0, b"ab"), end(1)], "2 bytes came of 1", id="long"),
        pytest.param([piece(0, b"ab"), end(1, 1)], "2 of 1 bytes of stdout", id="wrong stream"),
        pytest.param([piece(0, b"ab"), heartbeat(9)], "came byte 9", id="heartbeat ahead"),
        pytest.param([piece(5, b"ab"), end(7)], "after byte 0 came byte 5", id="late begin"),
    ],
)
async def test_output_that_does_not_add_up_is_data_loss(installation, messages, reason) -> None:
    service = ScriptedService()

    async def stream(request, context):
        for message in messages:
            yield message

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        with pytest.raises(DataLossError, match=reason):
            await text_of(client)


async def test_a_stream_that_never_works_again_fails_in_the_end(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        with pytest.raises(UnavailableError, match=r"cannot connect to 127\.0\.0\.1"):
            await text_of(client)
    assert len(service.requests) > 2


async def test_an_error_of_the_service_is_not_tried_again(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        await refuse(context, JobNotFoundError(JOB))
        yield

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        with pytest.raises(JobNotFoundError, match=f"cannot find job '{JOB}'"):
            await text_of(client)
    assert len(service.requests) == 1


TOO_MANY = ResourceExhaustedError("open a stream", "alice has 1, which is the most")


async def test_a_resumed_stream_waits_until_its_broken_one_no_longer_counts(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        if len(service.requests) == 1:
            yield piece(0, b"before")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        if len(service.requests) < 4:
            await refuse(context, TOO_MANY)
        yield piece(6, b" after")
        yield end(12)

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        assert await text_of(client) == b"before after"
    assert len(service.requests) == 4


async def test_a_resumed_stream_for_which_there_is_never_room_fails_in_the_end(
    installation,
) -> None:
    service = ScriptedService()

    async def stream(request, context):
        if len(service.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        await refuse(context, TOO_MANY)
        yield

    service.handlers["StreamOutput"] = stream
    async with connected(service, installation) as client:
        with pytest.raises(ResourceExhaustedError, match="alice has 1"):
            await text_of(client)
    assert len(service.requests) > 2


async def test_a_first_stream_for_which_there_is_no_room_fails_at_once(installation) -> None:
    service = ScriptedService()

    async def stream(request, context):
        await refuse(context, TOO_MANY)
        yield

    service.handlers["StreamOutput"] = stream
    service.handlers["WatchJobs"] = stream
    async with connected(service, installation) as client:
        with pytest.raises(ResourceExhaustedError):
            await text_of(client)
        with pytest.raises(ResourceExhaustedError):
            await anext(client.watch())
    assert len(service.requests) == 2


async def test_a_resumed_watch_waits_until_its_broken_one_no_longer_counts(installation) -> None:
    service = ScriptedService()

    async def changes(request, context):
        if len(service.requests) == 1:
            yield pb.WatchJobsResponse(job=job())
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        if len(service.requests) == 2:
            await refuse(context, TOO_MANY)
        yield pb.WatchJobsResponse(job=job(pb.JOB_STATE_ENDED))

    service.handlers["WatchJobs"] = changes
    async with connected(service, installation) as client:
        watching = client.watch()
        async with contextlib.aclosing(watching):
            states = [(await anext(watching)).state for _ in range(2)]
    assert states == [JobState.RUNNING, JobState.ENDED]


async def test_a_service_that_comes_back_is_found_again(installation) -> None:
    service = ScriptedService()
    stopped = asyncio.Event()

    async def stream(request, context):
        if request.offset == 0:
            yield piece(0, b"before")
            stopped.set()
            await asyncio.Event().wait()
        yield piece(6, b" after")
        yield end(12)

    service.handlers["StreamOutput"] = stream
    async with contextlib.AsyncExitStack() as first, asyncio.TaskGroup() as tasks:
        port = await first.enter_async_context(serving(service, installation))
        async with connect(target_of(installation, port), patience=PATIENCE) as client:
            reading = tasks.create_task(text_of(client))
            await stopped.wait()
            await first.aclose()
            async with serving(service, installation, port=port):
                assert await reading == b"before after"


# -- calls


async def test_a_start_is_repeated_with_the_same_request_id(installation) -> None:
    service = ScriptedService()

    async def start(request, context):
        if len(service.requests) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return pb.StartJobResponse(job=job())

    service.handlers["StartJob"] = start
    async with connected(service, installation) as client:
        started = await client.start(JobSpec(argv=("true",)))
        assert started.id == JOB
    ids = {request.request_id for request in service.requests}
    assert len(service.requests) == 3
    assert len(ids) == 1
    assert "" not in ids


async def test_two_starts_have_two_request_ids_unless_the_caller_gives_one(installation) -> None:
    service = ScriptedService()

    async def start(request, context):
        return pb.StartJobResponse(job=job())

    service.handlers["StartJob"] = start
    async with connected(service, installation) as client:
        for request_id in (None, None, RequestId("mine")):
            await client.start(JobSpec(argv=("true",)), request_id=request_id)
    first, second, third = (request.request_id for request in service.requests)
    assert first != second
    assert third == "mine"


async def test_a_failed_start_tells_command_and_errno(installation) -> None:
    service = ScriptedService()
    failure = StartFailedError("no such file", errno=2, path="/x", job_id=JOB, at_program=True)

    async def start(request, context):
        await refuse(context, failure)

    service.handlers["StartJob"] = start
    async with connected(service, installation) as client:
        with pytest.raises(StartFailedError, match="no such file") as raised:
            await client.start(JobSpec(argv=("/x",)))
    assert (raised.value.reason, raised.value.path) == ("COMMAND_NOT_FOUND", "/x")


async def test_a_delete_whose_answer_was_lost_has_deleted(installation) -> None:
    service = ScriptedService()

    async def delete(request, context):
        if len(service.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "after the deed")
        await refuse(context, JobNotFoundError(JOB))

    service.handlers["DeleteJob"] = delete
    async with connected(service, installation) as client:
        await client.delete(JOB)
        with pytest.raises(JobNotFoundError):
            await client.delete(JOB)


async def test_what_a_service_refuses_for_now_is_told_as_it_said_it(installation) -> None:
    service = ScriptedService()

    async def stop(request, context):
        await refuse(context, UnavailableError("stop the job", "no space to record it"))

    service.handlers["StopJob"] = stop
    impatient = dataclasses.replace(PATIENCE, call_s=0.5)
    async with connected(service, installation, impatient) as client:
        with pytest.raises(UnavailableError) as raised:
            await client.stop(JOB)
    assert str(raised.value) == "cannot stop the job: no space to record it"
    assert not isinstance(raised.value, UnreachableError)
    assert len(service.requests) > 1


async def test_a_service_that_never_answers_is_told_so(installation) -> None:
    service = ScriptedService()

    async def get(request, context):
        await asyncio.Event().wait()

    service.handlers["GetJob"] = get
    impatient = dataclasses.replace(PATIENCE, call_s=0.5)
    async with connected(service, installation, impatient) as client:
        with pytest.raises(DeadlineExceededError, match=r"has not answered for 0\.5 s"):
            await client.get(JOB)


async def test_a_refused_call_is_not_repeated(installation) -> None:
    service = ScriptedService()

    async def stop(request, context):
        await refuse(context, PermissionDeniedError("stop the job", "no"))

    service.handlers["StopJob"] = stop
    async with connected(service, installation) as client:
        with pytest.raises(PermissionDeniedError, match="cannot stop the job: no"):
            await client.stop(JOB)
    assert len(service.requests) == 1


async def test_stop_waits_until_the_job_has_ended_and_sends_the_grace(installation) -> None:
    service = ScriptedService()

    async def stop(request, context):
        return pb.StopJobResponse(job=job(pb.JOB_STATE_STOPPING))

    async def get(request, context):
        return pb.GetJobResponse(job=job(pb.JOB_STATE_STOPPING))

    async def watch(request: object, context: Any) -> AsyncIterator[pb.WatchJobsResponse]:
        yield pb.WatchJobsResponse(job=job(pb.JOB_STATE_STOPPING))
        yield pb.WatchJobsResponse()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    async def watch_again(request, context):
        yield pb.WatchJobsResponse(job=job(pb.JOB_STATE_ENDED))

    async def first_then_again(request, context):
        service.handlers["WatchJobs"] = watch_again
        async for message in watch(request, context):
            yield message

    service.handlers |= {"StopJob": stop, "GetJob": get, "WatchJobs": first_then_again}
    async with connected(service, installation) as client:
        stopped = await client.stop(JOB, grace_s=0)
    assert stopped.state is JobState.ENDED
    request = service.requests[0]
    assert request.no_wait
    assert request.HasField("grace")
    assert request.grace.ToNanoseconds() == 0


async def test_waiting_for_a_job_that_is_removed_ends(installation) -> None:
    service = ScriptedService()

    async def get(request, context):
        if sum(isinstance(request, pb.GetJobRequest) for request in service.requests) > 1:
            await refuse(context, JobNotFoundError(JOB))
        return pb.GetJobResponse(job=job())

    async def watch(request, context):
        yield pb.WatchJobsResponse()
        await asyncio.Event().wait()

    service.handlers |= {"GetJob": get, "WatchJobs": watch}
    async with connected(service, installation) as client:
        with pytest.raises(JobNotFoundError):
            await client.wait(JOB)


async def test_a_job_in_the_list_is_the_job_that_was_sent(installation) -> None:
    service, sent = ScriptedService(), job(pb.JOB_STATE_ENDED)

    async def list_jobs(request, context):
        return pb.ListJobsResponse(jobs=[sent], next_page_token="more")

    service.handlers["ListJobs"] = list_jobs
    async with connected(service, installation) as client:
        page = await client.list(page_size=7, page_token="here")
    assert page.jobs == (convert.job_from_proto(sent),)
    assert page.next_page_token == "more"
    assert (service.requests[0].page_size, service.requests[0].page_token) == (7, "here")


# -- the connection


async def test_nobody_listening_is_said_at_once(installation) -> None:
    target = target_of(installation, 1)
    with pytest.raises(UnavailableError, match="nobody listens there"):
        async with connect(target, patience=PATIENCE):
            pass


async def test_a_missing_file_is_named(installation, tmp_path: Path) -> None:
    target = dataclasses.replace(target_of(installation, 1), key=tmp_path / "no.key")
    with pytest.raises(UnavailableError, match=r"the key file .*no\.key cannot be read"):
        async with connect(target, patience=PATIENCE):
            pass


def test_a_target_takes_host_and_port() -> None:
    paths = {"ca": Path("ca"), "cert": Path("cert"), "key": Path("key")}
    target = Target(server="[::1]:50051", **paths)
    assert (target.host, target.port) == ("::1", 50051)
