"""Where this process stands in the control groups of the host.

Owns: what /proc/self/cgroup and the mount table say about that, for both versions.  Makes nothing.
Source: cgroups(7), "/proc files"; cgroup-v1/cgroups.rst, "How do I use cgroups?".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobworker.kernel import kernfs
from jobworker.kernel.mounts import Mount, is_below, read_mounts

#: The key of the cgroup2 tree where v1 trees have their controllers' names.
UNIFIED: Final = ""

_SELF: Final = "/proc/self/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """This process in one tree."""

    mount: str
    """Where the tree is mounted."""
    own: str
    """The absolute directory of the process's own cgroup."""

    def base(self, parent: str | None) -> str:
        """The directory that ``parent`` means in this tree: see ``choose.open_hierarchy``."""
        if parent is None:
            return self.own
        if parent.startswith("/"):
            return os.path.normpath(f"{self.mount}/{parent}")
        return os.path.normpath(f"{self.own}/{parent}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locations:
    """This process in all trees."""

    unified: Location | None = None
    """In the cgroup2 tree."""
    legacy: Mapping[str, Location] = field(default_factory=dict)
    """By v1 controller; controllers that are mounted together have the same location."""


def find_locations() -> Locations:
    """Where the calling process is now."""
    return parse_locations(kernfs.read_file(_SELF), read_mounts())


def parse_locations(own_cgroups: str, mounts: Sequence[Mount]) -> Locations:
    """The same from the text of /proc/self/cgroup and the mount table."""
    unified: Location | None = None
    legacy: dict[str, Location] = {}
    for line in own_cgroups.splitlines():
        _, names, path = line.split(":", 2)
        if names == UNIFIED:
            unified = _locate(path, [mount for mount in mounts if mount.type == "cgroup2"])
            continue
        controllers = names.split(",")
        trees = [
            mount
            for mount in mounts
            if mount.type == "cgroup" and mount.options.issuperset(controllers)
        ]
        location = _locate(path, trees)
        if location is not None:
            legacy.update(dict.fromkeys(controllers, location))
    return Locations(unified=unified, legacy=legacy)


def _locate(path: str, trees: Sequence[Mount]) -> Location | None:
    """A cgroup's directory, on the first mount that shows it.

    In a container the mount may begin at the container's own cgroup, and the path may lead out of
    the cgroup name space ("/../.."): then no mount shows it.
    """
    for mount in trees:
        if is_below(path, mount.root):
            below = os.path.relpath(path, mount.root)
            return Location(mount=mount.point, own=os.path.normpath(f"{mount.point}/{below}"))
    return None
