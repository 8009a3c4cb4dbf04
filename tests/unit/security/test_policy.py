"""Who may do what: the whole matrix, written a second time."""

from __future__ import annotations

import itertools

import pytest

from jobworker.errors import JobNotFoundError, PermissionDeniedError
from jobworker.model.ids import JobId, UserName
from jobworker.security.policy import (
    Action,
    Principal,
    Role,
    Scope,
    is_allowed,
    require_access,
    require_grant,
    scope_of,
)

ALICE = Principal(name=UserName("alice"), role=Role.USER)
ADMIN = Principal(name=UserName("admin"), role=Role.ADMIN)
JOB = JobId("0" * 20)

#: action: standard user on own, on another's; admin on own, on another's
MATRIX = {
    Action.START: (True, False, True, False),
    Action.START_WITH_LIMITS: (False, False, True, False),
    Action.STOP: (True, False, True, True),
    Action.GET: (True, False, True, True),
    Action.LIST: (True, False, True, True),
    Action.STREAM: (True, False, True, True),
    Action.WATCH: (True, False, True, True),
    Action.UPDATE_LIMITS: (False, False, True, True),
    Action.DELETE: (True, False, True, True),
    Action.WHO_AM_I: (True, False, True, False),
}


def test_the_matrix_names_every_action() -> None:
    assert set(MATRIX) == set(Action)


@pytest.mark.parametrize("action", Action)
def test_every_cell_of_the_matrix(action: Action) -> None:
    other = UserName("bob")
    cells = (
        is_allowed(ALICE, action, ALICE.name),
        is_allowed(ALICE, action, other),
        is_allowed(ADMIN, action, ADMIN.name),
        is_allowed(ADMIN, action, other),
    )
    assert cells == MATRIX[action]


def test_a_role_is_not_inherited_by_name() -> None:
    """A standard user who is called admin is a standard user."""
    called_admin = Principal(name=UserName("admin"), role=Role.USER)
    assert not is_allowed(called_admin, Action.STOP, UserName("alice"))


def test_a_standard_user_may_not_bring_limits() -> None:
    with pytest.raises(
        PermissionDeniedError, match=r"^cannot start a job with limits of its own: the role user"
    ):
        require_grant(ALICE, Action.START_WITH_LIMITS)
    assert require_grant(ADMIN, Action.START_WITH_LIMITS) is Scope.OWN


def test_the_job_of_another_is_as_one_that_does_not_exist() -> None:
    with pytest.raises(JobNotFoundError) as refusal:
        require_access(ALICE, Action.GET, job_id=JOB, owner=UserName("bob"))
    assert str(refusal.value) == str(JobNotFoundError(JOB))
    require_access(ALICE, Action.GET, job_id=JOB, owner=ALICE.name)
    require_access(ADMIN, Action.GET, job_id=JOB, owner=ALICE.name)


def test_a_refused_action_is_refused_alike_for_own_and_other_jobs() -> None:
    """Otherwise the difference would tell whose job it is."""
    for owner in (ALICE.name, UserName("bob")):
        with pytest.raises(PermissionDeniedError):
            require_access(ALICE, Action.UPDATE_LIMITS, job_id=JOB, owner=owner)


@pytest.mark.parametrize(("role", "action"), list(itertools.product(Role, Action)))
def test_a_scope_and_a_grant_are_one_answer(role: Role, action: Action) -> None:
    who = Principal(name=UserName("carol"), role=role)
    scope = scope_of(role, action)
    assert is_allowed(who, action, who.name) == (scope is not None)
    assert is_allowed(who, action, UserName("dave")) == (scope is Scope.ANY)
