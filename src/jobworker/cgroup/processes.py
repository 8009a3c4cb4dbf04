"""The processes listed by a control group: told, and signalled without hitting a stranger.

Owns: cgroup.procs of either version as a list.  Not the joining of a cgroup.
Source: pidfd_open(2), cgroups(7).
"""

from __future__ import annotations

import os
import signal
from itertools import islice
from typing import Final

from jobworker.cgroup import directories
from jobworker.kernel import kernfs
from jobworker.kernel.process import open_pid

#: Processes that are held by a descriptor at a time: well below the usual 1024 of a process.
_BATCH: Final = 256


def listed(cgroup: str) -> tuple[int, ...]:
    """Process ids in a cgroup and all below it; none where it is gone."""
    found: set[int] = set()
    for directory in directories.walk(cgroup):
        text = kernfs.read_if_there(directory, "cgroup.procs") or ""
        # 0 stands for a process that has no number in our pid name space: nothing to signal.
        found.update(pid for pid in map(int, text.split()) if pid > 0)
    return tuple(sorted(found))


def signal_all(cgroup: str, number: int) -> int:
    """Send a signal to each process in a cgroup and below; how many got it.

    Those that are forked meanwhile may be missed.
    """
    pids = iter(listed(cgroup))
    sent = 0
    while batch := tuple(islice(pids, _BATCH)):
        sent += _signal_batch(cgroup, batch, number)
    return sent


def _signal_batch(cgroup: str, pids: tuple[int, ...], number: int) -> int:
    """A pid may pass to a stranger between the listing and the signal, a pidfd may not.

    So the processes are held first and the cgroup is listed once more: a pid that is still there
    belongs to the process that is held, or that one is gone and gets nothing.
    """
    held: dict[int, int] = {}
    try:
        for pid in pids:
            fd = open_pid(pid)
            if fd is not None:
                held[pid] = fd
        members = set(listed(cgroup))
        return sum(_send(fd, number) for pid, fd in held.items() if pid in members)
    finally:
        for fd in held.values():
            os.close(fd)


def _send(pidfd: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
