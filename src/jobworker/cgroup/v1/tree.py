"""Directories of jobs in the v1 trees, one for each tree that has a controller of ours.

Owns: where they are, and memory.use_hierarchy.  Not limits (limits.py), not members (members.py).
Source: Linux Documentation/admin-guide/cgroup-v1/cgroups.rst and memory.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobworker.cgroup import directories
from jobworker.cgroup.interface import CgroupPlan
from jobworker.cgroup.location import Location
from jobworker.kernel import kernfs

#: What jobs are limited and counted by.
CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "blkio", "pids")
#: Where there is no cgroup2 tree, membership is that of this tree.
FREEZER: Final = "freezer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What came of claiming a place in each tree."""

    directories: Mapping[str, str]
    """By controller: below it jobs get their cgroups."""
    made: tuple[str, ...]
    """Directories that were not there before, outermost first."""
    problems: Mapping[str, str]
    """By controller without a directory: why."""


def claim(
    locations: Mapping[str, Location], name: str, parent: str | None, controllers: tuple[str, ...]
) -> Claim:
    """Make the directory for jobs in the tree of each controller; never raises OSError."""
    found: dict[str, str] = {}
    made: list[str] = []
    problems: dict[str, str] = {}
    for controller in controllers:
        location = locations.get(controller)
        if location is None:
            problems[controller] = f"no cgroup v1 tree with controller {controller} is mounted here"
            continue
        directory = f"{location.base(parent)}/{name}"
        try:
            made += directories.make_all(directory)
            if controller == "memory":
                _count_hierarchically(directory)
        except OSError as error:
            problems[controller] = str(error)
        else:
            found[controller] = directory
    return Claim(directories=found, made=tuple(made), problems=problems)


def _count_hierarchically(directory: str) -> None:
    """Without it a job's own sub-cgroups would escape its limit (always so since Linux 5.11)."""
    if kernfs.read_if_there(directory, "memory.use_hierarchy") == "0":
        kernfs.write(directory, "memory.use_hierarchy", "1")


class JobTrees:
    """The directories of one job in all v1 trees."""

    def __init__(self, plan: CgroupPlan) -> None:
        # Controllers that are mounted together share a directory.
        self._directories = tuple(dict.fromkeys(plan.controllers.values()))

    def create(self) -> None:
        """Make them."""
        for directory in self._directories:
            directories.make(directory)

    def clone_fd(self) -> int | None:
        """clone3 takes cgroup2 directories only."""
        return None

    def join_files(self) -> tuple[str, ...]:
        """The files to join through.

        ``tasks`` and not ``cgroup.procs``: moving one thread, itself, takes no lock over the
        threads of its process, for which the kernel would first have to wait out a grace period
        (measured: 0.2 ms against 12 ms for four trees).  With one thread both mean the same.
        """
        return tuple(f"{directory}/tasks" for directory in self._directories)

    def join_shim(self) -> None:
        """The shim stays outside: v1 does not charge a write to who made it, but to who flushes."""

    def remove(self) -> None:
        """Remove them."""
        for directory in self._directories:
            directories.remove(directory)
