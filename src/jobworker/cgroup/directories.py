"""Directories of control groups: made, listed and removed the same way in both versions."""

# Launchers and shims import this, and pathlib would be half of their start:
# ruff: noqa: PTH102, PTH106, PTH112, PTH120

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

from jobworker.kernel import kernfs


def chain(base: str, *, top: str) -> tuple[str, ...]:
    """The directories from ``top`` down to ``base``, both included."""
    found = [base]
    while found[-1] != top and found[-1] != "/":
        found.append(os.path.dirname(found[-1]))
    return tuple(reversed(found))


def make(path: str) -> bool:
    """Make one cgroup; False if it was there.  Raises OSError."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    except OSError as error:
        raise kernfs.ControlFileError("make cgroup", path, error.errno or errno.EIO) from error
    return True


def make_all(path: str) -> tuple[str, ...]:
    """Make a cgroup and what is missing above it; those that were made, outermost first."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    # Another file system may be mounted over the tree, and would take directories just as well.
    kernfs.read(path, "cgroup.procs")
    return tuple(directory for directory in reversed(missing) if make(directory))


def above(path: str) -> tuple[str, ...]:
    """The cgroups above a cgroup, the nearest first, up to where the tree is mounted."""
    found = []
    while kernfs.has(path := os.path.dirname(path), "cgroup.procs"):
        found.append(path)
    return tuple(found)


def names(path: str) -> tuple[str, ...]:
    """The cgroups in a cgroup; none where it is gone."""
    try:
        with os.scandir(path) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def walk(path: str) -> Iterator[str]:
    """A cgroup and all below it, the deepest first."""
    for name in names(path):
        yield from walk(f"{path}/{name}")
    yield path


def remove(path: str) -> None:
    """Remove a cgroup and all below it; no-op where gone.  Raises OSError: EBUSY with members.

    A process that has exited is no member, awaited or not: on Linux 6.1 and 6.18 no removal right
    after an exit was refused in thousands, in either version, so that none is repeated here.
    """
    for directory in walk(path):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            number = error.errno or errno.EIO
            raise kernfs.ControlFileError("remove cgroup", directory, number) from error


def remove_unused(paths: Iterable[str]) -> None:
    """Remove those of some cgroups that are empty, the last first; leave the others."""
    for path in reversed(tuple(paths)):
        with contextlib.suppress(OSError):
            os.rmdir(path)
