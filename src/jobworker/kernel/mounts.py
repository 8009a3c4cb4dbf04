"""What is mounted where, as this process sees it.

Owns: the format of /proc/self/mountinfo.  Not the disks behind the mounts (disks.py).
Source: proc_pid_mountinfo(5); its escapes: Linux fs/proc_namespace.c, mangle().
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jobworker.kernel import kernfs

MOUNTINFO: Final = "/proc/self/mountinfo"

#: Blank, tab, newline and backslash are written as three octal digits.
_ESCAPE = re.compile(r"\\([0-7]{3})")
#: Fields before the optional ones, and after the lone dash that ends those.
_FIELDS_BEFORE: Final = 6
_FIELDS_AFTER: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    major: int
    """Of the files' st_dev; 0 for file systems without a block device, and for btrfs."""
    minor: int
    root: str
    """The directory of the file system that is seen at ``point``."""
    point: str
    """Where it is mounted, relative to this process's root."""
    type: str
    source: str
    """File systems put here what they like; mostly the device's path."""
    options: frozenset[str]
    """Of this mount and of its file system together."""


def read_mounts() -> tuple[Mount, ...]:
    """The mounts of this process's name space."""
    return parse_mounts(kernfs.read_file(MOUNTINFO))


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The mounts that a mountinfo text tells of, in its order: a later one may hide an earlier."""
    return tuple(_parse_line(line) for line in text.splitlines())


def _parse_line(line: str) -> Mount:
    fields = line.split(" ")
    # Optional fields are none or many; the lone dash cannot be one of the first six.
    dash = fields.index("-", _FIELDS_BEFORE)
    major, _, minor = fields[2].partition(":")
    root, point, own_options = fields[3:_FIELDS_BEFORE]
    kind, source, super_options = fields[dash + 1 : dash + 1 + _FIELDS_AFTER]
    return Mount(
        major=int(major),
        minor=int(minor),
        root=_unescaped(root),
        point=_unescaped(point),
        type=kind,
        source=_unescaped(source),
        options=frozenset(map(_unescaped, [*own_options.split(","), *super_options.split(",")])),
    )


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that shows the file at an absolute path; of several at one point the last."""
    best: Mount | None = None
    for mount in mounts:
        if is_below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def is_below(path: str, directory: str) -> bool:
    """Is ``path`` the directory, or anything in it?  By their names alone."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
