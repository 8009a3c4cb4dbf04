"""The guards around every test do see what they are there to see."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError

import jobworker
from support import guards


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted leak never settles: do not wait for it."""
    monkeypatch.setattr(guards, "SETTLE_S", 0.1)


def guard_of(what: str) -> guards.Guard:
    return next(guard for guard in guards.GUARDS if guard.what == what)


def test_an_open_descriptor_is_a_leak() -> None:
    reader = writer = -1
    try:
        with (
            pytest.raises(pytest.fail.Exception, match="leaked descriptors"),
            guards.no_leak(guard_of("descriptors")),
        ):
            reader, writer = os.pipe()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_running_child_is_a_leak() -> None:
    child: subprocess.Popen[bytes] | None = None
    try:
        with (
            pytest.raises(pytest.fail.Exception, match="leaked child processes"),
            guards.no_leak(guard_of("child processes")),
        ):
            child = subprocess.Popen(["sleep", "60"])
    finally:
        assert child is not None
        child.kill()
        child.wait()


def test_a_cgroup_of_ours_is_a_leak(cgroup_name: str) -> None:
    mounts = [mount for mount in guards.cgroup_mounts() if os.access(mount, os.W_OK)]
    guards.need(mounts, "writable cgroup mount")
    made = mounts[0] / cgroup_name
    try:
        with (
            pytest.raises(pytest.fail.Exception, match="leaked cgroups"),
            guards.no_leak(guard_of("cgroups")),
        ):
            made.mkdir()
    finally:
        made.rmdir()


@pytest.mark.parametrize("is_strict", [True, False])
def test_cgroups_of_another_run_are_not_ours(
    tmp_path: Path, cgroup_name: str, monkeypatch: pytest.MonkeyPatch, *, is_strict: bool
) -> None:
    monkeypatch.setenv(guards.STRICT_VARIABLE, "1" if is_strict else "")
    monkeypatch.setattr(guards, "cgroup_mounts", lambda: (tmp_path / "tree",))
    for name in ("jobworker-test-1", cgroup_name, "jobworker", "other"):
        (tmp_path / "tree" / name / "job").mkdir(parents=True)
    ours = [cgroup_name, "jobworker"] if is_strict else [cgroup_name]
    found = {Path(path).relative_to(tmp_path / "tree") for path in guards.our_cgroups()}
    assert found == {Path(name, below) for name in ours for below in ("", "job")}


@pytest.mark.anyio
async def test_a_blocking_call_of_ours_on_the_loop_is_seen() -> None:
    # Compiled under a file name inside the package: the detector goes by that.
    inside = str(Path(jobworker.__file__).parent / "planted.py")
    names: dict[str, object] = {"time": time}
    exec(compile("def block():\n    time.sleep(0)\n", inside, "exec"), names)
    block = names["block"]
    assert callable(block)
    with pytest.raises(BlockingError):
        block()


def test_a_missing_feature_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(guards.STRICT_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a pony"):
        guards.need(condition=False, what="a pony")
    monkeypatch.setenv(guards.STRICT_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match="no a pony"):
        guards.need(condition=False, what="a pony")


def test_a_host_of_another_kind_skips_in_a_strict_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guards.STRICT_VARIABLE, "1")
    with pytest.raises(pytest.skip.Exception, match="is about a unicorn"):
        guards.only_on(condition=False, kind="a unicorn")
