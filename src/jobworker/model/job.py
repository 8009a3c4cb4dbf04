"""A job as it is told to those who may see it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from jobworker.model.ending import Ending
from jobworker.model.ids import JobId, UserName
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.spec import Isolation, JobSpec
from jobworker.model.state import JobState
from jobworker.model.usage import OutputTotals, Usage

#: A job is told whole, in one message of at most 4 MiB of which its command may take 2: so many
#: changes fit beside it, also where each names every limit on dozens of disks.
LIMIT_CHANGES_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """One change of a running job's limits."""

    changed_at: datetime.datetime
    """When it was asked for."""
    changed_by: UserName
    before: Limits
    """What was asked for until then, of the resources that ``after`` names."""
    after: Limits
    """What the change asks for."""
    effective: tuple[EffectiveLimit, ...] = ()
    """What the kernel accepted of it."""
    outcome_unknown: bool = False
    """The worker was killed while it made the change, and the job had ended when the next one
    looked: whether the kernel had been told is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One moment of a job's life.  Times are UTC."""

    id: JobId
    owner: UserName
    state: JobState
    spec: JobSpec
    """As asked for."""
    limits: Limits
    """In force: the spec's, completed by the policy."""
    isolation: Isolation = Isolation.NONE
    """In force."""
    effective: tuple[EffectiveLimit, ...] = ()
    """What the kernel accepted; empty until the job runs."""
    created_at: datetime.datetime
    started_at: datetime.datetime | None = None
    """When the command was executed."""
    ended_at: datetime.datetime | None = None
    ending: Ending | None = None
    """Set exactly when ``state`` is ENDED."""
    usage: Usage = field(default_factory=Usage)
    output: OutputTotals = field(default_factory=OutputTotals)
    conditions: tuple[str, ...] = ()
    """What is out of order just now, for people: ``"output blocked: no space"``."""
    limit_changes: tuple[LimitChange, ...] = ()
    """Since its start, oldest first: the last ``LIMIT_CHANGES_MAX`` of them."""
    limit_changes_dropped: int = 0
    """Older ones that are not kept."""

    def with_limit_change(self, change: LimitChange) -> Job:
        """This job after a change; one whose outcome is unknown changes nothing but the history."""
        limits, effective = self.limits, self.effective
        if not change.outcome_unknown:
            limits = change.after.or_else(limits)
            kept = tuple(old for old in effective if change.after.get(old.resource) is None)
            effective = kept + change.effective
        changes = (*self.limit_changes, change)
        surplus = max(0, len(changes) - LIMIT_CHANGES_MAX)
        return replace(
            self,
            limits=limits,
            effective=effective,
            limit_changes=changes[surplus:],
            limit_changes_dropped=self.limit_changes_dropped + surplus,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list: all that is given must fit."""

    owner: UserName | None = None
    states: frozenset[JobState] = frozenset()
    """Any of these; empty is any state."""
    labels: Mapping[str, str] = field(default_factory=dict)
    id_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs, newest first."""

    jobs: tuple[Job, ...]
    next_page_token: str = ""
    """Where the next page begins; "" after the last one."""
