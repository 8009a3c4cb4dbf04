"""A place for workers with real jobs in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from jobworker.worker import WorkerSettings
from support.guards import need
from support.worker import WorkerPlace, state_directory


@pytest.fixture
def place(cgroup_name: str) -> Iterator[WorkerPlace]:
    need(os.geteuid() == 0, "root")
    with state_directory() as path:
        yield WorkerPlace(state_dir=path, settings=WorkerSettings(cgroup_parent=cgroup_name))
