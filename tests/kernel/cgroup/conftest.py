"""A job with real cgroups, once for each way in which this host can keep one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from jobworker.cgroup.choose import open_hierarchy, open_job
from jobworker.cgroup.interface import Hierarchy, Mode
from jobworker.cgroup.location import find_locations
from jobworker.kernel.disks import BlockDevice
from kernel.cgroup.bench import Bench
from support.guards import need
from support.places import number_of_disk

#: A host with v1 trees can do without its cgroup2 tree, so it shows two modes.
MODES: Final = (
    (Mode.HYBRID, Mode.LEGACY) if "memory" in find_locations().legacy else (Mode.UNIFIED,)
)


@pytest.fixture(params=MODES, ids=lambda mode: mode.name.lower())
def hierarchy(request: pytest.FixtureRequest, cgroup_name: str) -> Iterator[Hierarchy]:
    need(os.geteuid() == 0, "root, to make cgroups")
    claimed = open_hierarchy("jobs", parent=cgroup_name, mode=request.param)
    assert claimed.mode is request.param, claimed.verdicts()
    yield claimed
    claimed.release()


@pytest.fixture
def bench(hierarchy: Hierarchy) -> Iterator[Bench]:
    job = open_job(hierarchy.plan("1job"))
    job.create()
    bench = Bench(hierarchy, job)
    yield bench
    bench.end()


@pytest.fixture
def disk_folder(tmp_path: Path) -> Path:
    """A folder on a real disk: in the guest kernel the root file system has none."""
    scratch = os.environ.get("SCRATCH")
    return Path(scratch) if scratch else tmp_path


@pytest.fixture
def disk(disk_folder: Path) -> BlockDevice:
    """The whole disk that the folder is on."""
    major, _, minor = number_of_disk(disk_folder).partition(":")
    directory = Path(f"/sys/dev/block/{major}:{minor}").resolve()
    return BlockDevice(major=int(major), minor=int(minor), name=directory.name)
