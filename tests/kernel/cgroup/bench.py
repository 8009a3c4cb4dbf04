"""One job cgroup, and commands to run in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from jobworker.cgroup.interface import Hierarchy, JobCgroup

IN_JOB: Final = str(Path(__file__).parent / "in_job.py")
SHELL: Final = "/bin/sh"
#: For things that take milliseconds, on a machine that is busy with other things.
PATIENCE_S: Final = 20.0


class Bench:
    """One job cgroup, and commands to run in it."""

    def __init__(self, hierarchy: Hierarchy, job: JobCgroup) -> None:
        self.hierarchy = hierarchy
        self.job = job
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A command in the job; it has a pipe for its output."""
        plan = json.dumps(self.job.plan.to_json())
        command = [sys.executable, "-I", IN_JOB, plan, *argv]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def start_ready(self, *argv: str) -> subprocess.Popen[str]:
        """A command that has written its first line."""
        process = self.start(*argv)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def run(self, *argv: str) -> tuple[int, str]:
        """The exit code and the output of a command."""
        process = self.start(*argv)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def wait_empty(self) -> None:
        """Return once no process of the job is left."""
        deadline = time.monotonic() + PATIENCE_S
        events = self.job.open_events()
        try:
            while self.job.is_populated():
                assert time.monotonic() < deadline, f"still there: {self.job.pids()}"
                if events is None:
                    self._wait_one()
                    continue
                announced = select.poll()
                announced.register(events, select.POLLPRI)
                announced.poll(1000)
                os.pread(events, 4096, 0)
        finally:
            if events is not None:
                os.close(events)

    def _wait_one(self) -> None:
        for pid in self.job.pids()[:1]:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                select.select([fd], [], [], 1)
                os.close(fd)

    def end(self) -> None:
        """Kill what is left, wait for all of it, and remove the cgroups."""
        try:
            self.job.kill()
            self.wait_empty()
        finally:
            for process in self._started:
                if process.returncode is None:
                    process.communicate(timeout=PATIENCE_S)
                elif process.stdout is not None:
                    process.stdout.close()
        self.job.remove()
