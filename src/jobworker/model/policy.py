"""What a start is completed and bounded by: the policy of one role."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobworker.model.limits import Limits
from jobworker.model.spec import Isolation, OnOutputLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicy:
    """The worker applies it; whose policy it is, the caller of the worker decides."""

    limits: Limits = field(default_factory=Limits)
    """In force where the spec says nothing."""
    timeout_s: float | None = None
    """The default, and the most that a spec may ask for; ``None`` is for ever."""
    max_output_bytes: int | None = None
    """Kept output of one job: the default, and the most that a spec may ask for."""
    on_output_limit: OnOutputLimit = OnOutputLimit.STOP
    """In force where the spec says nothing."""
    isolation: Isolation = Isolation.NONE
    """In force where the spec says nothing, and the least that it may ask for."""
    may_loosen_isolation: bool = False
    """A spec may ask for less isolation than that."""
    max_running_jobs: int | None = None
    """Of one owner at a time."""
    max_kept_bytes: int | None = None
    """Output of all the jobs of one owner that are still kept; beyond it no new job starts."""
