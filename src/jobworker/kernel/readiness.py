"""Waiting for files: inotify, which Python lacks, and POLLPRI, which asyncio can't ask for.

Source: inotify(7); epoll(7); cgroup-v2.rst, "[Un]populated Notification".
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from typing import Final

#: <sys/inotify.h>
IN_MODIFY: Final = 0x2
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
_EVENT: Final = struct.Struct("iIII")
#: Room for many events in one read; an event without a name takes 16 bytes.
_READ_BYTES: Final = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance; the kernel allows a user only some 128 of them, so share it."""

    def __init__(self) -> None:
        fd: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            raise _last_error("inotify_init1")
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def watch(self, path: Path, mask: int) -> int:
        """Watch a file; returns the number that its events carry.  Raises OSError."""
        number: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if number < 0:
            raise _last_error(str(path))
        return number

    def unwatch(self, number: int) -> None:
        """Stop watching; no-op if the file is gone, which ended the watch by itself."""
        _libc.inotify_rm_watch(self._fd, number)

    def read(self) -> list[tuple[int, int]]:
        """(watch, mask) of what happened since the last call; never waits."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            number, mask, _, name_bytes = _EVENT.unpack_from(data, offset)
            events.append((number, mask))
            offset += _EVENT.size + name_bytes
        return events


def open_priority_poll(control_file: int) -> select.epoll:
    """An epoll descriptor that is readable while ``control_file`` has POLLPRI.

    For nesting in asyncio, which can only ask for readable and writable.  The caller closes it; it
    borrows ``control_file``.
    """
    epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
    try:
        epoll.register(control_file, select.EPOLLPRI)
    except BaseException:
        epoll.close()
        raise
    return epoll


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
