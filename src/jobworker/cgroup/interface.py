"""What the floors above may ask of control groups, whatever version the host has.

A *hierarchy* is the place on this host below which jobs get their cgroups; a worker claims it once.
A *plan* says where the cgroups of one job are; it is plain data that travels to the shim, which
makes them, and into the job's record, so that a later worker finds them again.  A *job cgroup* is
the cgroups of one job: exactly one at a time (the shim, or after its death the worker) changes it.

Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobworker.cgroup.oom import LimitHits
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.usage import Usage


class Mode(enum.Enum):
    """How this host mounts its controllers."""

    UNIFIED = "v2"
    """Everything is in one cgroup2 tree."""
    HYBRID = "hybrid"
    """Limits are in v1 trees, membership (kill, events) in a cgroup2 tree."""
    LEGACY = "v1"
    """v1 trees only: a tree is killed through the freezer."""
    NONE = "none"
    """No tree that this process may write to: nothing is limited, and only its shim can tell the
    members of a job, by descent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlan:
    """Where the cgroups of one job are.  Absolute paths; none need exist yet."""

    mode: Mode
    problem: str = ""
    """none: why."""
    job: str = ""
    """v2 and hybrid: the job's own directory in the cgroup2 tree."""
    members: str = ""
    """v2: the leaf below ``job`` that holds the command's processes; hybrid: ``job`` itself; v1:
    its freezer directory."""
    shim: str = ""
    """v2: the leaf below ``job`` for the shim, whose writes so count against the job's IO."""
    home: str = ""
    """v2: the worker's own cgroup, to which the shim returns before its leaf is removed."""
    controllers: Mapping[str, str] = field(default_factory=dict)
    """v1 and hybrid: controller ("cpu", "memory", …) to directory; mounts that carry two are named
    twice with one directory."""

    def to_json(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "mode": self.mode.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CgroupPlan:
        """The opposite of ``to_json``; raises KeyError, TypeError or ValueError on other data."""
        return cls(**{**data, "mode": Mode(data["mode"]), "controllers": dict(data["controllers"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether this host can hold a job to one kind of limit."""

    is_enforced: bool
    note: str = ""


class JobCgroup(Protocol):
    """The cgroups of one job.  Plain calls: none waits longer than the kernel takes."""

    plan: CgroupPlan

    def create(self) -> None:
        """Make the directories.  Left-overs of the same name are reused.  Raises OSError."""

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> tuple[EffectiveLimit, ...]:
        """Write the limits and read them back; one record for each limit (and device) asked for.

        A limit that the host does not keep is a record with a note, never an exception: refusing is
        the caller's choice.  Also for a running job: only what ``limits`` names is changed.
        """

    def clone_fd(self) -> int | None:
        """A new descriptor of the directory to clone the command into, or None where clone3 cannot.

        The caller closes it.
        """

    def open_joins(self) -> tuple[int, ...]:
        """Descriptors to each of which a fresh single-threaded child writes ``b"0"`` to join.

        Complete where ``clone_fd`` is None; what is left to join where it is not.  The caller
        closes them.
        """

    def join_shim(self) -> None:
        """Move the calling single-threaded shim to where its writes count against the job (v2)."""

    def open_events(self) -> int | None:
        """A descriptor that gets POLLPRI when the members become none, or None where there is none.

        It is armed.  After each wake-up read it anew with ``os.pread`` from its start, which arms
        it again, and only then ask ``is_populated``.
        Source: cgroup-v2.rst, "[Un]populated Notification".  The caller closes it.
        """

    def is_populated(self) -> bool:
        """Is any process of the command left?  False once the cgroup is gone."""

    def kill(self) -> None:
        """SIGKILL every member, also those that are just being forked; no-op on a gone cgroup."""

    def signal(self, number: int) -> int:
        """Send a signal to every member; how many were sent one."""

    def pids(self) -> tuple[int, ...]:
        """Members now, for people; any of them may be gone when this returns."""

    def lift_io_limits(self) -> None:
        """Let what the job wrote go to the disk as fast as that takes it; once it has no members.

        No-op where the job's output is on nobody's account (v1).
        """

    def usage(self) -> Usage:
        """What the job has used; all None once the cgroup is gone."""

    def note_above(self) -> None:
        """Note what is counted above, once the job runs: ``limit_hits`` tells what came later."""

    def limit_hits(self, usage: Usage) -> LimitHits:
        """Which limits the job ran into, by what ``usage`` has counted; before it is removed."""

    def remove(self) -> None:
        """Remove the directories, those below too; no-op where gone.

        On v2 a shim that calls this leaves its leaf first.  Raises OSError: EBUSY if members are
        left, on v2 also if somebody else's shim is still in its leaf.
        """


class Hierarchy(Protocol):
    """The place below which jobs get their cgroups."""

    @property
    def mode(self) -> Mode:
        """How it limits jobs and tells their members."""

    def plan(self, job_id: str) -> CgroupPlan:
        """Where a job of this id has its cgroups."""

    def verdicts(self) -> Mapping[str, Verdict]:
        """By ``Resource`` value (its name in ``Limits``): can this host keep it?"""

    def stray_jobs(self) -> tuple[str, ...]:
        """Ids (directory names) of job cgroups that exist below this hierarchy."""

    def release(self) -> None:
        """Remove the directories made by claiming; leave those in which a job is left."""
