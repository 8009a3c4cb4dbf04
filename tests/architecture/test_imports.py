"""What an import drags in.  Each test asks a fresh interpreter: this one has all of it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jobworker

SOURCE = Path(jobworker.__file__).parent.parent

#: Floors whose code may run in the launcher and the shims forked from it.
LAUNCHER_FLOORS = ("errors", "model", "kernel", "cgroup", "output", "shim")
#: What only the machine that runs jobs needs.
HOST_FLOORS = ("kernel", "cgroup", "output", "shim", "jobs", "worker", "server", "host")


def loaded_by(statement: str, *options: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after ``statement``."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def modules_of(floor: str) -> list[str]:
    """The floor itself and, where it is a package, every module in it."""
    name = f"jobworker.{floor}"
    folder = SOURCE / "jobworker" / floor
    if not folder.is_dir():
        return [name]
    found = pkgutil.walk_packages([str(folder)], prefix=f"{name}.")
    return [name, *(module.name for module in found)]


LAUNCHER_MODULES = [name for floor in LAUNCHER_FLOORS for name in modules_of(floor)]


def test_the_root_imports_nothing() -> None:
    assert loaded_by("import jobworker") - loaded_by("pass") == {"jobworker"}


@pytest.mark.parametrize("door", ["jobworker.client", "jobworker.cli.main"])
def test_the_client_brings_nothing_of_the_host(door: str) -> None:
    host = tuple(f"jobworker.{floor}" for floor in HOST_FLOORS)
    loaded = loaded_by(f"import {door}")
    assert [name for name in sorted(loaded) if name.startswith(host)] == []


def test_the_values_bring_no_network() -> None:
    loaded = loaded_by("import jobworker.model, jobworker.errors")
    assert loaded.isdisjoint({"asyncio", "grpc", "ssl", "socket", "google.protobuf"})


def test_the_library_brings_no_network_stack() -> None:
    loaded = loaded_by("import jobworker.worker")
    assert loaded.isdisjoint({"grpc", "google.protobuf", "cryptography", "jobworker.server"})


@pytest.mark.parametrize("module", LAUNCHER_MODULES)
def test_launcher_code_stands_on_the_standard_library(module: str) -> None:
    # -S: no site-packages, -I: no environment; whatever else it needs is missing and fails.
    loaded = loaded_by(f"import {module}", "-I", "-S")
    ours = {name.split(".")[1] for name in loaded if name.startswith("jobworker.")}
    assert ours <= set(LAUNCHER_FLOORS)


def test_the_launcher_stays_small() -> None:
    # It is forked for every job: what it imports, each shim carries, and no thread may run in it.
    loaded = loaded_by("import jobworker.shim.server", "-I", "-S")
    assert loaded.isdisjoint({"asyncio", "ssl", "subprocess", "logging", "sqlite3"})
