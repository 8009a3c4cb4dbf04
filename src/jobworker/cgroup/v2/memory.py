"""What the cgroup2 tree tells of memory that ran out, at a job's cgroup and above it.

Owns: memory.events and memory.events.local as evidence.  Not the limit's setting (limits.py).
Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files".
"""

# Launchers and shims import this, and pathlib would be half of their start:
# ruff: noqa: PTH120

from __future__ import annotations

import os
from typing import Final

from jobworker.cgroup import directories
from jobworker.cgroup.oom import Level, OutOfMemory, judge
from jobworker.kernel import kernfs
from jobworker.kernel.messages import read_messages

_LOCAL: Final = "memory.events.local"


class Memory:
    """The memory of one job's cgroup."""

    def __init__(self, cgroup: str) -> None:
        self._cgroup = cgroup
        self._noted: dict[str, int] = {}

    def note_above(self) -> None:
        """See ``JobCgroup``.  Levels above the first without the file have none either."""
        path = self._cgroup
        try:
            while True:
                path = os.path.dirname(path)
                events = kernfs.parse_flat(kernfs.read_small(f"{path}/{_LOCAL}"))
                self._noted[path] = events.get("oom", 0)
        except OSError:
            # The root of the tree, or the directory in which it is mounted.
            return

    def out_of_memory(self, kills: int) -> OutOfMemory:
        """Why so many processes were killed."""
        own = _level(self._cgroup)
        above = directories.above(self._cgroup)
        is_whole = _events(self._cgroup, "memory.events").get("oom_group_kill")
        return judge(
            own,
            [_level(path) for path in above],
            noted=self._noted,
            # Only the real root has no type; that of a cgroup name space is a cgroup as any other.
            has_root=bool(above) and not kernfs.has(above[-1], "cgroup.type"),
            messages="" if own.ooms else read_messages(),
            # The victim of a group kill is counted twice (Linux mm/oom_kill.c, oom_kill_process).
            kills=kills if is_whole == 0 else None,  # since Linux 5.17
        )


def _level(cgroup: str) -> Level:
    held = kernfs.read_if_there(cgroup, "memory.max")
    every = _events(cgroup, "memory.events")
    local = _events(cgroup, _LOCAL) or every  # since Linux 5.2
    ooms = local.get("oom", 0)
    return Level(
        path=cgroup,
        limit_bytes=None if held is None else kernfs.parse_amount(held),
        was_reached=bool(local.get("max")),
        ooms=ooms,
        ooms_inside=every.get("oom", 0) - ooms,
    )


def _events(cgroup: str, name: str) -> dict[str, int]:
    return kernfs.parse_flat(kernfs.read_if_there(cgroup, name) or "")
