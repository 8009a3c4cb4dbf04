"""The processes of a job on a host without cgroups: the descendants of its shim.

A shim is the reaper of all that descends from it, so that nothing leaves it while it lives: what
loses its parent becomes a child of the shim.  Its children are killed; what they leave comes to it
and is killed in the next round, which the supervisor begins at each SIGCHLD.  Not for anybody but
the shim itself.

Weaker than a cgroup in one way: when the shim is killed, only the main process dies with it.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; proc_pid_task(5), children; pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import signal

from jobworker.cgroup.interface import CgroupPlan, JobCgroup
from jobworker.cgroup.job import ComposedJob
from jobworker.cgroup.none import NoLimits
from jobworker.kernel.process import open_pid
from jobworker.model.usage import Pressures


def open_job_without_cgroup(plan: CgroupPlan) -> JobCgroup:
    """As ``open_job``, with members that the shim can tell."""
    return ComposedJob(plan, trees=(), limits=NoLimits(plan), members=Descendants())


class Descendants:
    """All processes below this one; the calls of a ``JobCgroup``'s members."""

    def open_events(self) -> int | None:
        """SIGCHLD is what tells."""
        return None

    def is_populated(self) -> bool:
        """Has the shim any child?  Dead ones that nobody waited for count."""
        return bool(_children(os.getpid()))

    def kill(self) -> None:
        """One round: the children, which keep their numbers until this process waits for them."""
        for pid in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal(self, number: int) -> int:
        """Send a signal to each process of the tree; how many got it."""
        held = {pid: pidfd for pid in self.pids() if (pidfd := open_pid(pid)) is not None}
        try:
            # Listed again once they are held: a number that is still there is that process's.
            members = set(self.pids())
            return sum(_send(pidfd, number) for pid, pidfd in held.items() if pid in members)
        finally:
            for pidfd in held.values():
                os.close(pidfd)

    def pids(self) -> tuple[int, ...]:
        """The whole tree, parents first."""
        found = _children(os.getpid())
        for pid in found:
            found += [child for child in _children(pid) if child not in found]
        return tuple(found)

    def pressures(self) -> Pressures:
        """Nobody keeps any."""
        return {}


def _children(pid: int) -> list[int]:
    """Of all threads of a process; none if it is gone."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - pathlib is large for a shim
            fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
            with open(fd, "rb") as file:  # noqa: PTH123 - see above
                found += map(int, file.read().split())
    return found


def _send(pidfd: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
