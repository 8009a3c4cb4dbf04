"""Jobs that are not over: what the worker keeps of them in memory, and who wants to hear of
changes.

An ended job leaves memory as soon as the journal has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jobworker.cgroup.interface import JobCgroup
from jobworker.errors import UnavailableError
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
        """The output grew, the job has ended, or nobody watches it any more."""
        self.is_of_this_boot = True
        """Has the machine been up since it was recorded?"""
        self.started: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        """How the start went."""
        self.failure: Exception | None = None
        """Why it failed; told when the job has ended by it."""
        self.refusal = ""
        """What was said of it by those who did not execute the command."""
        self.started.add_done_callback(look_at)
        self.ended = asyncio.Event()
        self._released = asyncio.Event()
        """It has ended, or nobody watches it any more."""
        self.stop_lock = asyncio.Lock()
        """Held while the wish to stop is recorded: two at once would share one draft."""
        self.limits_lock = asyncio.Lock()
        """Held while limits are changed, and while the job is settled: its ending tells of all
        changes, and none comes after it."""

    def end(self) -> None:
        """It has ended, and ``job`` says how."""
        self.ended.set()
        self._released.set()
        self.changed.notify()

    def abandon(self) -> None:
        """This worker will not hear of its end any more; no-op if it has ended.

        The job goes on.  Whoever waits for it or follows it is told, and would else wait for ever.
        """
        if not self.started.done():
            self.started.set_exception(closed_error(f"start job {self.job.id}"))
        self._released.set()
        self.changed.notify()

    async def wait_ended(self) -> None:
        """Raises UnavailableError if the worker is closed before that."""
        await self._released.wait()
        self.is_over("wait for")

    def is_over(self, action: str) -> bool:
        """Has it ended?

        Raises UnavailableError, which says ``action``, if the worker was closed before that.
        """
        if self._released.is_set() and not self.ended.is_set():
            raise closed_error(f"{action} job {self.job.id}")
        return self.ended.is_set()


def closed_error(action: str) -> UnavailableError:
    return UnavailableError(action, "the worker is closed")


def look_at(outcome: asyncio.Future[Any]) -> None:
    """Nobody need be waiting for it: asyncio shall not complain of a failure that nobody took."""
    if not outcome.cancelled():
        outcome.exception()


class Subscriber:
    """Somebody who watches jobs change: what changed since the last look, each job once."""

    def __init__(self, wants: Callable[[Job], bool]) -> None:
        self._wants = wants
        self._changed: dict[JobId, Job] = {}
        self._signal = Signal()
        self._is_closed = False

    def close(self) -> None:
        """There will be no more changes."""
        self._is_closed = True
        self._signal.notify()

    def tell(self, job: Job) -> None:
        if self._wants(job):
            self._changed[job.id] = job
            self._signal.notify()

    async def next_changes(self) -> list[Job]:
        """Waits until there is at least one.  Raises UnavailableError once the worker is closed."""
        while not self._changed:
            if self._is_closed:
                raise closed_error("watch jobs")
            await self._signal.take().wait()
        jobs = list(self._changed.values())
        self._changed.clear()
        return jobs
