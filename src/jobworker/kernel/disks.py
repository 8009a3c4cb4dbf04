"""The disks behind what is mounted: the devices that an IO limit must name.

Owns: the way from a mount to block devices, through sysfs.  Not the limits themselves.

The kernel throttles requests per *whole* device (a partition answers ENODEV) and once in each layer
that has a request queue of its own.  A mount is therefore followed

* from a partition to its disk;
* through device mapper (LVM, LUKS), md and bcache, by ``slaves``, to the disks at the bottom.  The
  top device and the disks are both named, the layers between are not: the disks hold the total over
  all volumes on them, and the top device also holds what its target hands down from kernel threads
  that no longer know the cgroup (md raid5, thin pools).  Measured with a linear target: each of the
  two holds direct and buffered writes alone; both together were as fast for direct writes and a
  quarter slower in one run of buffered ones;
* from a loop device to the file system that its backing file is on, and so to the disk below.  It
  is the loop device's limit that holds writes.  Reads are charged to the disk below as well (since
  Linux 5.13), so that loop devices that are read-only, packages mounted by the dozen, are left to
  that disk;
* for file systems without a device number (btrfs, bcachefs) by the mount's source, and for btrfs on
  to all devices of the same file system;
* for an overlay not at all: its layers lie on other mounts.  Where those are out of sight, as in a
  container, every physical disk of the machine is named: one too many slows nobody else.

Memory and network file systems have no disk.  What only happens below an unchanged mount table (a
volume moved to another disk) is not noticed until the table changes or the process starts anew.

Source: Linux Documentation/ABI/stable/sysfs-block, admin-guide/cgroup-v2.rst "IO Interface Files".
"""

# Launchers and shims import this, and pathlib would be half of their start:
# ruff: noqa: PTH110, PTH116, PTH119, PTH120, PTH208

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from jobworker.kernel import kernfs
from jobworker.kernel.mounts import MOUNTINFO, Mount, mount_of, parse_mounts

SYSFS: Final = "/sys"

#: Devices stacked deeper than this are a loop of our own making: the kernel stops at 8 for loop
#: devices and nobody stacks volumes so high.
_DEPTH_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A whole disk."""

    major: int
    minor: int
    name: str
    """As in /sys/block."""

    @property
    def number(self) -> str:
        """``"8:0"``."""
        return f"{self.major}:{self.minor}"


class MountedDisks:
    """The disks behind the mounts of this process, looked up again only when the mounts changed.

    Holds one descriptor until ``close``.
    """

    def __init__(self) -> None:
        self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._disks: tuple[BlockDevice, ...] | None = None
        self._changes = select.poll()
        # proc_pid_mounts(5): a change of the mount table is announced as POLLPRI and POLLERR.
        self._changes.register(self._fd, select.POLLPRI)

    def close(self) -> None:
        """Give the descriptor back; harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now(self) -> tuple[BlockDevice, ...]:
        """The disks as of this call."""
        # Asked when the answer is needed and never in a loop: one system call instead of a hundred.
        # The question also resets the announcement, so it comes before the reading.
        has_changed = self._changes.poll(0)
        if has_changed or self._disks is None:
            self._disks = resolve_disks(kernfs.reread(self._fd))
        return self._disks


def resolve_disks(mountinfo: str, sysfs: str = SYSFS) -> tuple[BlockDevice, ...]:
    """All distinct devices to limit behind the mounts of a mountinfo text, by their numbers."""
    mounts = parse_mounts(mountinfo)
    search = _Search(mounts, sysfs)
    for mount in mounts:
        search.follow_mount(mount)
    return tuple(sorted(search.found.values(), key=lambda disk: (disk.major, disk.minor)))


def is_stacked(number: str, sysfs: str = SYSFS) -> bool:
    """Does this device (``"253:0"``) hand its requests to others, which count them again?

    A loop device is not taken for one: its file is written by the kernel, later, and on nobody's
    account (measured on Linux 6.1 and 6.18).  What is read through it does count twice.
    """
    return bool(_names(f"{sysfs}/dev/block/{number}/slaves"))


class _Search:
    """One walk over all mounts."""

    def __init__(self, mounts: Sequence[Mount], sysfs: str) -> None:
        self._mounts = mounts
        self._sysfs = sysfs
        self._followed: set[str] = set()
        self.found: dict[str, BlockDevice] = {}

    def follow_mount(self, mount: Mount, depth: int = 0) -> None:
        if mount.type == "overlay":
            self._follow_overlay(mount)
        elif mount.major != 0:
            self._follow_device(f"{self._sysfs}/dev/block/{mount.major}:{mount.minor}", depth)
        elif mount.source.startswith("/dev/"):
            # bcachefs names all its devices, with colons between.
            for source in mount.source.split(":"):
                for directory in self._devices_of_source(source):
                    self._follow_device(directory, depth)

    def _follow_overlay(self, mount: Mount) -> None:
        if all(self._is_in_sight(layer) for layer in _layers(mount)):
            return
        for name in _names(f"{self._sysfs}/block"):
            directory = f"{self._sysfs}/block/{name}"
            # Only what hardware, real or virtual, stands behind has this link.
            if os.path.exists(f"{directory}/device"):
                self._follow_device(directory)

    def _is_in_sight(self, layer: str) -> bool:
        """Is the directory on another mount than an overlay that covers it?"""
        mount = mount_of(layer, self._mounts)
        return mount is not None and mount.type != "overlay"

    def _follow_device(self, link: str, depth: int = 0, *, is_top: bool = True) -> None:
        """is_top: files lie on it, not another device."""
        directory = os.path.realpath(link)
        if os.path.exists(f"{directory}/partition"):
            directory = os.path.dirname(directory)
        slaves = _names(f"{directory}/slaves")
        backing = _line(f"{directory}/loop/backing_file")
        is_left_to_its_disk = bool(backing) and _line(f"{directory}/ro") == "1"
        if (is_top or not slaves) and not is_left_to_its_disk:
            self._add(directory)
        if directory in self._followed or depth > _DEPTH_MAX:
            return
        self._followed.add(directory)
        for name in slaves:
            self._follow_device(f"{directory}/slaves/{name}", depth + 1, is_top=False)
        mount = mount_of(backing, self._mounts) if backing else None
        if mount is not None:
            self.follow_mount(mount, depth + 1)

    def _add(self, directory: str) -> None:
        number = _line(f"{directory}/dev")
        if number:
            major, _, minor = number.partition(":")
            name = os.path.basename(directory)
            self.found[number] = BlockDevice(major=int(major), minor=int(minor), name=name)

    def _devices_of_source(self, source: str) -> Iterator[str]:
        """The sysfs directories of a device path, and of the devices that btrfs joined with it."""
        name = self._name_of_source(source)
        if name is None:
            return
        yield f"{self._sysfs}/class/block/{name}"
        for volume in _names(f"{self._sysfs}/fs/btrfs"):
            members = _names(f"{self._sysfs}/fs/btrfs/{volume}/devices")
            if name in members:
                yield from (f"{self._sysfs}/class/block/{member}" for member in members)

    def _name_of_source(self, source: str) -> str | None:
        """The kernel's name of a device that a mount names by a path below /dev."""
        wanted = source.removeprefix("/dev/")
        # sysfs has "!" where a device's name has a slash (Linux lib/kobject.c, kobject_set_name).
        plain = wanted.replace("/", "!")
        if os.path.exists(f"{self._sysfs}/class/block/{plain}"):
            return plain
        if wanted.startswith("mapper/"):
            for name in _names(f"{self._sysfs}/block"):
                if _line(f"{self._sysfs}/block/{name}/dm/name") == wanted.removeprefix("mapper/"):
                    return name
        with contextlib.suppress(OSError):
            # By another name: /dev/root, /dev/disk/by-uuid/…, /dev/vg/volume.
            number = os.stat(source).st_rdev
            link = f"{self._sysfs}/dev/block/{os.major(number)}:{os.minor(number)}"
            return os.path.basename(os.path.realpath(link, strict=True))
        return None


def _layers(mount: Mount) -> list[str]:
    """The directories that an overlay is made of, the writable one first."""
    given = dict(option.partition("=")[::2] for option in mount.options)
    lower = given.get("lowerdir", "").split(":")
    return [layer for layer in (given.get("upperdir", ""), *lower) if layer.startswith("/")]


def _line(path: str) -> str:
    """The text of a small sysfs file; "" where there is none."""
    try:
        return kernfs.read_file(path).strip()
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    """What is in a directory; nothing where there is none."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
