"""The tool that the guest suites stand on: it relays faithfully and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.guards import need

TOOL = Path(__file__).with_name("run-in-guest")

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True)
def _guest_kernel() -> None:
    need(os.geteuid() == 0, "root")
    need(shutil.which("linux.uml"), "User-Mode Linux (Debian's package user-mode-linux)")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tool keeps what a run needs: empty before and after each run."""
    monkeypatch.setenv("RUN_IN_GUEST_TMP", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([TOOL, *arguments], capture_output=True, timeout=60, check=False)


def test_streams_and_exit_code_come_back(scratch: Path) -> None:
    script = r"printf '\000\377out'; echo err >&2; exit 7"
    done = run("--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\0\xffout", b"err\n")
    assert list(scratch.iterdir()) == []


def test_a_signal_is_told_as_shells_do(scratch: Path) -> None:
    assert run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_an_unknown_command_is_127(scratch: Path) -> None:
    done = run("no-such-command")
    assert done.returncode == 127
    assert b"cannot run no-such-command" in done.stderr


def test_time_is_up_after_the_given_seconds(scratch: Path) -> None:
    done = run("-t", "3", "sleep", "60")
    assert done.returncode == 124
    assert list(scratch.iterdir()) == []


def test_only_shared_folders_keep_what_the_guest_writes(scratch: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    other = Path("/var/tmp") / f"jobworker-guest-{os.getpid()}"
    script = f"echo kept >{shared}/file; echo lost >{other}; cat {other}"
    done = run("-w", str(shared), "--", "sh", "-c", script)
    assert done.stdout == b"lost\n"
    assert (shared / "file").read_text() == "kept\n"
    assert not other.exists()


def test_the_guest_has_pure_cgroup_v2_and_a_disk(scratch: Path) -> None:
    script = (
        "cat /sys/fs/cgroup/cgroup.controllers; stat -f -c %T /sys/fs/cgroup; stat -c %m $SCRATCH"
    )
    controllers, tree, disk = run("sh", "-c", script).stdout.decode().splitlines()
    assert {"cpu", "io", "memory", "pids"} <= set(controllers.split())
    assert tree == "cgroup2fs"
    assert disk == "/run/scratch"
