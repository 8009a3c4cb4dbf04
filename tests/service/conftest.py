"""A place for services: an installation's certificates and a state directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Installation, make_installation
from support.guards import need, our_cgroups
from support.service import ServicePlace
from support.worker import state_directory


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return make_installation(tmp_path / "pki")


@pytest.fixture
def place(tmp_path: Path, installation: Installation, cgroup_name: str) -> Iterator[ServicePlace]:
    need(os.geteuid() == 0, "root")
    with state_directory() as state_dir:
        yield ServicePlace(
            state_dir=state_dir,
            installation=installation,
            cgroup_name=cgroup_name,
            audit_fifo=tmp_path / "audit",
        )
    # The parent that the operator named, once there was a job that outlived its service.
    for cgroup in map(Path, our_cgroups()):
        if cgroup.name == cgroup_name:
            cgroup.rmdir()
