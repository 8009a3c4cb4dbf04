"""A service over mutual TLS on loopback that does what a test's script says.

For the laws that a client keeps when its service does not: streams that break, fall silent, skip
bytes or end without the last message.  What a real service does is tested with a real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from jobworker.client import Target  # first: it loads gRPC under the TLS policy

import grpc  # isort: skip
from jobworker.api.v1 import job_worker_pb2_grpc
from support.certificates import Installation

_STREAMS: Final = ("StreamOutput", "WatchJobs")
_CALLS: Final = (
    "StartJob",
    "StopJob",
    "GetJob",
    "ListJobs",
    "UpdateLimits",
    "DeleteJob",
    "WhoAmI",
)  # fmt: skip -- a row of names


class ScriptedService(job_worker_pb2_grpc.JobWorkerServicer):
    """Answers with what is in ``handlers`` under the name of the RPC, as a servicer would.

    requests: all that came, in their order.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self.requests: list[Any] = []
        for name in _CALLS:
            setattr(self, name, self._call(name))
        for name in _STREAMS:
            setattr(self, name, self._stream(name))

    def _call(self, name: str) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            self.requests.append(request)
            return await self.handlers[name](request, context)

        return answer

    def _stream(self, name: str) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            self.requests.append(request)
            async for message in self.handlers[name](request, context):
                yield message

        return answer


@contextlib.asynccontextmanager
async def serving(
    service: ScriptedService,
    installation: Installation,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    leaf: str = "server",
) -> AsyncIterator[int]:
    """Serve on loopback; gives the port."""
    store = installation.store
    credentials = grpc.ssl_server_credentials(
        [(store.key_file(leaf).read_bytes(), store.certificate_file(leaf).read_bytes())],
        root_certificates=installation.ca_file.read_bytes(),
        require_client_auth=True,
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    # Generated code has no types.
    job_worker_pb2_grpc.add_JobWorkerServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port(f"{host}:{port}", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def target_of(installation: Installation, port: int, *, user: str = "alice") -> Target:
    """How that user reaches the port."""
    store = installation.store
    return Target(
        server=f"127.0.0.1:{port}",
        ca=installation.ca_file,
        cert=store.certificate_file(user),
        key=store.key_file(user),
    )
