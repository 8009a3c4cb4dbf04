"""A place for workers that will be killed, and for what is left of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from jobworker.worker import WorkerSettings
from support.faults import cgroup_parents, remove_cgroups
from support.guards import need
from support.worker import WorkerPlace, state_directory


@pytest.fixture
def place(cgroup_name: str) -> Iterator[WorkerPlace]:
    need(os.geteuid() == 0, "root")
    cgroup_parents(cgroup_name)
    with state_directory() as path:
        settings = WorkerSettings(cgroup_parent=cgroup_name)
        yield WorkerPlace(state_dir=path, settings=settings)
    # A worker that is killed removes nothing.
    remove_cgroups(cgroup_name)
