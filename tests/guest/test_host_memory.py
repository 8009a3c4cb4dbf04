"""The host runs out of memory: in a guest that has little, since there is only one host here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.guards import need

HERE = Path(__file__).parent
TESTS = HERE.parent / "kernel" / "limits" / "test_out_of_memory.py"

pytestmark = [pytest.mark.guest, pytest.mark.timeout(200)]


def test_a_job_that_the_host_had_no_memory_for_is_told_so() -> None:
    need(os.geteuid() == 0, "root")
    need(shutil.which("linux.uml"), "User-Mode Linux (Debian's package user-mode-linux)")
    words = ("-q", "-p", "no:cacheprovider", "-k", "host_has_no_more")
    done = subprocess.run(
        [
            *(HERE / "run-in-guest", "-m", "350M", "-t", "120", "--"),
            *(sys.executable, "-m", "pytest", *words, TESTS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
