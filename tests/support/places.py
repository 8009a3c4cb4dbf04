"""Places for workers whose jobs use a real disk, on every kind of host that the suites run on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobworker.cgroup.location import find_locations
from jobworker.worker import WorkerSettings
from support.guards import need
from support.worker import WorkerPlace


@contextlib.contextmanager
def place_on_disk(cgroup_name: str) -> Iterator[WorkerPlace]:
    """A place on a file system with a block device: in the guest kernel that is $SCRATCH."""
    parent = os.environ.get("SCRATCH", "/var/tmp")
    path = Path(tempfile.mkdtemp(prefix="jobworker-test-", dir=parent))
    path.chmod(0o711)
    try:
        yield WorkerPlace(state_dir=path, settings=WorkerSettings(cgroup_parent=cgroup_name))
    finally:
        shutil.rmtree(path)
        # A worker leaves what it did not make: the second one of a test, what the first one made.
        locations = find_locations()
        for location in (locations.unified, *locations.legacy.values()):
            if location is not None:
                with contextlib.suppress(FileNotFoundError):
                    Path(location.base(cgroup_name)).rmdir()


def number_of_disk(path: Path) -> str:
    """Of the whole disk that a file is on: ``"8:0"``."""
    number = path.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    need(link.exists(), "file system on a disk for temporary files")
    directory = link.resolve()
    if (directory / "partition").exists():
        directory = directory.parent
    return (directory / "dev").read_text().strip()
