"""A place for workers with real jobs in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.cgroup.location import find_locations
from jobworker.worker import WorkerSettings
from support.guards import need
from support.worker import WorkerPlace, state_directory


@pytest.fixture
def place(cgroup_name: str) -> Iterator[WorkerPlace]:
    need(os.geteuid() == 0, "root")
    with state_directory() as path:
        yield WorkerPlace(state_dir=path, settings=WorkerSettings(cgroup_parent=cgroup_name))
    # A worker leaves what it did not make: the second one of a test, what the first one made.
    locations = find_locations()
    for location in (locations.unified, *locations.legacy.values()):
        if location is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(location.base(cgroup_name)).rmdir()
