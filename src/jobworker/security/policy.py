"""Who may do what: one pure table, and the questions that the service asks it.

Owns: roles, actions, and the scope in which a role may act.  Not how a caller is recognised
(identity.py) and not what a job may use (``jobworker.model.JobPolicy``).

What is missing from the table is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobworker.errors import JobNotFoundError, PermissionDeniedError
from jobworker.model.ids import JobId, UserName


class Role(enum.Enum):
    """What the organization of a client certificate may say."""

    USER = "user"
    """Starts jobs under the predefined policy and sees only their own."""
    ADMIN = "admin"
    """May set limits, and may see and stop any job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling."""

    name: UserName
    role: Role


class Action(enum.Enum):
    """What can be asked for; the values complete the sentence "cannot …"."""

    START = "start a job"
    START_WITH_LIMITS = "start a job with limits of its own"
    STOP = "stop the job"
    GET = "look at the job"
    LIST = "list jobs"
    STREAM = "read the output of the job"
    WATCH = "watch jobs"
    UPDATE_LIMITS = "change the limits of the job"
    DELETE = "delete the job"
    WHO_AM_I = "ask who the caller is"


class Scope(enum.Enum):
    """Whose jobs an action reaches."""

    OWN = "own"
    ANY = "any"


_GRANTS: Final[Mapping[tuple[Role, Action], Scope]] = {
    (Role.USER, Action.START): Scope.OWN,
    (Role.USER, Action.STOP): Scope.OWN,
    (Role.USER, Action.GET): Scope.OWN,
    (Role.USER, Action.LIST): Scope.OWN,
    (Role.USER, Action.STREAM): Scope.OWN,
    (Role.USER, Action.WATCH): Scope.OWN,
    (Role.USER, Action.DELETE): Scope.OWN,
    (Role.USER, Action.WHO_AM_I): Scope.OWN,
    # Nobody starts a job in somebody else's name: an admin's jobs are the admin's.
    (Role.ADMIN, Action.START): Scope.OWN,
    (Role.ADMIN, Action.START_WITH_LIMITS): Scope.OWN,
    (Role.ADMIN, Action.STOP): Scope.ANY,
    (Role.ADMIN, Action.GET): Scope.ANY,
    (Role.ADMIN, Action.LIST): Scope.ANY,
    (Role.ADMIN, Action.STREAM): Scope.ANY,
    (Role.ADMIN, Action.WATCH): Scope.ANY,
    (Role.ADMIN, Action.UPDATE_LIMITS): Scope.ANY,
    (Role.ADMIN, Action.DELETE): Scope.ANY,
    (Role.ADMIN, Action.WHO_AM_I): Scope.OWN,
}


def scope_of(role: Role, action: Action) -> Scope | None:
    """Whose jobs a role reaches with an action; ``None`` refuses it altogether."""
    return _GRANTS.get((role, action))


def is_allowed(who: Principal, action: Action, owner: UserName) -> bool:
    """May they do it to a job of this owner?  A pair that is not in the table is a refusal."""
    match scope_of(who.role, action):
        case Scope.ANY:
            return True
        case Scope.OWN:
            return who.name == owner
        case None:
            return False


def require_grant(who: Principal, action: Action) -> Scope:
    """The scope of an action; raises PermissionDeniedError if the role has none.

    Ask it before looking a job up: after the look-up, "denied" would tell that the job exists.
    """
    scope = scope_of(who.role, action)
    if scope is None:
        raise PermissionDeniedError(action.value, f"the role {who.role.value} may not")
    return scope


def require_access(who: Principal, action: Action, *, job_id: JobId, owner: UserName) -> None:
    """Raises PermissionDeniedError, or JobNotFoundError where the job is out of the role's scope.

    The latter is the very error of a job that does not exist: the two must not be told apart.
    """
    require_grant(who, action)
    if not is_allowed(who, action, owner):
        raise JobNotFoundError(job_id)
