"""Members of a v1 freezer cgroup: list, signal, kill.

Owns: freezer.state.  v1 tells nobody when the last member is gone.
Source: Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from jobworker.cgroup import processes
from jobworker.kernel import kernfs
from jobworker.model.usage import Pressures

_STATE: Final = "freezer.state"

#: A process in an uninterruptible wait keeps its cgroup in FREEZING for as long as the device
#: takes.  It gets its signal in the first round; more rounds are for what others fork meanwhile.
_ROUNDS_MAX: Final = 64


class Members:
    """The processes in one freezer cgroup and below."""

    def __init__(self, cgroup: str) -> None:
        self._cgroup = cgroup

    def open_events(self) -> int | None:
        """There is nothing to wait for."""
        return None

    def is_populated(self) -> bool:
        """See ``JobCgroup``."""
        return bool(processes.listed(self._cgroup))

    def kill(self) -> None:
        """See ``JobCgroup``.  What is frozen cannot fork away from the signal."""
        try:
            self._signal_frozen()
        except kernfs.CgroupGoneError:
            return
        finally:
            # Also when interrupted: signals take effect only after the thaw.
            self._thaw()

    def _signal_frozen(self) -> None:
        kernfs.write(self._cgroup, _STATE, "FROZEN")
        for _ in range(_ROUNDS_MAX):
            # Asked before the listing: nothing is forked any more once it says so.
            is_frozen = kernfs.read(self._cgroup, _STATE) == "FROZEN"
            processes.signal_all(self._cgroup, signal.SIGKILL)
            if is_frozen:
                return
            os.sched_yield()

    def _thaw(self) -> None:
        try:
            kernfs.write(self._cgroup, _STATE, "THAWED")
        except kernfs.CgroupGoneError:
            return

    def signal(self, number: int) -> int:
        """See ``JobCgroup``."""
        return processes.signal_all(self._cgroup, number)

    def pids(self) -> tuple[int, ...]:
        """See ``JobCgroup``."""
        return processes.listed(self._cgroup)

    def pressures(self) -> Pressures:
        """A v1 tree keeps none."""
        return {}
