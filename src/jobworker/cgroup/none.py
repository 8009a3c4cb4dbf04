"""A host without a cgroup that we may write to: nothing is limited, counted or told.

Membership can't be had from outside either: a session or a process group is left by anyone who
likes (setsid), and descent is lost with the death of a parent.  So this says that there are no
members.  The shim, to which what loses its parent comes, tells its descendants itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from jobworker.cgroup.interface import CgroupPlan
from jobworker.cgroup.oom import LimitHits
from jobworker.cgroup.proof import unenforced
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import EffectiveLimit, Limits, Resource
from jobworker.model.usage import Pressures, Usage

NO_CGROUP: Final = "no cgroup on this host may be written to"


class NoLimits:
    """Nothing is limited."""

    def __init__(self, plan: CgroupPlan) -> None:
        self._why = plan.problem or NO_CGROUP

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> Iterator[EffectiveLimit]:
        """One record for each limit that is not kept."""
        del devices
        for resource in Resource:
            requested = limits.get(resource)
            if requested is not None:
                yield unenforced(resource, requested, self._why)

    def lift_io_limits(self) -> None:
        """There is none."""

    def usage(self) -> Usage:
        """Nothing is counted."""
        return Usage()

    def note_above(self) -> None:
        """Nothing is above."""

    def limit_hits(self, usage: Usage) -> LimitHits:
        """There is no limit to run into."""
        del usage
        return LimitHits()


class NoMembers:
    """Nobody is known."""

    def open_events(self) -> int | None:
        """There is nothing to wait for."""
        return None

    def is_populated(self) -> bool:
        """Unknown; "no" lets a job end with its main process."""
        return False

    def kill(self) -> None:
        """Nobody can be reached."""

    def signal(self, number: int) -> int:
        """Nobody can be reached."""
        del number
        return 0

    def pids(self) -> tuple[int, ...]:
        """Nobody is known."""
        return ()

    def pressures(self) -> Pressures:
        """Nobody keeps any."""
        return {}
