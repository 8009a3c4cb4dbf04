"""Namespaces and mounts: the calls that Python lacks.

Each acts on the calling process, which is alone in its namespaces.  Needs CAP_SYS_ADMIN.

Source: mount(2), mount_setattr(2) (Linux 5.12), open_tree(2) and move_mount(2) (5.2),
namespaces(7), netdevice(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import Final

#: <linux/sched.h>
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

#: <linux/mount.h>
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MOUNT_ATTR_RDONLY: Final = 0x1
_OPEN_TREE_CLONE: Final = 0x1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
#: One number on every architecture: <asm-generic/unistd.h>.
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_MOUNT_SETATTR: Final = 442

#: <linux/sockios.h>, <linux/if.h>
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1

_libc = ctypes.PyDLL(None, use_errno=True)


def leave_mount_propagation() -> None:
    """From here on mounts made in this namespace are not seen in others, nor the other way."""
    _mount(b"none", "/", None, _MS_REC | _MS_PRIVATE)


def mount_file_system(kind: str, target: str, flags: int, options: str = "") -> None:
    """A fresh one, such as ``tmpfs`` or ``proc``."""
    _mount(kind.encode(), target, kind.encode(), flags, options.encode())


def make_all_read_only() -> None:
    """Every mount of this namespace.  Device files can be written to all the same."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, buffer, ctypes.c_size_t(len(attributes))
    )
    _check(result, "mount_setattr", "/")


def open_subtree(path: str) -> int:
    """A mount of its own of the directory, attached nowhere; the caller closes it."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    result: int = _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    return _check(result, "open_tree", path)


def attach_subtree(subtree: int, path: str) -> None:
    """Make what ``open_subtree`` gave appear at a directory; borrowed."""
    result: int = _libc.syscall(
        _SYS_MOVE_MOUNT, subtree, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH
    )
    _check(result, "move_mount", path)


def start_loopback() -> None:
    """A new network namespace has an ``lo`` that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        # struct ifreq: name of 16 bytes, then the flags.
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _mount(
    source: bytes, target: str, kind: bytes | None, flags: int, options: bytes = b""
) -> None:
    result: int = _libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), options)
    _check(result, "mount", target)


def _check(result: int, call: str, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)
    return result
