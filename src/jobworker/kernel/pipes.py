"""Pipes: made for a job, moved into files by splice(2).

Owns the flags and sizes; who closes which end is said at each function.
Source: pipe(7), splice(2), fcntl(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

#: The kernel's default bound for one pipe of an unprivileged process, /proc/sys/fs/pipe-max-size.
PIPE_BYTES: Final = 1024 * 1024
#: The most that one splice moves: all that such a pipe can hold.
SPLICE_BYTES_MAX: Final = PIPE_BYTES


def open_output_pipe() -> tuple[int, int]:
    """A pipe for a job's output: (read end, write end); the caller closes both.

    The read end does not block; the write end does.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    return read_end, write_end


def give_pipe(pipe: int, uid: int, gid: int) -> None:
    """Let a pipe belong to the job's user; no-op where this process may not.

    The owner matters: ``echo oops > /dev/stderr`` opens the pipe anew by its path below /proc, and
    the permission that counts is that of the pipe.

    pipe: either end; borrowed.  Raises OSError.
    """
    if os.geteuid() == 0:
        os.fchown(pipe, uid, gid)


def grow_pipe(pipe: int) -> bool:
    """Make the pipe as large as it may be; True if it is.

    Left at its 64 KiB until a job writes much: pages are charged to the user who made the pipe, and
    beyond a soft bound (/proc/sys/fs/pipe-user-pages-soft) new pipes are made small.
    """
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES
    return False


def capacity(pipe: int) -> int:
    """The most bytes that the pipe can hold."""
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def move(pipe: int, file: int, offset: int, most: int) -> int:
    """Move up to ``most`` bytes from a pipe into a file at ``offset``; 0 means end of file.

    Raises BlockingIOError when the pipe is empty but open, OSError (ENOSPC, EDQUOT, EIO …) when the
    file takes nothing; bytes not moved are still in the pipe.
    """
    return os.splice(pipe, file, most, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)


def discard(pipe: int, null: int, most: int) -> int:
    """Throw away up to ``most`` bytes of a pipe; 0 means end of file.

    null: a descriptor of /dev/null.  Raises BlockingIOError when the pipe is empty but open.
    """
    return os.splice(pipe, null, most, flags=os.SPLICE_F_NONBLOCK)
