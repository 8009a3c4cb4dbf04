"""``jobworker``: subcommands, usage, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker import __version__
from jobworker.host.main import main


def exit_of(*words: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def test_without_a_subcommand_it_tells_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "usage: jobworker" in output.err


def test_wrong_usage_is_2() -> None:
    assert exit_of("nonsense") == 2
    assert exit_of("init") == 2
    assert exit_of("cert") == 2
    assert exit_of("cert", "issue", "alice", "--dir", "x") == 2


def test_help_and_version_are_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--help") == 0
    assert "make a configuration" in capsys.readouterr().out
    assert exit_of("--version") == 0
    assert capsys.readouterr().out == f"jobworker {__version__}\n"


def test_a_failure_is_1_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobworker.host.main", "cert", "list", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("jobworker: cannot read ")
    assert len(done.stderr.splitlines()) == 1


def test_certificates_are_made_without_loading_grpc() -> None:
    """And so under no TLS policy, and quickly."""
    program = (
        "import sys; from jobworker.host.main import main\n"
        "try: main(['cert', '--help'])\n"
        "except SystemExit: assert 'grpc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_reader_that_has_seen_enough_gets_no_traceback(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "jobworker"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [program, "init", "--dir", tmp_path / "jw"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
