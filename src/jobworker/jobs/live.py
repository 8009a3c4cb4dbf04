"""Jobs that are not over: what the worker keeps of them in memory, and who wants to hear of
changes.

An ended job leaves memory as soon as the journal has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobworker.cgroup.interface import JobCgroup
from jobworker.model.ids import JobId
from jobworker.model.job import Job
from jobworker.output.watch import Signal


class LiveJob:
    """One job from its start until its ending is in the journal."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pidfd: int | None = None
        """Of the shim; owned by the task that watches it."""
        self.cgroup: JobCgroup | None = None
        self.changed = Signal()
        """The output grew, or the job has ended."""
        self.started: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        """How the start went."""
        self.failure: Exception | None = None
        """Why it failed; told when the job has ended by it."""
        self.started.add_done_callback(_look_at)
        self.ended = asyncio.Event()
        self.stop_lock = asyncio.Lock()
        """Held while the wish to stop is recorded: two at once would share one draft."""
        self.limits_lock = asyncio.Lock()
        """Held while limits are changed, and while the job is settled: its ending tells of all
        changes, and none comes after it."""


def _look_at(started: asyncio.Future[Job]) -> None:
    """A failed start is recorded in the job; nobody need be waiting for it."""
    if not started.cancelled():
        started.exception()


class Subscriber:
    """Somebody who watches jobs change: what changed since the last look, each job once."""

    def __init__(self, wants: Callable[[Job], bool]) -> None:
        self._wants = wants
        self._changed: dict[JobId, Job] = {}
        self._signal = Signal()

    def tell(self, job: Job) -> None:
        if self._wants(job):
            self._changed[job.id] = job
            self._signal.notify()

    async def next_changes(self) -> list[Job]:
        """Waits until there is at least one."""
        while not self._changed:
            await self._signal.take().wait()
        jobs = list(self._changed.values())
        self._changed.clear()
        return jobs
