"""The gate: the one place that every RPC passes, unary and streaming, whatever serves it.

In this order: the caller is authenticated by the certificate of the connection, the method is
looked up in the table of what the role may call, only then the request is parsed and served.
Errors become statuses here, and each call leaves its line in the audit log; a stream leaves one
when it is opened and one when it ends.

Whose jobs a granted action reaches is decided where the job is known (service.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from jobworker.api.status import DETAILS_KEY, to_status
from jobworker.errors import (
    InvalidArgumentError,
    JobWorkerError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from jobworker.security.identity import Authenticator
from jobworker.server.access import require_method
from jobworker.server.audit import AuditLog
from jobworker.server.calls import Call, enter_call
from jobworker.server.streams import OpenStreams

_AnswerT = TypeVar("_AnswerT")

# In quotes: only the stubs give these classes parameters, the messages of a method; any here.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details: TypeAlias = grpc.HandlerCallDetails
_Unary: TypeAlias = Callable[[bytes, Context], Awaitable[Any]]
_Stream: TypeAlias = Callable[[Any, Context], Awaitable[None]]

#: Errors whose message is made of the certificate and the method alone, and may be logged.
_TOLD_REASONS: Final = (UnauthenticatedError, PermissionDeniedError)


class Gate(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method; one that nobody serves gets one that refuses."""

    def __init__(
        self,
        authenticator: Authenticator,
        streams: OpenStreams,
        audit: AuditLog,
        on_end: Callable[[str, str, float], None],
    ) -> None:
        """on_end: is told the method of each call that has ended, its status and its seconds."""
        self._authenticator = authenticator
        self._streams = streams
        self._audit = audit
        self._on_end = on_end

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler | None]], details: Details
    ) -> Handler:
        handler = await continuation(details)
        method = details.method
        if handler is None or (handler.request_streaming and not handler.response_streaming):
            # Nothing here takes a stream of requests for one answer.
            return grpc.stream_stream_rpc_method_handler(self._refusing(method))
        # Requests are parsed behind the gate; answers are gRPC's to serialize.
        serializer = handler.response_serializer
        if not handler.response_streaming:
            answer = self._guarded_unary(method, handler)
            return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serializer)
        serve = self._guarded_stream(method, handler)
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(serve, response_serializer=serializer)
        return grpc.stream_stream_rpc_method_handler(
            serve, handler.request_deserializer, serializer
        )

    def _guarded_unary(self, method: str, handler: Handler) -> _Unary:
        behaviour: Any = handler.unary_unary  # the stubs know only the synchronous kind

        async def serve(data: bytes, context: Context) -> Any:  # noqa: ANN401 -- the answer
            async def answer(_call: Call) -> Any:  # noqa: ANN401
                return await behaviour(_parse(handler, data), context)

            return await self._pass(method, context, answer)

        return serve

    def _guarded_stream(self, method: str, handler: Handler) -> _Stream:
        # An asynchronous generator: all that are served here are.
        behaviour: Any = handler.stream_stream or handler.unary_stream

        async def serve(requests: Any, context: Context) -> None:  # noqa: ANN401 -- bytes or iterator
            async def answer(call: Call) -> None:
                with self._streams.admit(call) as stream:
                    self._log(method, context, call, event="open")
                    request = requests
                    if not handler.request_streaming:
                        request = _parse(handler, requests)
                    answers = stream.messages(behaviour(request, context))
                    async with contextlib.aclosing(answers):
                        with contextlib.suppress(StopAsyncIteration):
                            while True:
                                await _write(context, await anext(answers))

            await self._pass(method, context, answer)

        return serve

    def _refusing(self, method: str) -> _Stream:
        async def serve(_requests: object, context: Context) -> None:
            async def answer(_call: Call) -> None:
                # The code that clients of newer protocols fall back on.
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"cannot call {method}: unknown")

            await self._pass(method, context, answer, is_served=False)

        return serve

    async def _pass(
        self,
        method: str,
        context: Context,
        answer: Callable[[Call], Awaitable[_AnswerT]],
        *,
        is_served: bool = True,
    ) -> _AnswerT:
        """Let the caller through to ``answer``, or tell why not."""
        began = time.monotonic()
        call: Call | None = None
        try:
            self._audit.check_room()
            call = self._identify(method, context)
            if is_served:
                require_method(call.principal, method)
            enter_call(call)
            answered = await answer(call)
        except asyncio.CancelledError:
            # By the client, its deadline, its connection or our shutdown: nobody is there to tell.
            code = "DEADLINE_EXCEEDED" if _is_overdue(context) else "CANCELLED"
            self._log(method, context, call, outcome=code, began=began)
            raise
        except grpc.aio.AbortError:
            self._log(method, context, call, outcome=context.code().name, began=began)
            raise
        except Exception as error:  # noqa: BLE001 -- of whatever kind, it becomes a status
            await self._tell(method, context, call, error, began)
        self._log(method, context, call, outcome="OK", began=began)
        return answered

    def _identify(self, method: str, context: Context) -> Call:
        auth_context = context.auth_context()
        identity = self._authenticator.identify(auth_context)
        [certificate] = auth_context["x509_pem_cert"]
        return Call(
            method=method, peer=context.peer(), certificate=bytes(certificate), identity=identity
        )

    async def _tell(
        self, method: str, context: Context, call: Call | None, error: Exception, began: float
    ) -> NoReturn:
        code, message, details = to_status(error)
        self._log(method, context, call, outcome=code.name, began=began, error=error)
        await context.abort(code, message, ((DETAILS_KEY, details),))

    def _log(
        self,
        method: str,
        context: Context,
        call: Call | None,
        *,
        event: str = "end",
        outcome: str | None = None,
        began: float | None = None,
        error: Exception | None = None,
    ) -> None:
        seconds = None if began is None else time.monotonic() - began
        if outcome is not None and seconds is not None:
            self._on_end(method, outcome, seconds)
        who: dict[str, str | None] = {}
        if call is not None:
            who = {
                "user": call.principal.name,
                "role": call.principal.role.value,
                "serial": call.identity.serial_hex,
                "job": call.job_id,
                "owner": call.owner,
            }
        self._audit.write(
            event=event,
            method=method,
            peer=context.peer(),
            **who,
            outcome=outcome,
            reason=error.reason if isinstance(error, JobWorkerError) else None,
            why=str(error) if isinstance(error, _TOLD_REASONS) else None,
            seconds=None if seconds is None else round(seconds, 6),
        )


def _parse(handler: Handler, data: bytes) -> Any:  # noqa: ANN401 -- of the method's own type
    if handler.request_deserializer is None:
        return data
    try:
        return handler.request_deserializer(data)
    except DecodeError as error:
        raise InvalidArgumentError("request", f"{len(data)} bytes", "it is damaged") from error


async def _write(context: Context, message: object) -> None:
    try:
        await context.write(message)
    except grpc.aio.InternalError as error:
        # The connection broke while gRPC held the message.  It cancels this task for the same
        # reason, only later.
        raise asyncio.CancelledError from error


def _is_overdue(context: Context) -> bool:
    # None where the client set no deadline, whatever the type says.
    rest_s: float | None = context.time_remaining()
    return rest_s is not None and rest_s <= 0
