"""Isolation: the namespaces of a job, and the init that is PID 1 in them.

The starting process clones straight into new namespaces.  What it clones arranges the mounts, waits
until the shim has reaped the starting process, forks the command, and stays as the init: it waits
for every orphan, and when the command has ended tells its status through a pipe and exits, upon
which the kernel kills whatever else lives in the namespace.

Signals need no forwarding: a stop is sent to every member of the cgroup, the command among them,
and the kernel keeps those that an init does not handle away from it.

Source: pid_namespaces(7), "The namespace init process"; mount_namespaces(7).
"""

# Launchers and shims import this, and pathlib would be half of their start:
# ruff: noqa: PTH103, PTH112
from __future__ import annotations

import os
import socket
import struct
from typing import Final, NoReturn

from jobworker.kernel import namespaces
from jobworker.kernel.descriptors import close_from
from jobworker.model.spec import Isolation
from jobworker.shim.order import Order

_STATUS: Final = struct.Struct("=i")
#: Where the init keeps the pipe for it, and nothing else.
_STATUS_FD: Final = 3

#: Each job's own and empty; they count against its memory.
_PRIVATE_DIRECTORIES: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - they are replaced


def clone_flags(isolation: Isolation) -> int:
    """For the clone that makes the init; 0 where there is none."""
    if isolation is Isolation.NONE:
        return 0
    flags = (
        namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWPID
        | namespaces.CLONE_NEWIPC
        | namespaces.CLONE_NEWUTS
    )
    return flags | (namespaces.CLONE_NEWNET if isolation is Isolation.OFFLINE else 0)


def arrange_namespaces(order: Order) -> None:
    """In the new namespaces, before the command: what it will see.  Raises OSError.

    Everything is read-only but its scratch directory and fresh ``/tmp``, ``/var/tmp`` and
    ``/dev/shm``; ``/proc`` shows its own processes only.
    """
    namespaces.leave_mount_propagation()
    scratch = namespaces.open_subtree(order.scratch)
    try:
        namespaces.make_all_read_only()
        flags = namespaces.MS_NOSUID | namespaces.MS_NODEV
        for directory in _PRIVATE_DIRECTORIES:
            if os.path.isdir(directory):
                namespaces.mount_file_system("tmpfs", directory, flags, "mode=1777")
        # It may have been below one of them.
        os.makedirs(order.scratch, mode=0o711, exist_ok=True)
        namespaces.attach_subtree(scratch, order.scratch)
    finally:
        os.close(scratch)
    namespaces.mount_file_system("proc", "/proc", flags | namespaces.MS_NOEXEC)
    socket.sethostname(f"job-{order.job_id}")
    if order.isolation is Isolation.OFFLINE:
        namespaces.start_loopback()


def be_init(command_pid: int, status: int) -> NoReturn:
    """Wait for everybody until the command has ended; tell its wait status and exit.

    status: write end of a pipe; every other descriptor is closed, or the command's output would not
    come to its end of file.
    """
    os.dup2(status, _STATUS_FD, inheritable=False)
    close_from(_STATUS_FD + 1)
    os.closerange(0, _STATUS_FD)
    while True:
        pid, wait_status = os.wait()
        if pid == command_pid:
            os.write(_STATUS_FD, _STATUS.pack(wait_status))
            os._exit(0)


def read_status(pipe: int) -> int | None:
    """The command's wait status once the init has ended; None if the init was killed.

    pipe: read end; borrowed.
    """
    data = os.read(pipe, _STATUS.size)
    return _STATUS.unpack(data)[0] if len(data) == _STATUS.size else None
