"""Jobs that wait for the test to say go, so that it can change something while they run."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from jobworker.model import Job, JobSpec
from jobworker.worker import Worker
from support.worker import ALICE, read_until, sh


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that has started and waits."""

    job: Job
    pid: int

    def go(self) -> None:
        os.kill(self.pid, signal.SIGUSR1)


def when_told(script: str, *arguments: str, **spec: Any) -> JobSpec:
    """A shell script that does nothing until ``Waiting.go``."""
    waiting = f"go=; trap go=1 USR1; echo $$; until [ $go ]; do sleep 0.05; done; {script}"
    return sh(waiting, *arguments, **spec)


async def start_waiting(worker: Worker, spec: JobSpec) -> Waiting:
    """Start what ``when_told`` made; returns once it waits."""
    job = await worker.start(spec, owner=ALICE)
    pid = await read_until(worker, job.id, lambda data: data.endswith(b"\n"))
    return Waiting(job=job, pid=int(pid))
