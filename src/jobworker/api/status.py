"""Our errors as gRPC statuses, and back: the same class, attributes and message on both sides.

Owns: the mapping of codes and the ``google.rpc`` details.  A status carries an ErrorInfo (domain
"jobworker", the error's reason and details) and for a wrong argument a BadRequest naming the field,
in the trailing metadata ``grpc-status-details-bin``.

What is not one of our errors is told to nobody: the caller gets an incident number, the log the
error with the same number.

gRPC itself is imported only where it is called: who serves must load it under the TLS policy first
(``jobworker.security.tls``).

Source: google/rpc/status.proto and error_details.proto; github.com/grpc/grpc, doc/statuscodes.md.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

# The package has no type information.
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from jobworker.errors import (
    DataLossError,
    DeadlineExceededError,
    ErrorCode,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    InvalidLimitError,
    JobNotFoundError,
    JobWorkerError,
    PermissionDeniedError,
    RequestReusedError,
    ResourceExhaustedError,
    StartFailedError,
    UnauthenticatedError,
    UnavailableError,
    UnenforceableLimitError,
    UnreachableError,
)

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

DOMAIN: Final = "jobworker"
DETAILS_KEY: Final = "grpc-status-details-bin"

#: Of one text in a status.  All trailing metadata together must stay under the 8 KiB that gRPC
#: accepts by default (grpc.max_metadata_size), percent-encoding and base64 included.
_TEXT_BYTES_MAX: Final = 512

#: What of the details makes up the attributes of an error besides its message.
_Attributes = Callable[[Mapping[str, str], str], dict[str, Any]]


def _no_attributes(_details: Mapping[str, str], _why: str) -> dict[str, Any]:
    return {}


def _argument(details: Mapping[str, str], why: str) -> dict[str, Any]:
    return {"field": details.get("field", ""), "why": why}


def _before_program(details: Mapping[str, str], _why: str) -> dict[str, Any]:
    number = getattr(errno, details.get("errno", ""), 0)
    return {
        "errno": number if isinstance(number, int) else 0,
        "path": details.get("path", ""),
        "job_id": details.get("job_id", ""),
        "at_program": False,
    }


def _at_program(details: Mapping[str, str], why: str) -> dict[str, Any]:
    return {**_before_program(details, why), "at_program": True}


def _named(name: str) -> _Attributes:
    return lambda details, _why: {name: details.get(name, "")}


#: The one table.  A reason that a newer service gives falls back to its code's own.
_BY_REASON: Final[Mapping[str, tuple[type[JobWorkerError], _Attributes]]] = {
    "INVALID_ARGUMENT": (InvalidArgumentError, _argument),
    "INVALID_LIMIT": (InvalidLimitError, _argument),
    "NOT_FOUND": (JobNotFoundError, _named("job_id")),
    "JOB_NOT_FOUND": (JobNotFoundError, _named("job_id")),
    "PERMISSION_DENIED": (PermissionDeniedError, _named("action")),
    "UNAUTHENTICATED": (UnauthenticatedError, _no_attributes),
    "FAILED_PRECONDITION": (FailedPreconditionError, _no_attributes),
    "START_FAILED": (StartFailedError, _before_program),
    "COMMAND_NOT_FOUND": (StartFailedError, _at_program),
    "COMMAND_NOT_EXECUTABLE": (StartFailedError, _at_program),
    "REQUEST_ID_REUSED": (RequestReusedError, _no_attributes),
    "LIMIT_UNENFORCEABLE": (UnenforceableLimitError, _named("resource")),
    "RESOURCE_EXHAUSTED": (ResourceExhaustedError, _no_attributes),
    "UNAVAILABLE": (UnavailableError, _no_attributes),
    "DEADLINE_EXCEEDED": (DeadlineExceededError, _no_attributes),
    "DATA_LOSS": (DataLossError, _no_attributes),
    "INTERNAL": (InternalError, _no_attributes),
}

#: Statuses that only gRPC itself gives, and whose doing they are.
_BY_FOREIGN_CODE: Final[Mapping[str, ErrorCode]] = {
    "CANCELLED": ErrorCode.UNAVAILABLE,
    # A service without the method is older than its client.
    "UNIMPLEMENTED": ErrorCode.FAILED_PRECONDITION,
}


def to_status(error: BaseException) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, message and the serialized ``google.rpc.Status`` for the key ``DETAILS_KEY``."""
    import grpc  # noqa: PLC0415 -- loaded under the TLS policy by who serves

    known = error if isinstance(error, JobWorkerError) else _incident(error)
    code: grpc.StatusCode = grpc.StatusCode[known.code.value]
    message = _cut(str(known))
    status = Status(code=code.value[0], message=message)
    metadata = {name: _cut(value) for name, value in known.details.items()}
    status.details.add().Pack(ErrorInfo(domain=DOMAIN, reason=known.reason, metadata=metadata))
    if isinstance(known, InvalidArgumentError):
        violation = BadRequest.FieldViolation(field=_cut(known.field), description=_cut(known.why))
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    return code, message, status.SerializeToString()


def from_rpc_error(error: grpc.RpcError) -> JobWorkerError:
    """The error that the service raised; for a failed connection, one that says so."""
    code = error.code().name
    status = _details(error.trailing_metadata() or ())
    if status is None or not status.message:
        return _from_transport(code, error.details() or "no reason given")
    info, why = ErrorInfo(), ""
    for detail in status.details:
        if detail.Is(BadRequest.DESCRIPTOR):
            request = BadRequest()
            detail.Unpack(request)
            why = request.field_violations[0].description if request.field_violations else ""
        elif detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    reason = info.reason if info.domain == DOMAIN else ""
    return _rebuilt(reason, _own_code(code), status.message, info.metadata, why)


def _rebuilt(
    reason: str, code: ErrorCode, message: str, details: Mapping[str, str], why: str
) -> JobWorkerError:
    kind, attributes = _BY_REASON.get(reason) or _BY_REASON[code.value]
    # Not through __init__: it would compose the message anew from parts that were not sent.
    error = kind.__new__(kind, message)
    for name, value in attributes(details, why).items():
        setattr(error, name, value)
    return error


def _from_transport(code: str, told: str) -> JobWorkerError:
    """For a status that gRPC made itself: the service was not reached, or never answered."""
    own_code = _own_code(code)
    if own_code is ErrorCode.UNAVAILABLE:
        return UnreachableError("complete the call", f"{told} ({code})")
    return _rebuilt("", own_code, f"cannot complete the call: {told} ({code})", {}, told)


def _own_code(code: str) -> ErrorCode:
    if code in ErrorCode.__members__:
        return ErrorCode[code]
    return _BY_FOREIGN_CODE.get(code, ErrorCode.INTERNAL)


def _details(metadata: Iterable[Any]) -> Status | None:
    """metadata: pairs, or the records of grpc.aio that unpack like them."""
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _incident(error: BaseException) -> InternalError:
    incident = os.urandom(4).hex()
    logger.error("unexpected error", exc_info=error, extra={"incident": incident})
    return InternalError(
        "answer the request", f"an unexpected error, logged by the service as incident {incident}"
    )


def _cut(text: str) -> str:
    """At most ``_TEXT_BYTES_MAX`` of valid UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= _TEXT_BYTES_MAX:
        return data.decode()
    return data[: _TEXT_BYTES_MAX - len("…".encode())].decode("utf-8", "ignore") + "…"
