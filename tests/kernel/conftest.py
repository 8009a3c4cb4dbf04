"""A place for workers on a real disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.guards import need
from support.places import number_of_disk, place_on_disk
from support.worker import WorkerPlace


@pytest.fixture
def place(cgroup_name: str) -> Iterator[WorkerPlace]:
    need(os.geteuid() == 0, "root")
    with place_on_disk(cgroup_name) as place:
        yield place


@pytest.fixture
def disk(place: WorkerPlace) -> str:
    """The number of the whole disk that jobs' files are on, as their status tells it: ``"8:0"``."""
    return number_of_disk(place.state_dir)
