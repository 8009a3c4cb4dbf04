"""clone3(2): a process that is born inside a cgroup, as its maker's child or its sibling.

Only for a process with one thread and nothing but the standard library loaded, as the shim is: the
raw call runs neither libc's nor Python's fork handlers.  A child that is to live in a v2 cgroup is
best born there: moving it by a write to ``cgroup.procs`` waits for a grace period of the kernel.

Source: clone(2); cgroup-v2.rst, "Migration".
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import signal
import struct
from typing import Final

#: <linux/sched.h>
_CLONE_PARENT: Final = 0x8000
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
#: One number on every architecture since Linux 5.3: <asm-generic/unistd.h>.
_SYS_CLONE3: Final = 435
#: struct clone_args of Linux 5.7 (CLONE_ARGS_SIZE_VER2): flags, pidfd, child_tid, parent_tid,
#: exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
_CLONE_ARGS: Final = struct.Struct("=11Q")

# PyDLL keeps the interpreter's lock across the call, so that the child owns it as its parent did.
_libc = ctypes.PyDLL(None, use_errno=True)


@functools.cache
def is_allowed() -> bool:
    """May this process make the call at all?

    Container runtimes forbid it to what they run, by a seccomp filter that says one or the other.
    """
    # Without arguments there is nothing to do but to say that this is invalid.
    _libc.syscall(_SYS_CLONE3, None, ctypes.c_size_t(0))
    return ctypes.get_errno() not in {errno.ENOSYS, errno.EPERM}


def fork_sibling(namespaces: int) -> int:
    """Fork a child of one's own parent: 0 in the child, its pid in the caller.

    The parent is told of its end by SIGCHLD and waits for it.

    namespaces: CLONE_NEW… flags of those that it gets anew.  Raises OSError: EAGAIN at a task
    limit, EPERM without CAP_SYS_ADMIN for a namespace.
    """
    # No exit signal here: with CLONE_PARENT the child has that of the caller.
    return _clone(_CLONE_PARENT | namespaces, None, exit_signal=0)


def fork_into(cgroup_fd: int) -> int:
    """As os.fork, into the v2 cgroup of an open directory, which is borrowed.

    Raises OSError: ENOSYS before Linux 5.7, EBUSY for an inner node.
    """
    return _clone(0, cgroup_fd, exit_signal=int(signal.SIGCHLD))


def _clone(flags: int, cgroup_fd: int | None, *, exit_signal: int) -> int:
    if cgroup_fd is not None:
        flags |= _CLONE_INTO_CGROUP
    arguments = _CLONE_ARGS.pack(flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    pid: int = _libc.syscall(_SYS_CLONE3, buffer, ctypes.c_size_t(len(arguments)))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid
