"""The states of a job and the moves between them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from jobworker.errors import StateConflictError


class JobState(enum.Enum):
    """Where a job is in its life."""

    QUEUED = "QUEUED"
    """Accepted, not begun.  Reserved for engines that queue; this worker starts at once."""
    STARTING = "STARTING"
    """Recorded; its command is not executed yet."""
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    """A stop was asked for and recorded; processes may still run."""
    ENDED = "ENDED"
    """No process of it is left and its ending is recorded."""


_NEXT: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.ENDED}),
    # A stop can overtake the start: the client whose start broke off stops what it may have begun.
    JobState.STARTING: frozenset({JobState.RUNNING, JobState.STOPPING, JobState.ENDED}),
    JobState.RUNNING: frozenset({JobState.STOPPING, JobState.ENDED}),
    JobState.STOPPING: frozenset({JobState.ENDED}),
    JobState.ENDED: frozenset(),
}


def advance(old: JobState, new: JobState) -> JobState:
    """The only place where a job changes state.  Raises StateConflictError."""
    if new not in _NEXT[old]:
        raise StateConflictError(old.value, new.value)
    return new
