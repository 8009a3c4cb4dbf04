"""clone3(2): a child that is born inside a cgroup.

Only for a process with one thread and nothing but the standard library loaded, as the shim is: the
raw call runs neither libc's nor Python's fork handlers.  A child that is to live in a v2 cgroup is
best born there: moving it by a write to ``cgroup.procs`` waits for a grace period of the kernel.

Source: clone(2); cgroup-v2.rst, "Migration".
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final

#: <linux/sched.h>
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
#: One number on every architecture since Linux 5.3: <asm-generic/unistd.h>.
_SYS_CLONE3: Final = 435
#: struct clone_args of Linux 5.7 (CLONE_ARGS_SIZE_VER2): flags, pidfd, child_tid, parent_tid,
#: exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
_CLONE_ARGS: Final = struct.Struct("=11Q")

# PyDLL keeps the interpreter's lock across the call, so that the child owns it as its parent did.
_libc = ctypes.PyDLL(None, use_errno=True)


def fork_into(cgroup_fd: int) -> int:
    """Fork into the v2 cgroup of an open directory.  0 in the child, its pid in the parent.

    cgroup_fd: borrowed.  Raises OSError: ENOSYS before Linux 5.7, EBUSY for an inner node, EAGAIN
    at a task limit.
    """
    arguments = _CLONE_ARGS.pack(
        _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd
    )
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    pid: int = _libc.syscall(_SYS_CLONE3, buffer, ctypes.c_size_t(len(arguments)))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "clone3")
    return pid
