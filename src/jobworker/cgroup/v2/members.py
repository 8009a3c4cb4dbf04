"""Members of a v2 cgroup: list, signal, kill, tell when none is left and how long they waited.

Owns: cgroup.kill, cgroup.events, cgroup.freeze.  Not creation (tree.py), not limits (limits.py).
Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files".
"""

from __future__ import annotations

import os
import signal
from typing import Final

from jobworker.cgroup import processes
from jobworker.cgroup.v2.pressure import read_pressures
from jobworker.kernel import kernfs
from jobworker.model.usage import Pressures

_KILL: Final = "cgroup.kill"

#: A process in an uninterruptible wait stays listed for as long as the device takes: it has its
#: signal, and more rounds would not hasten it.
_ROUNDS_MAX: Final = 64


class Members:
    """The processes in one cgroup and below."""

    def __init__(self, cgroup: str) -> None:
        self._cgroup = cgroup

    def open_events(self) -> int | None:
        """See ``JobCgroup``."""
        try:
            fd = os.open(f"{self._cgroup}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # gone: there is nothing to wait for
        # A descriptor that was never read is announced at once (Linux fs/kernfs/file.c,
        # kernfs_generic_poll): reading it here leaves only what changes from now on.
        kernfs.reread(fd)
        return fd

    def is_populated(self) -> bool:
        """See ``JobCgroup``."""
        events = kernfs.read_if_there(self._cgroup, "cgroup.events")
        return events is not None and kernfs.parse_flat(events).get("populated") == 1

    def kill(self) -> None:
        """See ``JobCgroup``."""
        try:
            kernfs.write(self._cgroup, _KILL, "1")
        except kernfs.CgroupGoneError:
            return
        except kernfs.ControlFileMissingError:
            self.kill_frozen()

    def kill_frozen(self) -> None:
        """Kill on Linux before 5.14: what is frozen cannot fork away from the signal.

        A frozen process dies of SIGKILL at once, without being thawed ("cgroup.freeze").
        """
        kernfs.write(self._cgroup, "cgroup.freeze", "1")
        try:
            # A process that was just being forked is listed only in a later round.
            for _ in range(_ROUNDS_MAX):
                if not processes.signal_all(self._cgroup, signal.SIGKILL):
                    break
                os.sched_yield()
        finally:
            kernfs.write(self._cgroup, "cgroup.freeze", "0")

    def signal(self, number: int) -> int:
        """See ``JobCgroup``."""
        return processes.signal_all(self._cgroup, number)

    def pids(self) -> tuple[int, ...]:
        """See ``JobCgroup``."""
        return processes.listed(self._cgroup)

    def pressures(self) -> Pressures:
        """How long they waited."""
        return read_pressures(self._cgroup)
