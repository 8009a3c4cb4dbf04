"""Noticing that the trust files have changed, so that a revocation ends streams that are open.

Owns: the wait.  Not what the files mean (trust.py), not what follows from a change.

The directories are watched and not the files, which are replaced and not written; and the
directories above them, since a whole directory may be replaced as well.

Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from jobworker.kernel.readiness import Inotify
from jobworker.security.trust import TrustStore

#: <sys/inotify.h>
_IN_ATTRIB: Final = 0x4
_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_APPEARED: Final = _IN_CREATE | _IN_MOVED_TO
_CHANGED: Final = _APPEARED | _IN_CLOSE_WRITE | _IN_DELETE | _IN_ATTRIB


async def watch_trust(
    trust: TrustStore, *, changed: asyncio.Event | None = None
) -> AsyncGenerator[int, None]:
    """Keep the store up to date; yields its new generation after each change that took effect.

    changed: whoever sets it makes this look at the files at once.
    Only one task may do so.  Runs until it is cancelled or closed (``contextlib.aclosing``).
    """
    changed = changed or asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.closing(_Watches(trust)) as watches:

        def wake() -> None:
            watches.drain()
            changed.set()

        loop.add_reader(watches.fileno(), wake)
        try:
            while True:
                # Cleared and watched before the look: what changes after it wakes us again.
                changed.clear()
                watches.renew()
                if await asyncio.to_thread(trust.reload):
                    yield trust.generation
                await changed.wait()
        finally:
            loop.remove_reader(watches.fileno())


class _Watches:
    """One inotify instance on the directories of both files."""

    def __init__(self, trust: TrustStore) -> None:
        folders = {trust.ca_file.absolute().parent, trust.crl_file.absolute().parent}
        self._masks = dict.fromkeys((folder.parent for folder in folders), _APPEARED)
        self._masks |= dict.fromkeys(folders, _CHANGED)
        self._numbers: dict[Path, int] = {}
        self._inotify = Inotify()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()

    def drain(self) -> None:
        """Take what has happened; what it was does not matter."""
        while self._inotify.read():
            pass

    def renew(self) -> None:
        """Watch what has these names now; a directory that is gone is announced when it is back."""
        for folder, mask in self._masks.items():
            try:
                number = self._inotify.watch(folder, mask)
            except OSError:
                continue
            old = self._numbers.get(folder)
            if old is not None and old != number:
                self._inotify.unwatch(old)
            self._numbers[folder] = number
