"""What a start of jobctl loads, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("grpc", "asyncio", "google", "cryptography", "ssl", "jobworker.client", "jobworker.model")


def loaded_after(code: str) -> set[str]:
    """The modules that are there when the code is done."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    return set(run.stderr.split())


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["--version"], ["nonsense"]])
def test_help_needs_neither_grpc_nor_asyncio(argv: list[str]) -> None:
    code = f"from jobworker.cli.main import run; run({argv})"
    assert loaded_after(code).isdisjoint(HEAVY)


def test_a_verb_needs_no_look_into_certificates() -> None:
    found = loaded_after("import jobworker.cli.jobs, jobworker.cli.run, jobworker.cli.top")
    assert "grpc" in found
    assert "cryptography" not in found
    assert not any(name.startswith(("jobworker.worker", "jobworker.jobs")) for name in found)
