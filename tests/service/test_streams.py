"""Streams: whole, bounded, independent of each other, and over when they must be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable
from typing import Any

import pytest

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from support.guards import in_guest
from support.service import ServicePlace, output, refused, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

WATCH = "/jobworker.v1.JobWorker/WatchJobs"
FOLLOW = "/jobworker.v1.JobWorker/StreamOutput"
MEBIBYTE = 1 << 20
FILL = "head -c {} /dev/zero | tr '\\0' x"


async def test_a_large_output_arrives_whole_and_in_large_pieces(place: ServicePlace) -> None:
    size = 8 * MEBIBYTE
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, FILL.format(size))
        assert await output(alice, job.id) == b"x" * size
        request = pb.StreamOutputRequest(job_id=job.id)
        chunks = [message.chunk async for message in alice.StreamOutput(request)][:-1]
    # From the second on each begins where the last one ended.
    assert [chunk.offset for chunk in chunks[1:]] == [
        chunk.offset + len(chunk.data) for chunk in chunks[:-1]
    ]
    assert {len(chunk.data) for chunk in chunks[:-1]} == {256 * 1024}


async def test_a_stream_can_begin_anywhere(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "echo one; echo two; echo three")
        whole = await output(alice, job.id)
        assert whole == b"one\ntwo\nthree\n"
        for offset in range(len(whole) + 1):
            assert await output(alice, job.id, offset=offset) == whole[offset:]
        assert await output(alice, job.id, tail_lines=1) == b"three\n"
        assert await output(alice, job.id, tail_lines=0) == b""
        with refused() as refusal:
            await output(alice, job.id, offset=len(whole) + 1)
        assert refusal.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("where", "offset"),
    [({"tail_lines": 1}, 4), ({"tail_lines": 0}, 8), ({"since": {"seconds": 1}}, 0)],
    ids=["one line", "no line", "a time"],
)
async def test_a_place_that_the_service_chooses_is_told_at_once(
    place: ServicePlace, where: dict[str, Any], offset: int
) -> None:
    # Long heartbeats: the place must be told before there is anything else to say.
    async with place.open(heartbeat=60) as service, service.client("alice") as alice:
        job = await start(alice, "echo one; echo two; exec sleep 60")
        reading = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
        written = b""
        while written != b"one\ntwo\n":
            written += (await anext(aiter(reading))).chunk.data
        request = pb.StreamOutputRequest(job_id=job.id, follow=True, **where)
        async with asyncio.timeout(10):
            first = await anext(aiter(alice.StreamOutput(request)))
        assert first == pb.StreamOutputResponse(heartbeat=pb.OutputHeartbeat(offset=offset))


async def test_the_two_streams_can_be_had_apart(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "echo out; echo err >&2")
        assert await output(alice, job.id, stream=pb.OUTPUT_STREAM_STDOUT) == b"out\n"
        assert await output(alice, job.id, stream=pb.OUTPUT_STREAM_STDERR) == b"err\n"


async def test_an_idle_stream_gives_signs_of_life(place: ServicePlace) -> None:
    async with place.open(heartbeat=0.1) as service, service.client("alice") as alice:
        job = await start(alice, "echo ready; exec sleep 60")
        events = aiter(alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True)))
        # On a slow machine there may be signs of life before it writes.
        while (await anext(events)).WhichOneof("event") != "chunk":
            pass
        kinds = [(await anext(events)).WhichOneof("event") for _ in range(3)]
        assert kinds == ["heartbeat", "heartbeat", "heartbeat"]
        changes = alice.WatchJobs(pb.WatchJobsRequest())
        jobs = [(await anext(aiter(changes))).HasField("job") for _ in range(3)]
        assert jobs == [True, False, False]


async def test_a_watch_tells_each_change(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "exec sleep 60", labels={"which": "this"})
        wanted = pb.JobFilter(labels={"which": "this"})
        changes = aiter(alice.WatchJobs(pb.WatchJobsRequest(filter=wanted)))
        assert (await anext(changes)).job.id == job.id
        await alice.StopJob(pb.StopJobRequest(job_id=job.id))
        async for change in changes:
            if change.job.state == pb.JOB_STATE_ENDED:
                assert change.job.ending.stopped_by == "alice"
                return


async def test_a_stalled_reader_holds_up_nobody(place: ServicePlace) -> None:
    # More than all that lies between the two can hold.
    size = (16 if in_guest() else 32) * MEBIBYTE
    async with (
        place.open() as service,
        service.client("alice") as stalled,
        service.client("alice") as beside,
    ):
        job = await start(beside, FILL.format(size))
        streams = [
            stalled.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
            for _ in range(4)
        ]
        for stream in streams:
            await anext(aiter(stream))  # and no further
        assert len(await output(beside, job.id)) == size
        ended = (await beside.GetJob(pb.GetJobRequest(job_id=job.id))).job
        assert ended.ending.exit_code == 0


async def test_the_streams_of_one_user_are_bounded(place: ServicePlace) -> None:
    async with (
        place.open(max_streams_per_user=2, max_streams=3) as service,
        service.client("alice") as alice,
        service.client("bob") as bob,
    ):
        first = await open_watch(alice)
        await open_watch(alice)
        with refused() as refusal:
            await open_watch(alice)
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert str(refusal.error) == (
            "cannot open a stream: alice has 2 streams and waiting stops, which is the most"
        )
        await open_watch(bob)
        with refused() as refusal:
            await open_watch(bob)
        assert str(refusal.error) == (
            "cannot open a stream: there are 3 streams and waiting stops, which is the most"
        )
        # Other calls are none of its business.
        await alice.WhoAmI(pb.WhoAmIRequest())
        first.cancel()
        await service.audit.wait(1, event="end", method=WATCH, user="alice", outcome="CANCELLED")
        await open_watch(alice)


async def test_stops_that_wait_are_bounded_with_the_streams(place: ServicePlace) -> None:
    async with (
        place.open(max_streams_per_user=2) as service,
        service.client("alice") as alice,
        service.client("admin") as admin,
    ):
        stubborn = await start(alice, "trap '' TERM; echo ready; while :; do sleep 60 & wait; done")
        other = await start(alice, "exec sleep 60")
        reading = admin.StreamOutput(pb.StreamOutputRequest(job_id=stubborn.id, follow=True))
        assert (await anext(aiter(reading))).chunk.data == b"ready\n"
        changes = await open_watch(alice)
        waiting = alice.StopJob(pb.StopJobRequest(job_id=stubborn.id))
        async for change in changes:
            if change.job.state == pb.JOB_STATE_STOPPING:
                break
        with refused() as refusal:
            await alice.StopJob(pb.StopJobRequest(job_id=other.id))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert str(refusal.error) == (
            f"cannot stop job {other.id} and wait for its end: alice has 2 streams and waiting"
            " stops, which is the most; nothing was done: with no_wait it is stopped all the same"
        )
        found = (await alice.GetJob(pb.GetJobRequest(job_id=other.id))).job
        assert found.state == pb.JOB_STATE_RUNNING
        with refused() as refusal:
            await open_watch(alice)
        assert refusal.code == "RESOURCE_EXHAUSTED"
        stopped = await alice.StopJob(pb.StopJobRequest(job_id=other.id, no_wait=True))
        assert stopped.job.state in {pb.JOB_STATE_STOPPING, pb.JOB_STATE_ENDED}
        await admin.StopJob(pb.StopJobRequest(job_id=stubborn.id, grace={}, no_wait=True))
        assert (await waiting).job.state == pb.JOB_STATE_ENDED
        await open_watch(alice)


async def test_a_client_that_goes_away_frees_its_stream(place: ServicePlace) -> None:
    async with place.open(heartbeat=60, max_streams=1) as service:
        async with service.client("alice") as alice:
            job = await start(alice, "exec sleep 60")
            following = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(drain(following))
                await service.audit.wait(1, event="open", method=FOLLOW)
                reading.cancel()
        # The connection is closed: the stream ended with it, long before any sign of life.
        await service.audit.wait(1, event="end", method=FOLLOW, outcome="CANCELLED")
        async with service.client("bob") as bob:
            assert await output(bob, (await start(bob, "echo hello")).id) == b"hello\n"


async def test_a_client_that_does_not_read_gets_no_more_once_it_is_revoked(
    place: ServicePlace,
) -> None:
    size = 32 * MEBIBYTE
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, FILL.format(size) + "; exec sleep 60")
        stalled = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
        got = len((await anext(aiter(stalled))).chunk.data)
        watching = await open_watch(alice)
        place.revoke("alice")
        with refused():
            await drain(watching)  # ends with the revocation
        with refused() as refusal:
            async for message in stalled:
                got += len(message.chunk.data)
        assert refusal.code == "UNAUTHENTICATED"
        # What was on its way already: the buffers of gRPC and of two sockets.
        assert got < size / 2


async def test_a_shutdown_tells_streams_and_leaves_jobs(place: ServicePlace) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with place.open(stop_jobs=False, heartbeat=60) as service:
            alice = await clients.enter_async_context(service.client("alice"))
            job = await start(alice, "echo before; exec sleep 60")
            stream = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
            assert (await anext(aiter(stream))).chunk.data == b"before\n"
        with refused() as refusal:
            await drain(stream)
        assert refusal.code == "UNAVAILABLE"
        assert str(refusal.error).endswith("the service is shutting down")
    async with place.open() as service, service.client("alice") as alice:
        found = (await alice.GetJob(pb.GetJobRequest(job_id=job.id))).job
        assert found.state == pb.JOB_STATE_RUNNING
        await alice.StopJob(pb.StopJobRequest(job_id=job.id))
        assert await output(alice, job.id) == b"before\n"


async def open_watch(client: JobWorkerStub) -> Any:
    """Open for certain: a sign of life has arrived."""
    stream = client.WatchJobs(pb.WatchJobsRequest())
    await anext(aiter(stream))
    return stream


async def drain(stream: AsyncIterable[object]) -> None:
    async for _ in stream:
        pass
