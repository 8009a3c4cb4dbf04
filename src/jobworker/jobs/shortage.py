"""Doing again what the kernel refuses for want of something: descriptors, memory, epoll watches.

Such trouble passes, and says nothing about the job that it is met at.

Source: open(2), pidfd_open(2) and epoll_ctl(2), "Errors".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from jobworker.errors import errno_text
from jobworker.model.ids import JobId

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Long enough to cost nothing, short against what a person waits for.
_PAUSE_S: Final = 0.5
#: Of this process, of the machine, of the kernel's memory.
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_shortage(error: Exception) -> bool:
    """Is the file that could not be opened or read as good as ever?"""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


async def insist(attempt: Callable[[], Awaitable[T]], job_id: JobId) -> T:
    """What an attempt comes to, once no OSError comes of it any more."""
    is_told = False
    while True:
        try:
            return await attempt()
        except OSError as error:
            if not is_told:
                reason = errno_text(error.errno or 0)
                logger.warning(
                    "cannot look after a job for now", extra={"job_id": job_id, "reason": reason}
                )
                is_told = True
        # Nothing announces that there are descriptors again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_S):
                await asyncio.Event().wait()
