"""Directories of jobs in the cgroup2 tree, and the controllers that are handed down to them.

Owns: cgroup.controllers, cgroup.subtree_control, and where the daemon and a shim have to stand so
that the kernel allows it.  Not limits (limits.py), not members (members.py).

A cgroup that has processes of its own may not hand controllers to its children; only the real root
may ("No Internal Process Constraint").  So a daemon that was started in a delegated cgroup moves to
a leaf of its own, below the cgroup and beside its jobs::

    <own cgroup>/daemon                the daemon
    <own cgroup>/<name>/<job id>       io.max: for the command and for the shim that writes for it
    <own cgroup>/<name>/<job id>/job   the command: cpu.max, memory.max, pids.max
    <own cgroup>/<name>/<job id>/shim

Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Organizing Processes and Threads",
"Controlling Controllers"; systemd, docs/CGROUP_DELEGATION.md.
"""

# Launchers and shims import this, and pathlib would be half of their start:
# ruff: noqa: PTH119, PTH120

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jobworker.cgroup import directories
from jobworker.cgroup.interface import CgroupPlan
from jobworker.cgroup.location import Location
from jobworker.kernel import clone, kernfs

#: What jobs are limited by.
CONTROLLERS: Final = ("cpu", "memory", "io", "pids")
#: The leaf for the daemon; where systemd is told DelegateSubgroup=daemon, it is in there already.
DAEMON: Final = "daemon"

MEMBERS: Final = "job"
SHIM: Final = "shim"

#: Limited in the command's own leaf.  io is not: it stays above, where it also holds the shim.
_IN_LEAF: Final = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What came of claiming a place."""

    directory: str
    """Below it jobs get their cgroups."""
    made: tuple[str, ...]
    """Directories that were not there before, outermost first."""
    problems: Mapping[str, str]
    """By controller that could not be handed down: why."""


def claim(
    location: Location, name: str, parent: str | None, controllers: Sequence[str] = CONTROLLERS
) -> Claim:
    """Make the directory for jobs and hand the controllers down to it.

    With controllers this may move the calling process.  Raises OSError where the directory itself
    cannot be made.
    """
    if controllers:
        location = _beside_daemon(location)
    directory = f"{location.base(parent)}/{name}"
    made = directories.make_all(directory)
    top = location.mount if parent and parent.startswith("/") else location.own
    problems: dict[str, str] = {}
    for step in directories.chain(directory, top=top):
        problems |= _hand_down(step, [name for name in controllers if name not in problems])
    return Claim(directory=directory, made=made, problems=problems)


def _beside_daemon(location: Location) -> Location:
    """A daemon that already stands in its leaf has its place one above."""
    if os.path.basename(location.own) != DAEMON or location.own == location.mount:
        return location
    return Location(mount=location.mount, own=os.path.dirname(location.own))


def _hand_down(cgroup: str, controllers: Sequence[str]) -> dict[str, str]:
    """Let the children of a cgroup have controllers; why not, for those that they cannot have."""
    enabled = kernfs.read(cgroup, "cgroup.subtree_control").split()
    missing = [controller for controller in controllers if controller not in enabled]
    if not missing:
        return {}
    try:
        is_vacant = _vacate(cgroup)
    except OSError as error:
        return dict.fromkeys(missing, str(error))
    if not is_vacant:
        # Not even those that the kernel would hand down from there, as it does cpu and pids: that
        # makes the cgroup the root of a threaded domain, and no process can join a child of it.
        why = f"other processes are in cgroup {cgroup}; start the service in one of its own"
        return dict.fromkeys(missing, why)
    available = kernfs.read(cgroup, "cgroup.controllers").split()
    problems: dict[str, str] = {}
    for controller in missing:
        if controller not in available:
            problems[controller] = f"cgroup {cgroup} was given no controller {controller}"
            continue
        try:
            # One by one: together, one that is refused would take the others with it.
            kernfs.write(cgroup, "cgroup.subtree_control", f"+{controller}")
        except kernfs.ControlFileError as error:
            problems[controller] = str(error)
    return problems


def _vacate(cgroup: str) -> bool:
    """Move the calling process out of a cgroup that is to hand down controllers; is it free now?

    Nothing is moved where others live there too: it would not help, and they are not ours.
    """
    if _is_real_root(cgroup):
        return True
    pids = set(kernfs.read(cgroup, "cgroup.procs").split())
    if pids == {str(os.getpid())}:
        directories.make(f"{cgroup}/{DAEMON}")
        kernfs.write(f"{cgroup}/{DAEMON}", "cgroup.procs", "0")
        return True
    return not pids


def _is_real_root(cgroup: str) -> bool:
    """Only the real root has no type; that of a cgroup name space is a cgroup like any other."""
    return not kernfs.has(cgroup, "cgroup.type")


class JobTree:
    """The directories of one job in the cgroup2 tree."""

    def __init__(self, plan: CgroupPlan) -> None:
        self._plan = plan

    def create(self) -> None:
        """Make them, with those controllers for the leaves that there are."""
        directories.make(self._plan.job)
        if self._plan.members == self._plan.job:
            return
        available = kernfs.read(self._plan.job, "cgroup.controllers").split()
        wanted = [controller for controller in _IN_LEAF if controller in available]
        if wanted:
            text = " ".join(f"+{controller}" for controller in wanted)
            kernfs.write(self._plan.job, "cgroup.subtree_control", text)
        directories.make(self._plan.members)
        directories.make(self._plan.shim)

    def clone_fd(self) -> int | None:
        """See ``JobCgroup``."""
        return _open_directory(self._plan.members) if self._can_clone() else None

    def join_files(self) -> tuple[str, ...]:
        """Files to join through: none where a child can be cloned into the cgroup."""
        return () if self._can_clone() else (f"{self._plan.members}/cgroup.procs",)

    def _can_clone(self) -> bool:
        # cgroup.kill came with Linux 5.14, CLONE_INTO_CGROUP with 5.7: where the file is, so is the
        # flag.
        return kernfs.has(self._plan.members, "cgroup.kill") and clone.is_allowed()

    def join_shim(self) -> None:
        """Move the calling process into the shim's leaf."""
        if self._plan.shim:
            kernfs.write(self._plan.shim, "cgroup.procs", "0")

    def remove(self) -> None:
        """Remove them; the command's leaf first, so that only the shim can be in the way."""
        if self._plan.members != self._plan.job:
            directories.remove(self._plan.members)
        if self._plan.home and str(os.getpid()) in self._shim_pids():
            kernfs.write(self._plan.home, "cgroup.procs", "0")
        directories.remove(self._plan.job)

    def _shim_pids(self) -> list[str]:
        return (kernfs.read_if_there(self._plan.shim, "cgroup.procs") or "").split()


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
