"""The lock of starts: who has it knows that no start of an earlier worker is still under way.

A launcher inherits it, as do the shims until their start is settled; so no more is added to the
records in the state directory.

Source: flock(2): the lock is that of the open file, shared by every process that inherited it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import Final

from jobworker.errors import UnavailableError

#: Starts are settled in milliseconds; a file system that hangs can make them slow.
_TIMEOUT_S: Final = 30.0


async def lock_settled(file: Path) -> int:
    """The lock, once every earlier start is settled; the caller closes it.

    Raises UnavailableError if that takes too long.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await _wait(file, fd)
        undo.pop_all()
    return fd


async def _wait(file: Path, fd: int) -> None:
    """Lock an open file; borrowed: who gives up waiting may close it at once."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    # A thread of its own, which nobody waits for at exit: the call can't be interrupted.  With a
    # descriptor of its own, so that it needs to know of nobody who gives up: the lock goes with its
    # last descriptor.
    arguments = (os.dup(fd), loop, done)
    threading.Thread(target=_lock, args=arguments, name="starting-lock", daemon=True).start()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await done
    except TimeoutError as error:
        why = f"starts of an earlier run still hold {file}"
        raise UnavailableError("start jobs", why) from error


def _lock(fd: int, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    """fd: taken."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_finish, done)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
