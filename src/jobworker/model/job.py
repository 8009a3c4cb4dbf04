"""A job as it is told to those who may see it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobworker.model.ending import Ending
from jobworker.model.ids import JobId, UserName
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.spec import Isolation, JobSpec
from jobworker.model.state import JobState
from jobworker.model.usage import OutputTotals, Usage


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
