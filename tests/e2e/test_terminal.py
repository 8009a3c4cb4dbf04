"""jobctl on a terminal: colours, redrawing, and a Ctrl-C that is typed."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from support.daemon import PATIENCE_S, Jobctl, shell

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def on_terminal(
    user: Jobctl, *args: str, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command as the foreground of a terminal of its own, and our side of that."""
    ours, theirs = pty.openpty()
    environment = {key: text for key, text in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", **env}
    try:
        with subprocess.Popen(
            # A session of its own, whose terminal becomes what is on standard input: setsid(1).
            ["setsid", "--ctty", *map(str, user.command(*args))],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
        ) as process:
            os.close(theirs)
            try:
                yield process, ours
            finally:
                process.kill()
    finally:
        os.close(ours)


def read_until(terminal: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += os.read(terminal, 65536)
    return shown


def test_colours_on_a_terminal_and_none_for_who_wants_none(alice) -> None:
    job_id = alice.start(*shell("exit 3"))
    alice("wait", job_id)
    with on_terminal(alice, "status", job_id) as (process, terminal):
        assert b"\x1b[31m" in read_until(terminal, b"exited with code 3")
        process.wait(PATIENCE_S)
    with on_terminal(alice, "status", job_id, NO_COLOR="1") as (process, terminal):
        assert b"\x1b" not in read_until(terminal, b"exited with code 3")
        process.wait(PATIENCE_S)


def test_top_is_drawn_again_and_again_until_ctrl_c(alice) -> None:
    job_id = alice.start(*shell("sleep 600"))
    with on_terminal(alice, "top", "--interval", "100ms") as (process, terminal):
        shown = read_until(terminal, job_id.encode())
        assert shown.startswith(b"\x1b[H\x1b[J")
        alice("stop", "--kill", job_id)
        read_until(terminal, b"COMMAND\x1b[0m\x1b[K\r\n\x1b[J")
        os.write(terminal, b"\x03")
        assert process.wait(PATIENCE_S) == 130


def test_a_ctrl_c_that_is_typed_stops_the_job(alice) -> None:
    script = "trap 'echo caught; exit 5' TERM; echo ready; sleep 60 & wait"
    with on_terminal(alice, "run", *shell(script)) as (process, terminal):
        read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        shown = read_until(terminal, b"caught")
        assert b"stopping the job; once more leaves it alone" in shown
        assert process.wait(PATIENCE_S) == 5
