"""The standard health service: serving from the first moment until the shutdown begins.

Of the package ``grpcio-health-checking`` only the messages: its own service writes to the call by
itself, so that the gate could not end it (see streams.py).

Source: github.com/grpc/grpc, doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc
import grpc.aio

# The package has no type information.
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

_Status = health_pb2.HealthCheckResponse
_WHOLE_SERVER: Final = ""


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # its type is unknown
    """Answers for one service by its name, and for the whole server."""

    def __init__(self, service: str) -> None:
        self._names = {_WHOLE_SERVER, service}
        self._is_ending = asyncio.Event()

    def end(self) -> None:
        """From here on: NOT_SERVING."""
        self._is_ending.set()

    async def Check(  # noqa: N802 -- the name in the contract
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "cannot tell: no such service")
        return _Status(status=self._status(request.service))

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, _context: object
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status now and after each change; ends with the call."""
        yield _Status(status=self._status(request.service))
        await self._is_ending.wait()
        yield _Status(status=self._status(request.service))
        # The end is the gate's to tell: a watch that ends with OK would say that it was over.
        await asyncio.Event().wait()

    def _status(self, service: str) -> int:
        if service not in self._names:
            unknown: int = _Status.SERVICE_UNKNOWN
            return unknown
        status: int = _Status.NOT_SERVING if self._is_ending.is_set() else _Status.SERVING
        return status
