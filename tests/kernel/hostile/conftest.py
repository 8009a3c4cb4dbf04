"""A place for workers on a real disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guards import need
from support.places import place_on_disk
from support.worker import WorkerPlace


@pytest.fixture
def place(cgroup_name: str) -> Iterator[WorkerPlace]:
    need(os.geteuid() == 0, "root")
    with place_on_disk(cgroup_name) as place:
        yield place


@pytest.fixture
def disk(place: WorkerPlace) -> str:
    """The number of the whole disk that jobs' files are on, as their status tells it: ``"8:0"``."""
    number = place.state_dir.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    need(link.exists(), "file system on a disk for temporary files")
    directory = link.resolve()
    if (directory / "partition").exists():
        directory = directory.parent
    return (directory / "dev").read_text().strip()
