"""The cgroups of one job, put together from a way to limit and a way to know the members.

Owns: what the two have in common, and the order of things.  Which ones go together is decided in
choose.py: limits and membership are separate questions, and a hybrid host answers one with v1 and
the other with v2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from jobworker.cgroup.interface import CgroupPlan
from jobworker.cgroup.oom import LimitHits
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.usage import Pressures, Usage


class Tree(Protocol):
    """Directories of one job, and the ways into them."""

    def create(self) -> None: ...
    def clone_fd(self) -> int | None: ...
    def join_files(self) -> tuple[str, ...]: ...
    def join_shim(self) -> None: ...
    def remove(self) -> None: ...


class JobLimits(Protocol):
    """Limits and counters of one job."""

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> Iterable[EffectiveLimit]: ...
    def lift_io_limits(self) -> None: ...
    def usage(self) -> Usage: ...
    def note_above(self) -> None: ...
    def limit_hits(self, usage: Usage) -> LimitHits: ...


class Members(Protocol):
    """Processes of one job."""

    def open_events(self) -> int | None: ...
    def is_populated(self) -> bool: ...
    def kill(self) -> None: ...
    def signal(self, number: int) -> int: ...
    def pids(self) -> tuple[int, ...]: ...
    def pressures(self) -> Pressures: ...


class ComposedJob:
    """A ``JobCgroup``; each method is documented there."""

    def __init__(
        self, plan: CgroupPlan, *, trees: Sequence[Tree], limits: JobLimits, members: Members
    ) -> None:
        self.plan = plan
        self._trees = trees
        self._limits = limits
        self._members = members

    def create(self) -> None:
        for tree in self._trees:
            tree.create()

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> tuple[EffectiveLimit, ...]:
        return tuple(self._limits.set_limits(limits, devices))

    def clone_fd(self) -> int | None:
        return _first(tree.clone_fd for tree in self._trees)

    def open_joins(self) -> tuple[int, ...]:
        opened: list[int] = []
        try:
            for tree in self._trees:
                for path in tree.join_files():
                    opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401 - so that a failure can close the earlier ones
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return tuple(opened)

    def join_shim(self) -> None:
        for tree in self._trees:
            tree.join_shim()

    def open_events(self) -> int | None:
        return self._members.open_events()

    def is_populated(self) -> bool:
        return self._members.is_populated()

    def kill(self) -> None:
        self._members.kill()

    def signal(self, number: int) -> int:
        return self._members.signal(number)

    def pids(self) -> tuple[int, ...]:
        return self._members.pids()

    def lift_io_limits(self) -> None:
        # Where that cannot be done the ending comes later.
        with contextlib.suppress(OSError):
            self._limits.lift_io_limits()

    def usage(self) -> Usage:
        return dataclasses.replace(self._limits.usage(), **self._members.pressures())

    def note_above(self) -> None:
        self._limits.note_above()

    def limit_hits(self, usage: Usage) -> LimitHits:
        try:
            return self._limits.limit_hits(usage)
        except OSError:
            # Somebody removed the cgroup: an ending with less evidence is better than none.
            return LimitHits()

    def remove(self) -> None:
        for tree in self._trees:
            tree.remove()


def _first(openings: Iterable[Callable[[], int | None]]) -> int | None:
    for opening in openings:
        fd = opening()
        if fd is not None:
            return fd
    return None
