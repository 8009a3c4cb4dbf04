"""Which control groups this host offers, and what a job's are made of.

Owns: the choice between unified, hybrid, legacy and none; the only module that knows both versions.
Source: systemd, docs/CGROUP_DELEGATION.md, "Three Different Tree Setups".
"""

from __future__ import annotations

import errno
from typing import Final

from jobworker.cgroup import directories
from jobworker.cgroup.hierarchy import ClaimedHierarchy
from jobworker.cgroup.interface import CgroupPlan, Hierarchy, JobCgroup, Mode, Verdict
from jobworker.cgroup.job import ComposedJob
from jobworker.cgroup.location import Locations, find_locations
from jobworker.cgroup.none import NO_CGROUP, NoLimits, NoMembers
from jobworker.cgroup.v1 import limits as v1_limits
from jobworker.cgroup.v1 import members as v1_members
from jobworker.cgroup.v1 import tree as v1_tree
from jobworker.cgroup.v2 import limits as v2_limits
from jobworker.cgroup.v2 import members as v2_members
from jobworker.cgroup.v2 import tree as v2_tree
from jobworker.errors import InvalidArgumentError
from jobworker.kernel import kernfs
from jobworker.model.limits import Resource

#: A host with one of these in a v1 tree keeps its limits there.
_LIMITING: Final = frozenset({"cpu", "memory", "blkio", "pids"})


def open_hierarchy(name: str, *, parent: str | None = None, mode: Mode | None = None) -> Hierarchy:
    """Claim the directory ``name`` for jobs, in each tree that is needed.  Call it once, early.

    On a unified host this may move the calling process into a leaf beside the jobs: child processes
    that it already has would be in the way.  Where nothing can be claimed the mode is NONE, and the
    verdicts say why.

    name: one path component; two workers on one host need two names.
    parent: the directory above ``name``.  None is the process's own cgroup in each tree; a relative
    path is below that; an absolute one is below each tree's mount point.  It is made where missing.
    mode: None takes the best that the host has.
    """
    _check_path("cgroup name", name)
    if "/" in name:
        raise InvalidArgumentError("cgroup name", name, "it takes one path component")
    if parent is not None:
        _check_path("cgroup parent", parent)
    locations = find_locations()
    reasons: list[str] = []
    for candidate in _candidates(locations) if mode is None else (mode,):
        try:
            return _claim(candidate, locations, name, parent)
        except OSError as error:
            reasons.append(str(error))
    return _claim_nothing("; ".join(reasons) or NO_CGROUP)


def open_job(plan: CgroupPlan) -> JobCgroup:
    """The cgroups of a plan; looks at nothing, makes nothing."""
    match plan.mode:
        case Mode.UNIFIED:
            return ComposedJob(
                plan,
                trees=(v2_tree.JobTree(plan),),
                limits=v2_limits.JobLimits(plan),
                members=v2_members.Members(plan.members),
            )
        case Mode.HYBRID:
            return ComposedJob(
                plan,
                trees=(v2_tree.JobTree(plan), v1_tree.JobTrees(plan)),
                limits=v1_limits.JobLimits(plan),
                members=v2_members.Members(plan.members),
            )
        case Mode.LEGACY:
            return ComposedJob(
                plan,
                trees=(v1_tree.JobTrees(plan),),
                limits=v1_limits.JobLimits(plan),
                members=v1_members.Members(plan.members),
            )
        case Mode.NONE:
            return ComposedJob(plan, trees=(), limits=NoLimits(plan), members=NoMembers())


def _check_path(field: str, value: str) -> None:
    if not value or "\0" in value or {"..", "."} & set(value.split("/")):
        raise InvalidArgumentError(field, value, "it takes a path without '.' and '..'")


def _candidates(locations: Locations) -> tuple[Mode, ...]:
    """The modes that the mounts allow, the best first."""
    if _LIMITING & locations.legacy.keys():
        return (Mode.HYBRID, Mode.LEGACY)
    return (Mode.UNIFIED,)


def _claim(mode: Mode, locations: Locations, name: str, parent: str | None) -> ClaimedHierarchy:
    match mode:
        case Mode.UNIFIED:
            return _claim_unified(locations, name, parent)
        case Mode.HYBRID:
            return _claim_hybrid(locations, name, parent)
        case Mode.LEGACY:
            return _claim_legacy(locations, name, parent)
        case Mode.NONE:
            return _claim_nothing(NO_CGROUP)


def _claim_unified(locations: Locations, name: str, parent: str | None) -> ClaimedHierarchy:
    if locations.unified is None:
        raise kernfs.ControlFileError("find", "a cgroup2 tree", errno.ENOENT)
    claim = v2_tree.claim(locations.unified, name, parent)
    now = find_locations().unified  # the claim may have moved us
    return ClaimedHierarchy(
        mode=Mode.UNIFIED,
        unified=claim.directory,
        home="" if now is None else now.own,
        found=v2_limits.verdicts(claim.directory, claim.problems),
        made=claim.made,
    )


def _claim_hybrid(locations: Locations, name: str, parent: str | None) -> ClaimedHierarchy:
    if locations.unified is None:
        raise kernfs.ControlFileError("find", "a cgroup2 tree", errno.ENOENT)
    members = v2_tree.claim(locations.unified, name, parent, controllers=())
    if not kernfs.has(members.directory, "cgroup.kill"):
        # Before Linux 5.14.  The freezer of v1, which such a host has, serves as well.
        directories.remove_unused(members.made)
        path = f"{members.directory}/cgroup.kill"
        raise kernfs.ControlFileMissingError("use", path, errno.ENOENT)
    limits = v1_tree.claim(locations.legacy, name, parent, v1_tree.CONTROLLERS)
    return ClaimedHierarchy(
        mode=Mode.HYBRID,
        unified=members.directory,
        legacy=limits.directories,
        found=v1_limits.verdicts(limits.directories, limits.problems),
        made=(*members.made, *limits.made),
    )


def _claim_legacy(locations: Locations, name: str, parent: str | None) -> ClaimedHierarchy:
    controllers = (v1_tree.FREEZER, *v1_tree.CONTROLLERS)
    claim = v1_tree.claim(locations.legacy, name, parent, controllers)
    if v1_tree.FREEZER not in claim.directories:
        directories.remove_unused(claim.made)
        # Without it a job has limits but no members, and could not be stopped.
        raise kernfs.ControlFileError("use", "the cgroup v1 freezer", errno.ENOENT)
    return ClaimedHierarchy(
        mode=Mode.LEGACY,
        legacy=claim.directories,
        found=v1_limits.verdicts(claim.directories, claim.problems),
        made=claim.made,
    )


def _claim_nothing(why: str) -> ClaimedHierarchy:
    refusal = Verdict(is_enforced=False, note=why)
    return ClaimedHierarchy(mode=Mode.NONE, found=dict.fromkeys(Resource, refusal))
