"""The same tests once more where no cgroup2 tree is mounted: a host with v1 alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.cgroup.location import find_locations
from support.guards import need, only_on

#: Two suites in one test, a minute on a machine that has nothing else to do.
pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(400)]

#: Set in the inner run, in which this test would find nothing more to take away.
_INNER = "JOBWORKER_TESTS_WITHOUT_CGROUP2"


def test_everything_holds_without_a_cgroup2_tree() -> None:
    """In a mount name space of its own; the tree stays where it is for everybody else."""
    need(os.geteuid() == 0, "root")
    only_on(_INNER not in os.environ, "the outer run")
    locations = find_locations()
    only_on("memory" in locations.legacy and locations.unified, "a hybrid host")
    assert locations.unified is not None
    script = 'umount "$1" && shift && exec "$@"'
    here = Path(__file__).parent
    pytest_words = ("-q", "-p", "no:cacheprovider", "-m", "not slow")
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", script, "sh", locations.unified.mount),
            *(sys.executable, "-m", "pytest", *pytest_words, here, here.parent / "hostile"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, _INNER: "1"},
    )
    assert done.returncode == 0, done.stdout[-8000:]
