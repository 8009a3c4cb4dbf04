"""An error that the service raises is the error that the client raises."""

from __future__ import annotations

import errno
import logging

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from jobworker import errors
from jobworker.api.status import DETAILS_KEY, from_rpc_error, to_status
from jobworker.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    JobNotFoundError,
    JobWorkerError,
    PermissionDeniedError,
    RequestReusedError,
    ResourceExhaustedError,
    StartFailedError,
    StateConflictError,
    UnauthenticatedError,
    UnavailableError,
    UnenforceableLimitError,
    UnreachableError,
)
from unit.api import strategies

EXAMPLES: list[JobWorkerError] = [
    InvalidArgumentError("argv", ["a"], "it takes more"),
    strategies.invalid_limit(),
    JobNotFoundError("0" * 20),
    PermissionDeniedError("start a job with limits of its own", "the role user may not"),
    UnauthenticatedError("it is revoked"),
    FailedPreconditionError("delete the job", "it still runs"),
    StartFailedError("gone", errno=errno.ENOENT, path="/bin/é", job_id="1" * 20, at_program=True),
    StartFailedError("closed", errno=errno.EACCES, path="/x", job_id="1" * 20, at_program=True),
    StartFailedError("no such directory", errno=errno.ENOENT, path="/x", job_id="1" * 20),
    StartFailedError("the shim did not answer"),
    RequestReusedError("again"),
    UnenforceableLimitError("io_read_bytes_per_s", "there is no block device"),
    ResourceExhaustedError("start a job", "too many run"),
    UnavailableError("start a job", "the service is shutting down"),
    DeadlineExceededError("wait for the job", "the time is up"),
    DataLossError("read the output", "bytes are missing"),
    InternalError("make a cgroup", "No such file"),
]


def over_the_wire(error: BaseException) -> JobWorkerError:
    code, message, details = to_status(error)
    trailing = Metadata(("other", "x"), (DETAILS_KEY, details))
    return from_rpc_error(AioRpcError(code, Metadata(), trailing, message))


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
def test_an_error_comes_back_as_itself(error: JobWorkerError) -> None:
    back = over_the_wire(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert (back.code, back.reason, back.details) == (error.code, error.reason, error.details)


def test_every_class_of_error_has_an_example_or_falls_back() -> None:
    known = {type(error) for error in EXAMPLES}
    # The one is never sent, the other stands for a service that did not answer.
    assert _leaves(JobWorkerError) - known == {StateConflictError, UnreachableError}
    assert type(over_the_wire(StateConflictError("ENDED", "RUNNING"))) is FailedPreconditionError


def test_an_unexpected_error_is_told_to_the_log_and_not_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        code, message, details = to_status(RuntimeError("secret path /etc/shadow"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message
    assert b"secret" not in details
    [record] = caplog.records
    incident = record.__dict__["incident"]
    assert incident in message
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


def test_a_status_fits_in_the_metadata_that_grpc_takes() -> None:
    long = "€" * 100_000
    error = InvalidArgumentError(f"env[{long}]", long, long)
    code, message, details = to_status(error)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    # Percent-encoding takes three bytes for one, base64 four for three.
    assert 3 * len(message.encode()) + len(details) * 4 // 3 < 8000
    assert str(over_the_wire(error)).endswith("€…")


def test_text_that_is_no_unicode_does_not_break_the_status() -> None:
    error = StartFailedError("no such file", errno=errno.ENOENT, path="/caf\udce9")
    assert getattr(over_the_wire(error), "path", None) == "/caf?"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnreachableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.CANCELLED, UnreachableError),
        (grpc.StatusCode.UNIMPLEMENTED, FailedPreconditionError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.ABORTED, InternalError),
    ],
)
def test_a_status_that_grpc_made_has_a_class_too(
    code: grpc.StatusCode, kind: type[JobWorkerError]
) -> None:
    error = from_rpc_error(AioRpcError(code, Metadata(), Metadata(), "Socket closed"))
    assert type(error) is kind
    assert str(error) == f"cannot complete the call: Socket closed ({code.name})"


@pytest.mark.parametrize("details", [b"\xff\xff\xff", b""])
def test_damaged_details_do_not_hide_the_code(details: bytes) -> None:
    trailing = Metadata((DETAILS_KEY, details))
    error = from_rpc_error(AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), trailing, "gone"))
    assert type(error) is JobNotFoundError
    assert "gone" in str(error)


def test_a_reason_of_a_newer_service_falls_back_to_its_code() -> None:
    class NewerError(FailedPreconditionError):
        @property
        def reason(self) -> str:
            return "DISK_IS_HAUNTED"

    error = over_the_wire(NewerError("start the command", "the disk is haunted"))
    assert type(error) is FailedPreconditionError
    assert str(error) == "cannot start the command: the disk is haunted"


def _leaves(kind: type[JobWorkerError]) -> set[type[JobWorkerError]]:
    found = {kind} if kind is not JobWorkerError else set()
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            found |= _leaves(below)
    return found
