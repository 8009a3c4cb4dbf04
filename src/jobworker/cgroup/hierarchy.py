"""A claimed place: names the cgroups of jobs below it, and finds those that are there.

Owns: how a job's id becomes a plan.  Not the claiming (choose.py and the trees).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobworker.cgroup import directories
from jobworker.cgroup.interface import CgroupPlan, Mode, Verdict
from jobworker.cgroup.v1.tree import FREEZER
from jobworker.cgroup.v2.tree import MEMBERS, SHIM
from jobworker.model.limits import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedHierarchy:
    """A ``Hierarchy``; each method is documented there."""

    mode: Mode
    found: Mapping[Resource, Verdict]
    unified: str = ""
    """The directory for jobs in the cgroup2 tree."""
    home: str = ""
    """Of the claiming process in a unified tree, after the claim."""
    legacy: Mapping[str, str] = field(default_factory=dict)
    """The directories for jobs in the v1 trees, by controller."""
    made: tuple[str, ...] = ()
    """Directories that were made by claiming, each after the one above it."""

    def plan(self, job_id: str) -> CgroupPlan:
        controllers = {name: f"{path}/{job_id}" for name, path in self.legacy.items()}
        match self.mode:
            case Mode.UNIFIED:
                job = f"{self.unified}/{job_id}"
                return CgroupPlan(
                    mode=self.mode,
                    job=job,
                    members=f"{job}/{MEMBERS}",
                    shim=f"{job}/{SHIM}",
                    home=self.home,
                )
            case Mode.HYBRID:
                job = f"{self.unified}/{job_id}"
                return CgroupPlan(mode=self.mode, job=job, members=job, controllers=controllers)
            case Mode.LEGACY:
                members = controllers[FREEZER]
                return CgroupPlan(mode=self.mode, members=members, controllers=controllers)
            case Mode.NONE:
                (problem,) = {verdict.note for verdict in self.found.values()}
                return CgroupPlan(mode=self.mode, problem=problem)

    def verdicts(self) -> Mapping[str, Verdict]:
        return {resource.value: verdict for resource, verdict in self.found.items()}

    def stray_jobs(self) -> tuple[str, ...]:
        # A removal that was interrupted may have left a job in some of the trees only.
        found = {name for place in self._places() for name in directories.names(place)}
        return tuple(sorted(found))

    def release(self) -> None:
        directories.remove_unused((*self.made, *self._places()))

    def _places(self) -> tuple[str, ...]:
        return tuple(filter(None, dict.fromkeys([self.unified, *self.legacy.values()])))
