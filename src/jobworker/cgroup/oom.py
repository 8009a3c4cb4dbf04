"""Whose memory it was that ran out, as far as counters and the kernel's log tell.

Owns: the judgement, the same for both versions.  Not the files (limits.py of each).

v2 counts at each cgroup how often its own limit called the OOM killer ("memory.events.local", oom).
v1 counts nothing of the kind: that a limit was reached, which the page cache alone does all the
time, is the most that its files prove.  The log names the very limit, where we may read it.

Source: cgroup-v2.rst, "Memory Interface Files"; cgroup-v1/memory.rst, "OOM Control".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobworker.kernel.messages import last_oom_kill


class OomSite(enum.Enum):
    """Where memory ran out."""

    OWN = "own"
    """At the job's own limit."""
    INSIDE = "inside"
    """At the limit of a cgroup that the job has made in its own."""
    ABOVE = "above"
    """At the limit of a cgroup above the job's: the service's, a container's."""
    HOST = "host"
    """The host has no more."""
    MAYBE_OWN = "maybe own"
    """Its own limit was reached, which need not be what killed."""
    NOT_OWN = "not own"
    """Not at its own limit: above, or the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The memory of one cgroup."""

    path: str
    limit_bytes: int | None
    """In force at the time of reading."""
    was_reached: bool
    """Memory has been as much as the limit allows, be it page cache."""
    ooms: int | None = None
    """How often this very limit called the OOM killer; None: not counted (v1)."""
    ooms_inside: int = 0
    """The same, of limits below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """Why the kernel killed processes of a job for want of memory."""

    site: OomSite
    own: Level
    limit_bytes: int | None
    """That was reached; None: unknown, or none."""
    kills: int | None
    """Processes; None where the kernel took the whole job, which it does not count truly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHits:
    """Limits that a job ran into, as the kernel holds them now."""

    memory: OutOfMemory | None = None
    """None: it did not."""
    tasks: int | None = None
    """The job's own limit in force; None: it has none, so what it ran into is above."""


def judge(
    own: Level,
    above: Sequence[Level],
    *,
    noted: Mapping[str, int],
    has_root: bool,
    messages: str,
    kills: int | None,
) -> OutOfMemory:
    """From the memory of a job's cgroup, and of all above it that we see, the nearest first.

    noted: ``ooms`` of those above, by path, as they were when the job began.  has_root: the last of
    them is the root of the tree.  messages: the kernel's log.
    """
    site, at = _judge(own, above, noted, has_root=has_root, messages=messages)
    limit_bytes = None if at is None else at.limit_bytes
    return OutOfMemory(site=site, own=own, limit_bytes=limit_bytes, kills=kills)


def _judge(
    own: Level, above: Sequence[Level], noted: Mapping[str, int], *, has_root: bool, messages: str
) -> tuple[OomSite, Level | None]:
    if own.ooms:
        return OomSite.OWN, own
    if own.ooms_inside:
        return OomSite.INSIDE, None
    told = _judge_messages(own, above, messages)
    if told is not None:
        return told
    if own.ooms is None and own.was_reached:
        return OomSite.MAYBE_OWN, own
    for level in above:
        if level.path in noted and (level.ooms or 0) > noted[level.path]:
            return OomSite.ABOVE, level
    # What was counted before the job's levels were noted may yet have been its end.
    suspects = [level.was_reached if level.ooms is None else level.ooms for level in above]
    return (OomSite.HOST if has_root and not any(suspects) else OomSite.NOT_OWN), None


def _judge_messages(
    own: Level, above: Sequence[Level], messages: str
) -> tuple[OomSite, Level | None] | None:
    """Paths in the log begin at the root of the tree, ours where it is mounted.

    Below the highest level that we see they are alike.
    """
    if not above:
        return None
    top = above[-1].path
    below = own.path.removeprefix(top)
    told = last_oom_kill(messages, below)
    if told is None:
        return None
    if told.limit is None:
        return OomSite.HOST, None
    path = top + told.limit.removeprefix(told.victim[: f"{told.victim}/".rfind(f"{below}/")])
    if path == own.path:
        return OomSite.OWN, own
    if path.startswith(f"{own.path}/"):
        return OomSite.INSIDE, None
    return OomSite.ABOVE, next((level for level in above if level.path == path), None)
