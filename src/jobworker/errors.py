"""The error tree.

::

    JobWorkerError                  has a code: who must act, and may the call be repeated
    ├── InvalidArgumentError        the caller's value is wrong; names the field
    │   └── InvalidLimitError       a limit that no host could keep
    ├── JobNotFoundError            no such job, or none that the caller may see
    ├── PermissionDeniedError       the caller's role does not reach that far
    ├── UnauthenticatedError        the certificate does not say who the caller is
    ├── FailedPreconditionError     right request, wrong state of things
    │   ├── StartFailedError        the command could not be executed
    │   ├── StateConflictError      a job cannot move between those states
    │   ├── RequestReusedError      one request_id, two different requests
    │   └── UnenforceableLimitError this host cannot keep a limit that was asked for
    ├── ResourceExhaustedError      a bound was reached; names it
    ├── UnavailableError            try again: the service cannot do it now
    │   └── UnreachableError        nobody answered
    ├── DeadlineExceededError       the caller's time was up before the answer was there
    ├── DataLossError               stored or received bytes are not what they must be
    └── InternalError               a bug, or a host that does not behave

Messages start with "cannot", name the thing and give the reason; what a caller may want to act on
is also an attribute.  One table maps codes to gRPC status (``jobworker.api.status``), another to
exit codes (``jobworker.cli.exits``); nothing else does.
"""

from __future__ import annotations

import enum
import errno as errno_names
import os
from typing import Final


class ErrorCode(enum.Enum):
    """Who must act: the names are those of the canonical gRPC codes."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    """The caller must change the request."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The caller must present another certificate."""
    PERMISSION_DENIED = "PERMISSION_DENIED"
    """The caller's role must change."""
    NOT_FOUND = "NOT_FOUND"
    """There is no such thing for this caller."""
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    """Something on the host must change before the same request can succeed."""
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    """Something must end or be removed first."""
    UNAVAILABLE = "UNAVAILABLE"
    """Nobody need act; the same request may be sent again."""
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    """The caller's own deadline passed; what was begun may still be going on."""
    DATA_LOSS = "DATA_LOSS"
    """The operator must look."""
    INTERNAL = "INTERNAL"
    """The maintainers must look."""


class JobWorkerError(Exception):
    """Root of all errors that this project raises on purpose."""

    code: ErrorCode = ErrorCode.INTERNAL

    @property
    def reason(self) -> str:
        """A stable word for programs, ``UPPER_SNAKE_CASE``; for the wire's ``ErrorInfo``."""
        return self.code.value

    @property
    def details(self) -> dict[str, str]:
        """What a program may want to know besides the reason; keys are stable."""
        return {}


class InvalidArgumentError(JobWorkerError):
    """``cannot use {field} {value}: {why}``; a value of None is not shown."""

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, field: str, value: object, why: str) -> None:
        what = field if value is None else f"{field} {shown(value)}"
        super().__init__(f"cannot use {what}: {why}")
        self.field = field
        self.why = why

    @property
    def details(self) -> dict[str, str]:
        return {"field": self.field}


class InvalidLimitError(InvalidArgumentError):
    """A limit that no host could keep."""

    @property
    def reason(self) -> str:
        return "INVALID_LIMIT"


class JobNotFoundError(JobWorkerError):
    """No such job, or none that the caller may see: the two are told apart by nothing."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(f"cannot find job {shown(job_id)}")
        self.job_id = job_id

    @property
    def reason(self) -> str:
        return "JOB_NOT_FOUND"

    @property
    def details(self) -> dict[str, str]:
        return {"job_id": self.job_id}


class PermissionDeniedError(JobWorkerError):
    """``cannot {action}: {why}``."""

    code = ErrorCode.PERMISSION_DENIED

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")
        self.action = action

    @property
    def details(self) -> dict[str, str]:
        return {"action": self.action}


class UnauthenticatedError(JobWorkerError):
    """The certificate does not settle who the caller is."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self, why: str) -> None:
        super().__init__(f"cannot accept the client certificate: {why}")


class FailedPreconditionError(JobWorkerError):
    """``cannot {action}: {why}``: a right request in the wrong state of things."""

    code = ErrorCode.FAILED_PRECONDITION

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


class StartFailedError(FailedPreconditionError):
    """The command could not be executed: nothing of it ran.

    errno: of the step that failed, 0 where no system call did.
    path: the file that the step was about, "" where there is none.
    job_id: the job that records the attempt, "" where none was made.
    at_program: it was the program itself that could not be executed, not a step before it, such as
        entering the working directory.
    """

    def __init__(
        self,
        why: str,
        *,
        errno: int = 0,
        path: str = "",
        job_id: str = "",
        at_program: bool = False,
    ) -> None:
        super().__init__("start the command", why)
        self.errno = errno
        self.path = path
        self.job_id = job_id
        self.at_program = at_program

    @property
    def reason(self) -> str:
        if not self.at_program:
            return "START_FAILED"
        if self.errno in _NOT_FOUND_ERRNOS:
            return "COMMAND_NOT_FOUND"
        return "COMMAND_NOT_EXECUTABLE"

    @property
    def details(self) -> dict[str, str]:
        name = errno_names.errorcode.get(self.errno, "")
        return {"errno": name, "path": self.path, "job_id": self.job_id}


class StateConflictError(FailedPreconditionError):
    """A job cannot move between those states."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"move a job from {old} to {new}", "there is no such transition")


class RequestReusedError(FailedPreconditionError):
    """The same ``request_id`` came with a different request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"start a job for request_id {shown(request_id)}",
            "an earlier request with this id asked for something else",
        )

    @property
    def reason(self) -> str:
        return "REQUEST_ID_REUSED"


class UnenforceableLimitError(FailedPreconditionError):
    """This host cannot keep a limit that was asked for."""

    def __init__(self, resource: str, why: str) -> None:
        super().__init__(f"limit {resource} on this host", why)
        self.resource = resource

    @property
    def reason(self) -> str:
        return "LIMIT_UNENFORCEABLE"

    @property
    def details(self) -> dict[str, str]:
        return {"resource": self.resource}


class ResourceExhaustedError(JobWorkerError):
    """``cannot {action}: {why}``: a bound was reached."""

    code = ErrorCode.RESOURCE_EXHAUSTED

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


class UnavailableError(JobWorkerError):
    """``cannot {action}: {why}``: the same request may be sent again."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


class UnreachableError(UnavailableError):
    """Nobody answered: what was asked for may have been done or not."""


class DeadlineExceededError(JobWorkerError):
    """``cannot {action}: {why}``: what was begun may still be going on."""

    code = ErrorCode.DEADLINE_EXCEEDED

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


class DataLossError(JobWorkerError):
    """``cannot {action}: {why}``: bytes are missing or are not what was written."""

    code = ErrorCode.DATA_LOSS

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


class InternalError(JobWorkerError):
    """``cannot {action}: {why}``: a bug, or a host that does not behave."""

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"cannot {action}: {why}")


_NOT_FOUND_ERRNOS: Final = frozenset({errno_names.ENOENT})

#: Longer values are cut in messages: an argument may be 128 KiB, a message is read by a person.
_SHOWN_CHARS: Final = 120


def shown(value: object) -> str:
    """``value`` as one line of an error message: quoted if it is text, cut if it is long."""
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def errno_text(number: int) -> str:
    """``"No such file or directory (ENOENT)"``."""
    name = errno_names.errorcode.get(number, str(number))
    return f"{os.strerror(number)} ({name})"
