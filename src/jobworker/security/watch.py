"""Noticing that the trust files have changed, so that a revocation ends streams that are open.

Owns: the wait.  Not what the files mean (trust.py), not what follows from a change.

The directories are watched and not the files, which are replaced and not written; and the
directories above them, since a whole directory may be replaced as well.  A name may be a link, or
lead through some: configuration management and Kubernetes replace links.  So the directories are
those in which the files really are, and those of all links on the way.

The kernel does not tell of everything: not of what another host does to a network file system, nor
of a file that is written by another name.  So the files are looked at from time to time besides.

Source: inotify(7), "Limitations and caveats"; path_resolution(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping
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
#: The kernel follows no more of them for one name: path_resolution(7).
_LINKS_MAX: Final = 40
#: The longest that a change goes unnoticed of which the kernel does not tell.  A look takes a
#: fraction of a millisecond.
LOOK_EVERY_S: Final = 30.0


async def watch_trust(
    trust: TrustStore,
    *,
    changed: asyncio.Event | None = None,
    look_every_s: float = LOOK_EVERY_S,
) -> AsyncGenerator[int, None]:
    """Keep the store up to date; yields its new generation after each change that took effect.

    changed: whoever sets it makes this look at the files at once.
    Only one task may do so.  Runs until it is cancelled or closed (``contextlib.aclosing``).
    """
    changed = changed or asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.closing(_Watches()) as watches:

        def wake() -> None:
            watches.drain()
            changed.set()

        loop.add_reader(watches.fileno(), wake)
        try:
            while True:
                # Cleared and watched before the look: what changes after it wakes us again.
                changed.clear()
                watches.renew(await asyncio.to_thread(_directories, trust))
                if await asyncio.to_thread(trust.reload):
                    yield trust.generation
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(look_every_s):
                        await changed.wait()
        finally:
            loop.remove_reader(watches.fileno())


class _Watches:
    """One inotify instance on any number of directories."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._inotify = Inotify()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()

    def drain(self) -> None:
        """Take what has happened; what it was does not matter."""
        while self._inotify.read():
            pass

    def renew(self, directories: Mapping[Path, int]) -> None:
        """Watch what has these names now, for these events, and nothing else.

        A directory that is gone is announced when it is back.
        """
        numbers = set()
        for directory, mask in directories.items():
            with contextlib.suppress(OSError):
                numbers.add(self._inotify.watch(directory, mask))
        for number in self._numbers - numbers:
            self._inotify.unwatch(number)
        self._numbers = numbers


def _directories(trust: TrustStore) -> Mapping[Path, int]:
    """What to watch, and for which events.  Blocks."""
    masks: defaultdict[Path, int] = defaultdict(int)
    for name in (trust.ca_file, trust.crl_file):
        *links, file = _steps(name.absolute())
        for link in links:
            masks[link.parent] |= _APPEARED
        masks[file.parent] |= _CHANGED
        masks[file.parent.parent] |= _APPEARED
    return masks


def _steps(name: Path) -> Iterator[Path]:
    """The links by which an absolute name leads to its file, then the file; it may be missing."""
    for _ in range(_LINKS_MAX):
        found = _first_link(name)
        if found is None:
            break
        link, target = found
        yield _plain(link)
        name = link.parent / target / name.relative_to(link)
    yield _plain(name)


def _first_link(name: Path) -> tuple[Path, Path] | None:
    """The first link on the way to a name, and where it leads."""
    for place in (*reversed(name.parents), name):
        # It is no link, or there is nothing.
        with contextlib.suppress(OSError):
            return place, place.readlink()
    return None


def _plain(name: Path) -> Path:
    """Without ``..``, which only means what it says when no link is before it."""
    return Path(os.path.normpath(name))
