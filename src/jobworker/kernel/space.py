"""Disk space taken ahead, so that what must be written can be written on a full disk.

Source: fallocate(2), FALLOC_FL_KEEP_SIZE: "the file size will not be changed"; ftruncate(2), which
gives back what lies beyond the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import Final

#: <linux/falloc.h>
_KEEP_SIZE: Final = 1
#: File systems that know no reservation (NFS before 4.2, some of FUSE), and kernels without it.
_UNKNOWN: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

_libc = ctypes.PyDLL(None, use_errno=True)


def reserve(file: int, start: int, end: int) -> None:
    """Take the blocks from offset ``start`` to ``end``; nothing of the file's contents changes.

    No-op where the file system can't.  Raises OSError: ENOSPC, EDQUOT.
    """
    length = ctypes.c_longlong(end - start)
    if _libc.fallocate(file, _KEEP_SIZE, ctypes.c_longlong(start), length) != 0:
        number = ctypes.get_errno()
        if number not in _UNKNOWN:
            raise OSError(number, os.strerror(number), "fallocate")


def release(file: int) -> None:
    """Give back what is reserved beyond the end of a file."""
    with contextlib.suppress(OSError):  # only space would be lost by it
        os.ftruncate(file, os.fstat(file).st_size)
