"""One RPC as the service sees it: who calls, for how long, about which job."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from jobworker.model.ids import JobId, UserName
from jobworker.security.identity import Identity
from jobworker.security.policy import Principal


@dataclass(slots=True, kw_only=True)
class Call:
    """Made by the gate (interceptors.py) once the caller is known; ends with the RPC."""

    method: str
    """``/jobworker.v1.JobWorker/StartJob``."""
    peer: str
    """Network address, as gRPC tells it."""
    certificate: bytes
    """PEM, for asking again whether it is still good."""
    identity: Identity
    job_id: JobId | None = field(default=None, init=False)
    """The job that it is about, for the audit log: set by the service as soon as it knows."""
    owner: UserName | None = field(default=None, init=False)
    """Of that job, if the caller may see it."""

    @property
    def principal(self) -> Principal:
        return self.identity.principal


_current: Final[ContextVar[Call]] = ContextVar("call")


def current_call() -> Call:
    """The RPC that the running task serves.  Raises LookupError outside of one."""
    return _current.get()


def enter_call(call: Call) -> None:
    """From here on the running task, which gRPC made for this RPC alone, serves ``call``."""
    _current.set(call)
