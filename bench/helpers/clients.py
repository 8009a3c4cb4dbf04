"""Clients in a process of their own, as they are in life.

Requests: ``connect`` (server, ca, cert, key, connections); ``ping`` (times, pause_s, what) gives
seconds of each call; ``read`` (job) gives the seconds that the whole output took; ``follow`` (jobs,
count) reads in ``count`` streams over and over until ``stop``, which gives bytes and seconds;
``stall`` (job, count) opens streams and never reads; ``lines`` (job) gives the delays of stamped
lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.client import Client, Target, connect
from jobworker.client.connection import _OPTIONS  # the SDK's own channel, without its parsing
from jobworker.model.ids import JobId
from jobworker.model.output import Chunk
from jobworker.security.tls import channel_credentials

_STREAM = "/jobworker.v1.JobWorker/StreamOutput"
_ECHO = "/bench.Echo/Echo"


class Clients:
    """A few connections and what is asked of them."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._channels: list[grpc.aio.Channel] = []
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stalled: list[Any] = []
        self._bytes = 0
        self._started = 0
        self._since = 0.0
        self._is_stopping = False

    async def connect(self, request: dict[str, Any]) -> object:
        files = {name: Path(request[name]) for name in ("ca", "cert", "key")}
        for _ in range(request.get("connections", 0)):
            credentials = channel_credentials(
                ca=files["ca"].read_bytes(),
                certificate=files["cert"].read_bytes(),
                key=files["key"].read_bytes(),
            )
            # Else connections with the same settings are one.
            options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.secure_channel(request["server"], credentials, options=options)
            self._channels.append(await self._stack.enter_async_context(channel))
            await channel.channel_ready()
        if not self._channels:
            target = Target(server=request["server"], **files)
            self._client = await self._stack.enter_async_context(connect(target))
        return "connected"

    async def ping(self, request: dict[str, Any]) -> object:
        """Calls one after the other: ``echo`` is bare gRPC, ``whoami`` passes the gate."""
        call: Any = self._channels[0].unary_unary(_ECHO) if request["what"] == "echo" else None
        samples = []
        for _ in range(request["times"]):
            await asyncio.sleep(request["pause_s"])  # noqa: TID251 -- the pause is asked for
            began = time.perf_counter()
            if call is not None:
                await call(b"ping")
            else:
                assert self._client is not None
                await self._client.who_am_i()
            samples.append(time.perf_counter() - began)
        return samples

    async def read(self, request: dict[str, Any]) -> object:
        assert self._client is not None
        began = time.perf_counter()
        size = 0
        events = self._client.follow(JobId(request["job"]), follow=True)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    size += len(event.data)
        return {"seconds": time.perf_counter() - began, "bytes": size}

    async def lines(self, request: dict[str, Any]) -> object:
        """Each line of the job is the clock, in ns, as it was written."""
        assert self._client is not None
        delays: list[float] = []
        events = self._client.follow(JobId(request["job"]), follow=True)
        async with contextlib.aclosing(events):
            async for event in events:
                now = time.time_ns()
                if isinstance(event, Chunk):
                    stamps = event.data.split()
                    delays += [(now - int(stamp)) / 1e9 for stamp in stamps]
        return delays

    async def follow(self, request: dict[str, Any]) -> object:
        """Returns when every stream has brought something."""
        self._started, self._is_stopping = 0, False
        ready = asyncio.Event()
        for number in range(request["count"]):
            channel = self._channels[number % len(self._channels)]
            reading = self._read_over_and_over(channel, request["job"], request["count"], ready)
            self._tasks.append(asyncio.create_task(reading))  # noqa: TID251 -- ended by ``stop``
        await ready.wait()
        return "following"

    async def _read_over_and_over(
        self, channel: grpc.aio.Channel, job: str, count: int, ready: asyncio.Event
    ) -> None:
        stream: Any = channel.unary_stream(
            _STREAM, request_serializer=pb.StreamOutputRequest.SerializeToString
        )
        is_first = True
        while True:
            call = stream(pb.StreamOutputRequest(job_id=job, follow=True))
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    self._bytes += len(message)
                    if is_first:
                        is_first = False
                        self._started += 1
                        if self._started == count:
                            ready.set()
            except grpc.aio.AioRpcError as error:
                if self._is_stopping:
                    return
                # Else the others would wait for it for ever.
                print(f"bench: cannot follow: {error!r}", file=sys.stderr)
                os._exit(1)
            finally:
                call.cancel()

    async def stall(self, request: dict[str, Any]) -> object:
        """Open until this process ends."""
        wanted = pb.StreamOutputRequest(job_id=request["job"], follow=True)
        for number in range(request["count"]):
            channel = self._channels[number % len(self._channels)]
            stream: Any = channel.unary_stream(
                _STREAM, request_serializer=pb.StreamOutputRequest.SerializeToString
            )
            self._stalled.append(stream(wanted))
        return "opened"

    async def begin(self, _request: dict[str, Any]) -> object:
        """Count from here on."""
        self._bytes, self._since = 0, time.perf_counter()
        return "begun"

    async def stop(self, _request: dict[str, Any]) -> object:
        seconds, size = time.perf_counter() - self._since, self._bytes
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        return {"seconds": seconds, "bytes": size}


async def requests() -> AsyncIterator[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield json.loads(line)


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = Clients(stack)
        print(json.dumps("ready"), flush=True)
        async for request in requests():
            answer = await getattr(clients, request.pop("do"))(request)
            print(json.dumps(answer), flush=True)


asyncio.run(main())
