"""The library's door: run jobs on this machine, without any network.

::

    async with open_worker(Path("/var/lib/jobworker")) as worker:
        job = await worker.start(JobSpec(argv=("make", "-j4")), owner=UserName("alice"))
        async for event in worker.follow(job.id):
            ...
        job = await worker.wait(job.id)

A worker belongs to one event loop and one state directory.  Jobs do not depend on it: they go on
when the block is left or the process is killed, and the next worker on the same directory finds
them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

from jobworker.errors import InvalidArgumentError, JobNotFoundError
from jobworker.jobs.engine import Engine, open_engine
from jobworker.jobs.settings import RequireLimits, Retention, WorkerSettings
from jobworker.model.ids import JobId, RequestId, UserName
from jobworker.model.job import Job, JobFilter, JobPage
from jobworker.model.limits import Limits
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import JobSpec
from jobworker.output.cursor import View

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000
#: A stop that waits longer than this for SIGTERM to work is a mistake in the unit.
GRACE_S_MAX: Final = 24 * 3600.0


@contextlib.asynccontextmanager
async def open_worker(
    state_dir: Path, settings: WorkerSettings | None = None
) -> AsyncIterator[Worker]:
    """A worker on a state directory, which is made if it is not there.

    Finds the jobs of an earlier worker first.  Leaving the block leaves the jobs running.

    Raises FailedPreconditionError if another worker has the directory, UnavailableError if it can't
    be used.
    """
    async with open_engine(state_dir, settings or WorkerSettings()) as engine:
        yield Worker(engine)


class Worker:
    """Starts, stops, queries and follows jobs.  Made by ``open_worker``."""

    def __init__(self, engine: Engine) -> None:
        self._registry = engine.registry
        self._starter = engine.starter
        self._stopper = engine.stopper
        self._changer = engine.changer
        self._keeper = engine.keeper
        self._follower = engine.follower
        self._meter = engine.meter
        self._settings = engine.settings
        self.hierarchy = engine.hierarchy
        """What this host can enforce; for the operator's tools."""

    # -- starting and stopping

    async def start(
        self,
        spec: JobSpec,
        *,
        owner: UserName,
        policy: JobPolicy | None = None,
        request_id: RequestId | None = None,
    ) -> Job:
        """Start a command; returns once it is executed.

        policy: completes and bounds the spec; without one nothing is limited that the spec does not
        limit.  request_id: a repeated call with the same one, also after a crash, returns the job
        of the first, for as long as that is kept.

        Raises StartFailedError if the command can't be executed, UnenforceableLimitError,
        ResourceExhaustedError, InvalidArgumentError, RequestReusedError, UnavailableError.
        Cancelling stops the waiting: the job starts all the same.
        """
        return await self._starter.start(spec, owner, policy or JobPolicy(), request_id)

    async def stop(
        self,
        job_id: JobId,
        *,
        stopped_by: UserName,
        grace_s: float | None = None,
        wait: bool = True,
    ) -> Job:
        """SIGTERM to all processes of a job, SIGKILL after ``grace_s``; 0 is SIGKILL at once.

        Idempotent.  The wish is recorded before this waits, and is carried out whether or not
        somebody waits or lives.  A later stop can shorten the grace, never lengthen it.
        """
        if grace_s is not None and not 0 <= grace_s <= GRACE_S_MAX:
            raise InvalidArgumentError("grace", grace_s, f"it takes 0 to {GRACE_S_MAX:.0f} seconds")
        grace = self._settings.default_grace_s if grace_s is None else grace_s
        live = await self._stopper.stop(job_id, stopped_by, grace)
        if live is None or not wait:
            return await self.get(job_id)
        await live.wait_ended()
        return live.job

    async def stop_all(self, *, stopped_by: UserName, grace_s: float | None = None) -> None:
        """Stop every running job and wait until all have ended."""
        async with asyncio.TaskGroup() as tasks:
            for job_id in tuple(self._registry.live):
                tasks.create_task(self._stop_if_there(job_id, stopped_by, grace_s))

    async def _stop_if_there(
        self, job_id: JobId, stopped_by: UserName, grace_s: float | None
    ) -> None:
        with contextlib.suppress(JobNotFoundError):  # a repetition of a start, taken back
            await self.stop(job_id, stopped_by=stopped_by, grace_s=grace_s)

    async def update_limits(self, job_id: JobId, limits: Limits, *, changed_by: UserName) -> Job:
        """Change those limits of a running job that are given; the job's history tells of it.

        The intent is recorded before the kernel is told and the outcome before this returns.
        Cancelling stops the waiting: the change is made all the same.

        Raises FailedPreconditionError if it has ended, UnavailableError if it can't be recorded,
        UnenforceableLimitError if this host does not keep one of them and the settings are strict;
        then some may have been changed, and the history tells which.
        """
        await self._changer.change(job_id, limits, changed_by)
        return await self.get(job_id)

    async def delete(self, job_id: JobId) -> None:
        """Remove an ended job with its output.  Who reads it just now reads on to its end.

        Cancelling stops the waiting: once it is begun, the job is removed all the same.

        Raises FailedPreconditionError while it runs.
        """
        await self._keeper.remove(await self._registry.find(job_id))

    # -- asking

    async def get(self, job_id: JobId) -> Job:
        """A job as it is now, with its usage.  Raises JobNotFoundError."""
        job = await self._registry.find(job_id)
        live = self._registry.live.get(job_id)
        return job if live is None else await asyncio.to_thread(self._meter.measure, live, job)

    async def owner_of(self, job_id: JobId) -> UserName:
        """Who started a job.  Raises JobNotFoundError, no sooner and no later than it would answer.

        So the time it takes tells nothing about a job to those who may not know of it.
        """
        return await self._registry.find_owner(job_id)

    async def list(
        self,
        which: JobFilter | None = None,
        *,
        page_size: int = PAGE_SIZE_DEFAULT,
        page_token: str = "",
    ) -> JobPage:
        """Jobs, newest first; live ones with their usage."""
        if not 1 <= page_size <= PAGE_SIZE_MAX:
            raise InvalidArgumentError("page_size", page_size, f"it takes 1 to {PAGE_SIZE_MAX}")
        page = await self._registry.page(which or JobFilter(), page_size, page_token)
        return await asyncio.to_thread(self._meter.measure_page, page)

    def kept_bytes(self) -> int:
        """Output of ended jobs that is kept, of all owners together.  Safe to call in a thread."""
        return sum(tuple(self._registry.kept_bytes.values()))

    async def wait(self, job_id: JobId) -> Job:
        """The job once it has ended.

        Raises JobNotFoundError, UnavailableError if the worker is closed before that.
        """
        live = self._registry.live.get(job_id)
        if live is None:
            return await self._registry.find(job_id)
        await live.wait_ended()
        return live.job

    def watch(
        self, which: JobFilter | None = None, *, heartbeat_s: float | None = None
    ) -> AsyncGenerator[Job | None, None]:
        """Live jobs that match, then None, then each change for as long as it is iterated.

        heartbeat_s: None again whenever nothing changed for so long.  Of several changes of a job
        between two looks the last one is given.  Raises UnavailableError once the worker is closed.
        An async generator: close it with ``contextlib.aclosing``.
        """
        return self._registry.watch(which or JobFilter(), heartbeat_s)

    # -- output

    async def follow(
        self,
        job_id: JobId,
        *,
        offset: int = 0,
        follow: bool = True,
        stream: Stream | None = None,
        tail_lines: int | None = None,
        since_us: int | None = None,
        exact_times: bool = False,
        heartbeat_s: float | None = None,
    ) -> AsyncGenerator[Chunk | Heartbeat | EndOfOutput, None]:
        """The output of a job from byte ``offset`` on, and as it is written; ends with EndOfOutput.

        follow: False ends with what is there now.  stream: only this one.  tail_lines, since_us:
        where to begin, instead of ``offset``.  exact_times: do not join what was written at
        different times.  heartbeat_s: a Heartbeat after so long without output, and with tail_lines
        or since_us one at the beginning, which tells the place.

        Raises JobNotFoundError, InvalidArgumentError for an offset beyond the end of a job that has
        ended, DataLossError if bytes that were kept are not there, UnavailableError if the worker
        is closed before the job has ended.  An async generator: close it with
        ``contextlib.aclosing``.
        """
        if offset < 0:
            raise InvalidArgumentError("offset", offset, "it takes 0 or more")
        if tail_lines is not None and tail_lines < 0:
            raise InvalidArgumentError("tail_lines", tail_lines, "it takes 0 or more")
        view = View(
            offset=offset,
            stream=stream,
            tail_lines=tail_lines,
            since_us=since_us,
            exact_times=exact_times,
        )
        events = self._follower.follow(job_id, view, follow=follow, heartbeat_s=heartbeat_s)
        async with contextlib.aclosing(events):
            # Not ``async for``, whose variable would keep each chunk until the next one is there.
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield await anext(events)


__all__ = [
    "RequireLimits",
    "Retention",
    "Worker",
    "WorkerSettings",
    "open_worker",
]
