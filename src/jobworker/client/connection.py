"""One channel to one service: calls that are repeated, streams that are known to be broken.

Owns: gRPC's side of the client.  Not the meaning of any message (sdk.py), not where a stream goes
on (follow.py), not why a connection fails (diagnose.py).

Every call of this API may be repeated: a start carries a request id, a job that is gone tells that
an earlier attempt removed it, the others change nothing the second time.  A call is therefore sent
again when the service was not reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final

import grpc

from jobworker.api.status import from_rpc_error
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from jobworker.client.backoff import Backoff, Patience
from jobworker.client.target import Target
from jobworker.errors import (
    DeadlineExceededError,
    JobWorkerError,
    UnavailableError,
    UnreachableError,
)
from jobworker.security.tls import channel_credentials

logger = logging.getLogger(__name__)

_Method = Callable[..., Any]
"""A method of the generated stub, which has no types."""

_STREAM_OUTPUT: Final = f"/{pb.DESCRIPTOR.services_by_name['JobWorker'].full_name}/StreamOutput"

#: A job may carry 4 MiB of arguments and environment, and gRPC's own bound is 4 MiB for the whole
#: message.
_MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # gRPC's own pause before it connects again; its default begins at 1 s and ends at 2 minutes,
    # which our attempts would only run into.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer that vanished without a word is noticed after the two together, also on a stream that
    # has nothing to say: doc/keepalive.md of gRPC.  The service permits a ping every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC never starts the timer of the line above (github.com/grpc/grpc, pull request 39239).
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Variables that send web traffic to a proxy do not speak of this service.
    ("grpc.enable_http_proxy", 0),
)

#: Failures in a row after which the own files are looked at and the trouble is told: about 1.5 s,
#: in which a service that is only being restarted is back.
_DIAGNOSE_AFTER: Final = 5


@contextlib.asynccontextmanager
async def open_connection(target: Target, patience: Patience) -> AsyncIterator[Connection]:
    """Reach the service; raises UnavailableError that says why it cannot be reached."""
    ca, cert, key = await asyncio.to_thread(_read_files, target)
    credentials = channel_credentials(ca=ca, certificate=cert, key=key)
    async with grpc.aio.secure_channel(target.server, credentials, options=_OPTIONS) as channel:
        connection = Connection(channel, target, patience)
        await connection.reach()
        yield connection


class Connection:
    """What the SDK needs of a channel."""

    def __init__(self, channel: grpc.aio.Channel, target: Target, patience: Patience) -> None:
        self._channel = channel
        self._target = target
        self.patience = patience
        # The generated stub is not typed.
        self.stub: Any = JobWorkerStub(channel)  # type: ignore[no-untyped-call]
        self.stream_output: _Method = channel.unary_stream(
            _STREAM_OUTPUT, request_serializer=pb.StreamOutputRequest.SerializeToString
        )
        """The stub's, with answers as they came: for ``jobworker.api.wire``."""

    async def reach(self) -> None:
        """Wait until the connection stands; raises UnavailableError with the diagnosis.

        gRPC calls a channel ready only after the service's first HTTP/2 frame, so a client
        certificate that the service refuses after its side of the handshake is noticed here.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience.connect_s):
                state = self._channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    if state is grpc.ChannelConnectivity.READY:
                        return
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        raise await asyncio.to_thread(_unreachable, self._target)

    async def call(
        self, method: _Method, request: object, *, settled: type[JobWorkerError] | None = None
    ) -> Any:  # noqa: ANN401 -- see _Method
        """The answer to one request, sent again for as long as the service cannot give it.

        settled: the error by which a repetition learns that an earlier attempt got through; then
            there is no answer.
        """
        backoff = Backoff(self.patience.call_s)
        while True:
            try:
                return await _answer(method(request, timeout=self.patience.call_s))
            except DeadlineExceededError as failure:
                why = f"the service took it, and has not answered for {self.patience.call_s:g} s"
                raise DeadlineExceededError("wait any longer", why) from failure
            except UnavailableError as failure:
                await self.recover(backoff, failure)
            except JobWorkerError as error:
                if backoff.attempts and settled is not None and isinstance(error, settled):
                    return None
                raise

    async def stream(self, method: _Method, request: object) -> AsyncGenerator[Any, None]:
        """Messages until the service ends the stream.

        Raises UnavailableError when the connection breaks or nothing comes for too long.
        """
        call = method(request)
        try:
            while (message := await self._next(call)) is not grpc.aio.EOF:
                yield message
        finally:
            call.cancel()

    async def _next(self, call: Any) -> Any:  # noqa: ANN401 -- see _Method
        try:
            async with asyncio.timeout(self.patience.silence_s):
                return await _answer(call.read())
        except TimeoutError:
            why = f"no sign of life from the service for {self.patience.silence_s:g} s"
            raise UnreachableError("read on", why) from None

    async def recover(self, backoff: Backoff, failure: UnavailableError) -> None:
        """Wait before another attempt; raises when waiting is over or would not help."""
        if not isinstance(failure, UnreachableError):
            if backoff.attempts == _DIAGNOSE_AFTER:
                logger.warning("refused for now, trying again", extra={"reason": str(failure)})
            await backoff.pause(failure)
            return
        if backoff.attempts == _DIAGNOSE_AFTER:
            why, is_lasting = await asyncio.to_thread(_diagnose, self._target)
            if is_lasting:
                raise UnreachableError(f"connect to {self._target.server}", why) from failure
            logger.warning("service unreachable, trying again", extra={"reason": why})
        try:
            await backoff.pause(failure)
        except UnreachableError:
            raise await asyncio.to_thread(_unreachable, self._target) from failure


async def _answer(awaitable: Any) -> Any:  # noqa: ANN401 -- see _Method
    """The result of a gRPC operation, with our errors instead of gRPC's."""
    try:
        return await awaitable
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def _read_files(target: Target) -> tuple[bytes, bytes, bytes]:
    try:
        return target.ca.read_bytes(), target.cert.read_bytes(), target.key.read_bytes()
    except OSError as error:
        raise _unreachable(target) from error


def _unreachable(target: Target) -> UnreachableError:
    """Why the service cannot be reached, as of now.  Blocks."""
    why, _ = _diagnose(target)
    return UnreachableError(f"connect to {target.server}", why)


def _diagnose(target: Target) -> tuple[str, bool]:
    """The reason, and whether another attempt would fail as well.  Blocks."""
    # Takes 100 ms to import, mostly cryptography, and most programs never fail to connect.
    from jobworker.client.diagnose import diagnose  # noqa: PLC0415 -- see above

    found = diagnose(target)
    return found.why, found.is_lasting
