"""Other processes: started, asked, looked at, and ended by their own pids.

Owns: helper programs that speak lines of JSON, and what /proc tells of a process.
Source: proc(5), ``smaps_rollup``, ``schedstat``, ``status``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: A gigabyte on a slow and busy machine; whatever takes longer hangs.
PATIENCE_S: Final = 600.0
_LINE_BYTES: Final = 64 * 1024 * 1024


class Helper:
    """A program that answers each line of JSON on its standard input with one on its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, **request: object) -> Any:  # noqa: ANN401 -- any JSON
        await self.tell(**request)
        return await self.answer()

    async def tell(self, **request: object) -> None:
        """Say something, and hear the answer later."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()

    async def answer(self) -> Any:  # noqa: ANN401 -- any JSON
        """What it says next."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("bench: cannot go on: a helper has ended")
        return json.loads(line)


@contextlib.asynccontextmanager
async def open_helper(*command: str | Path) -> AsyncIterator[Helper]:
    """A helper program, which has said that it is ready; killed after the block."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=_LINE_BYTES,
    )
    try:
        helper = Helper(process)
        await helper.answer()
        yield helper
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def python_helper(name: str) -> tuple[str, ...]:
    """The command line of a helper that may import everything."""
    return (sys.executable, "-m", f"bench.helpers.{name}")


@contextlib.contextmanager
def background(command: Sequence[str | Path], **options: Any) -> Any:  # noqa: ANN401 -- Popen's
    """A process that runs during the block, and is told to end after it."""
    with subprocess.Popen(list(map(str, command)), **options) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def run(command: Sequence[str | Path], **options: Any) -> str:  # noqa: ANN401 -- those of run
    """Standard output of a command that must succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        what = " ".join(map(str, command))
        raise SystemExit(f"bench: cannot run {what}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def memory_kib(pid: int, field: str = "Pss") -> int:
    """One field of a process's memory: Pss, Rss, Pss_Anon, Private_Dirty …"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(field)


def cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads so far, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def wakeups(pid: int) -> int:
    """How often its threads have waited for something and gone on."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def children(pid: int) -> list[int]:
    """Its direct children; a launcher's shims, a shim's job."""
    text = "".join((task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return [int(child) for child in text.split()]


def name_of(pid: int) -> str:
    """As ps(1) shows it, cut to 15 characters; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def cores() -> int:
    return len(os.sched_getaffinity(0))
