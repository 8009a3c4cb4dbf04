"""The only door to control files: small texts by which the kernel is asked and told.

Owns: how a control file is read and written, and what its errors mean.  Not what the files are for.
Each value is one write(2): the kernel takes a write for a whole command.

Errors are ``OSError`` with the file and the value in the text, because all callers already stand
where system calls fail, and decide by errno::

    ControlFileError
    ├── CgroupGoneError            the cgroup was removed
    └── ControlFileMissingError    the cgroup is there; its kernel or controller lacks the file

Standard library only: the launcher and the shims import it.
Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Conventions".
"""

from __future__ import annotations

import errno
import os
from typing import Final

from jobworker.errors import errno_text, shown

#: Larger than nearly all control files: one read and one more that finds the end.
_READ_BYTES: Final = 64 * 1024
#: The longest of these, a pressure file, has two lines of less than 80.
_SMALL_BYTES: Final = 512
#: Every live cgroup of either version has this file.
_PROOF_OF_LIFE: Final = "cgroup.procs"


class ControlFileError(OSError):
    """``cannot {action} {path}: {why}``; ``errno`` and ``filename`` as in every OSError."""

    def __init__(self, action: str, path: str, number: int) -> None:
        super().__init__(number, os.strerror(number), path)
        self._text = f"cannot {action} {path}: {errno_text(number)}"

    def __str__(self) -> str:
        return self._text


class CgroupGoneError(ControlFileError):
    """The cgroup was removed, by us or by its owner."""


class ControlFileMissingError(ControlFileError):
    """The cgroup is there, the file is not: an older kernel, or a controller not enabled."""


def read_file(path: str) -> str:
    """The whole text of a file of procfs, sysfs or cgroupfs; raises plain OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return reread(fd)
    finally:
        os.close(fd)


def read_small(path: str) -> str:
    """The text of a file that the kernel writes out whole in one read(2); raises plain OSError.

    For what is read often: ``read_file`` asks a second time, for an end that is known here.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fsdecode(os.read(fd, _SMALL_BYTES))
    finally:
        os.close(fd)


def reread(fd: int) -> str:
    """The whole text of an open file of the kernel's, from its first byte; ``fd`` is borrowed."""
    pieces: list[bytes] = []
    offset = 0
    while piece := os.pread(fd, _READ_BYTES, offset):
        pieces.append(piece)
        offset += len(piece)
    return os.fsdecode(b"".join(pieces))


def read(cgroup: str, name: str) -> str:
    """The text of control file ``name`` of a cgroup, without white space at its ends."""
    path = f"{cgroup}/{name}"
    try:
        return read_file(path).strip()
    except OSError as error:
        raise _translated(error, "read", cgroup, path) from error


def read_if_there(cgroup: str, name: str) -> str | None:
    """Like ``read``; ``None`` where the file or its cgroup does not exist."""
    try:
        return read(cgroup, name)
    except (CgroupGoneError, ControlFileMissingError):
        return None


def has(cgroup: str, name: str) -> bool:
    """Has this cgroup such a control file?"""
    # By access(2) and not by opening: root may open what the mount's owner hid, and nobody minds.
    return os.access(f"{cgroup}/{name}", os.F_OK)


def write(cgroup: str, name: str, value: str) -> None:
    """Write ``value`` to control file ``name`` of a cgroup in one write(2)."""
    path = f"{cgroup}/{name}"
    try:
        # No O_CREAT: in a removed cgroup, or by a misspelt name, nothing may come into being.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise _translated(error, f"write {shown(value)} to", cgroup, path) from error


def _translated(error: OSError, action: str, cgroup: str, path: str) -> ControlFileError:
    number = error.errno or errno.EIO
    # A removed cgroup and a missing controller both answer ENOENT; a file that was opened before
    # the removal answers ENODEV, but so does io.max for a number that is not a whole disk.
    if number in {errno.ENOENT, errno.ENODEV} and not has(cgroup, _PROOF_OF_LIFE):
        return CgroupGoneError(action, path, number)
    if number == errno.ENOENT:
        return ControlFileMissingError(action, path, number)
    return ControlFileError(action, path, number)


def parse_amount(text: str) -> int | None:
    """``"4096"`` is 4096; ``"max"``, and on v1 ``"-1"``, is no limit: ``None``."""
    return None if text in {"max", "-1"} else int(text)


def parse_flat(text: str) -> dict[str, int]:
    """A flat keyed file (``"oom 0\\noom_kill 2"``) by key; lines of another shape are left out.

    Source: cgroup-v2.rst, "Format", flat keyed.
    """
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def parse_nested(text: str) -> dict[str, dict[str, str]]:
    """A nested keyed file (``"8:0 rbps=max wbps=4096"``) by key, then by sub key.

    Source: cgroup-v2.rst, "Format", nested keyed.
    """
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        key, *fields = line.split()
        # io.stat writes lines with a device and nothing behind it for idle devices.
        found[key] = dict(field.split("=", 1) for field in fields if "=" in field)
    return found
