"""Every method that is served, and the action that its caller must be granted.

Deny by default: a method that is not in this table is refused, whatever serves it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from jobworker.errors import PermissionDeniedError
from jobworker.security.policy import Action, Principal, require_grant


class Open(enum.Enum):
    """What takes no grant."""

    TO_EVERY_ROLE = "to every role"
    """Who has a certificate and a role may call it."""


_OURS: Final = "/jobworker.v1.JobWorker/"

ACTIONS: Final[Mapping[str, Action | Open]] = {
    _OURS + "StartJob": Action.START,
    _OURS + "StopJob": Action.STOP,
    _OURS + "GetJob": Action.GET,
    _OURS + "ListJobs": Action.LIST,
    _OURS + "StreamOutput": Action.STREAM,
    _OURS + "WatchJobs": Action.WATCH,
    _OURS + "UpdateLimits": Action.UPDATE_LIMITS,
    _OURS + "DeleteJob": Action.DELETE,
    _OURS + "WhoAmI": Action.WHO_AM_I,
    "/grpc.health.v1.Health/Check": Open.TO_EVERY_ROLE,
    "/grpc.health.v1.Health/Watch": Open.TO_EVERY_ROLE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Open.TO_EVERY_ROLE,
}

#: They last; unlike the others they are counted and bounded (as is StopJob while it waits).
STREAMS: Final = frozenset(
    {
        _OURS + "StreamOutput",
        _OURS + "WatchJobs",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)


def require_method(who: Principal, method: str) -> None:
    """Raises PermissionDeniedError unless the caller's role may call the method at all."""
    action = ACTIONS.get(method)
    if action is None:
        raise PermissionDeniedError(f"call {method}", "no role may")
    if action is not Open.TO_EVERY_ROLE:
        require_grant(who, action)
