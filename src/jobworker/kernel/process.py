"""Which process is meant: a pid alone does not say, since the kernel gives it out again.

A process is named by boot, pid and start time; a pidfd made from such a name refers to that process
or is not made at all.

Source: proc_pid_stat(5), fields 3 and 22; pidfd_open(2); random(4), boot_id.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
from dataclasses import dataclass
from typing import Final

#: One line; its 52 numbers and a name of at most 64 bytes take less.
_PROC_FILE_BYTES: Final = 4096


#: Zombie and dead: it has ended, though nobody may ever have waited for it.
_DEAD: Final = frozenset({b"Z", b"X"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessName:
    """One process for all time."""

    pid: int
    start_ticks: int
    """Clock ticks from boot to its start."""
    boot_id: str


@functools.cache
def read_boot_id() -> str:
    """Differs after every boot of the machine."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def name_process(pid: int) -> ProcessName:
    """The lasting name of a process that lives.  Raises ProcessLookupError if there is none."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    # The command stands in parentheses and may contain spaces and parentheses itself.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in _DEAD:
        raise ProcessLookupError(pid)
    return ProcessName(pid=pid, start_ticks=int(fields[19]), boot_id=read_boot_id())


def set_oom_score(score: int) -> None:
    """How soon the kernel takes this process when memory runs out.

    Raises OSError: EACCES without CAP_SYS_RESOURCE for less than somebody who had that gave it, or
    those above it.  Source: proc_pid_oom_score_adj(5).
    """
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % score)
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    # Not by pathlib and file objects: every page of code that a fresh shim runs becomes its own.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _PROC_FILE_BYTES)
    finally:
        os.close(fd)


def open_pid(pid: int) -> int | None:
    """A pidfd of the process that has this number now, or None.  The caller closes it."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        # EINVAL: it is just being reaped, or what is left of it is not the leader of its threads.
        if error.errno == errno.EINVAL:
            return None
        raise


def open_process(name: ProcessName) -> int | None:
    """A pidfd of exactly that process, or None if it is gone.  The caller closes it."""
    pidfd = open_pid(name.pid)
    if pidfd is None:
        return None
    try:
        # Checked after the descriptor is held: from here on it can't become another process.
        if name_process(name.pid) == name:
            return pidfd
    except ProcessLookupError:
        pass
    except BaseException:
        os.close(pidfd)
        raise
    os.close(pidfd)
    return None


def send_signal(pidfd: int, number: signal.Signals) -> None:
    """Send a signal to the process of a pidfd; no-op if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
