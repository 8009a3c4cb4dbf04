"""Closing whatever descriptors a process has, known or not.

Source: close_range(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

#: One number on every architecture, since Linux 5.9.
_SYS_CLOSE_RANGE: Final = 436
_LAST: Final = ctypes.c_uint(0xFFFF_FFFF)

_libc = ctypes.PyDLL(None, use_errno=True)


def close_from(first: int) -> None:
    """Close ``first`` and all above it."""
    if _libc.syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first), _LAST, ctypes.c_uint(0)) == 0:
        return
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib is large for a shim
        if int(name) >= first:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone already
                os.close(int(name))
