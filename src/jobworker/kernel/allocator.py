"""How glibc's malloc(3) treats the memory of large messages.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

#: <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Several times the largest message that is common, and what is kept of freed ones.
_MMAP_BYTES: Final = 4 * 1024 * 1024
_TRIM_BYTES: Final = 16 * 1024 * 1024


def keep_freed_blocks() -> None:
    """Give blocks of some 100 KiB that are made and freed all the time no new pages each time.

    By default glibc hands such a block back to the kernel as soon as it is freed at the end of the
    heap, and then each of its pages is cleared and faulted in again; whether it stands there is a
    matter of luck.  No-op with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
