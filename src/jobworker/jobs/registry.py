"""All jobs of a worker: the live ones in memory, the ended ones in the journal.

The only place that changes a job's state, saves it, and tells those who watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import TypeVar

from jobworker.errors import JobNotFoundError, JobWorkerError
from jobworker.jobs import catalog
from jobworker.jobs.directories import StateDirectory
from jobworker.jobs.journal import Journal
from jobworker.jobs.live import LiveJob, Subscriber, closed_error, look_at
from jobworker.model.ids import JobId, UserName
from jobworker.model.job import Job, JobFilter, JobPage
from jobworker.model.state import JobState, advance

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Registry:
    """Finds jobs and moves them from state to state."""

    def __init__(
        self, journal: Journal, directories: StateDirectory, tasks: asyncio.TaskGroup
    ) -> None:
        self.journal = journal
        self.directories = directories
        self.tasks = tasks
        self.live: dict[JobId, LiveJob] = {}
        self.kept_bytes: dict[UserName, int] = {}
        """Of ended jobs, by owner."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called after the ending of a job is in the journal."""
        self._subscribers: set[Subscriber] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._is_released = False
        self._unsaved: dict[JobId, LiveJob] = {}
        """Whose last change the journal did not take."""

    # -- finding
    # -------------------------------------------------------------------------------------

    async def find(self, job_id: JobId) -> Job:
        """As last recorded.  Raises JobNotFoundError."""
        live = self.live.get(job_id)
        if live is not None:
            return live.job
        job = await self.journal.run(lambda connection: catalog.load(connection, job_id))
        if job is None:
            raise JobNotFoundError(job_id)
        return job

    async def find_owner(self, job_id: JobId) -> UserName:
        """Asks the journal whether or not the job is live.  Raises JobNotFoundError."""
        owner = await self.journal.run(lambda connection: catalog.owner_of(connection, job_id))
        if owner is None:
            raise JobNotFoundError(job_id)
        return owner

    async def page(self, which: JobFilter, size: int, token: str) -> JobPage:
        """Newest first; live jobs as they are now."""
        jobs, next_token = await self.journal.run(
            lambda connection: catalog.page(connection, which, size, token)
        )
        now = (self.live[job.id].job if job.id in self.live else job for job in jobs)
        # One that has moved on since the journal looked may not fit any more.
        fitting = tuple(job for job in now if is_match(which, job))
        return JobPage(jobs=fitting, next_page_token=next_token)

    def running_of(self, owner: UserName) -> int:
        """Jobs of an owner that are not over."""
        return sum(
            live.job.owner == owner and live.job.state is not JobState.ENDED
            for live in self.live.values()
        )

    # -- changing
    # ------------------------------------------------------------------------------------

    def add(self, job: Job) -> LiveJob:
        """Begin to keep a job in memory."""
        live = self.live[job.id] = LiveJob(job)
        return live

    def forget(self, live: LiveJob) -> None:
        self.live.pop(live.job.id, None)
        self._unsaved.pop(live.job.id, None)

    def change(self, live: LiveJob, job: Job) -> None:
        """The job is now like this; the journal hears of it soon."""
        if live.job.state is not job.state:
            advance(live.job.state, job.state)
        live.job = job
        # Who waits for it wakes after this has begun: what they then ask the journal comes behind.
        self._save_soon(live)
        for subscriber in self._subscribers:
            subscriber.tell(job)

    def move(self, live: LiveJob, state: JobState) -> None:
        """Into another state, if it is not in it."""
        if live.job.state is not state:
            self.change(live, replace(live.job, state=state))

    def end(self, live: LiveJob, job: Job) -> None:
        """The job is over: ``job`` has its ending.  It leaves memory once the journal has it."""
        self.change(live, job)
        owner = job.owner
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + job.output.kept_bytes
        if live.started.done():
            pass
        elif live.failure is None:
            live.started.set_result(job)
        else:
            live.started.set_exception(live.failure)
        live.end()

    def _save_soon(self, live: LiveJob) -> None:
        self.tasks.create_task(self._save(live, live.job))

    async def _save(self, live: LiveJob, job: Job) -> None:
        try:
            await self.journal.run(lambda connection: catalog.update(connection, job))
        except JobWorkerError as error:
            # The records in its directory say the same; a later worker reads them.  Until then, or
            # until the journal takes something again, the job stays in memory.
            logger.error("cannot save a job", extra={"job_id": job.id, "reason": str(error)})  # noqa: TRY400
            self._unsaved[job.id] = live
            return
        if job.state is JobState.ENDED:
            self.forget(live)
            self.on_ended()
        unsaved, self._unsaved = self._unsaved, {}
        for other in unsaved.values():
            self._save_soon(other)

    async def see_through(self, job_id: JobId, work: Coroutine[object, object, T]) -> T:
        """Have done to its end what was asked for a job; cancelling stops only the waiting.

        Raises what it raises, UnavailableError once the worker is closed.
        """
        if self._is_released:
            work.close()
            raise closed_error(f"change job {job_id}")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(look_at)
        task = self.tasks.create_task(_carry_out(job_id, work, done))
        # No-op but for a loop that is torn down, which cancels all tasks.
        task.add_done_callback(lambda _: done.cancel())
        return await asyncio.shield(done)

    def run_until_released(
        self, work: Coroutine[object, object, None], then: Callable[[], None] = lambda: None
    ) -> None:
        """Run what may wait for long, until it is done or the worker is closed.

        then: called afterwards in any case, also if ``work`` was cancelled before its first step
        and so could not clean up after itself.
        """
        task = self.tasks.create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        task.add_done_callback(lambda _: then())
        if self._is_released:
            # Of a start that was under way: else closing would wait until that job ends.
            task.cancel()

    def release(self) -> None:
        """The worker is closed: stop waiting.  Starts and saves that are under way are finished."""
        self._is_released = True
        for task in self._waiting:
            task.cancel()
        for subscriber in self._subscribers:
            subscriber.close()

    def require_open(self, action: str) -> None:
        """Raises UnavailableError, which says ``action``, once the worker is closed."""
        if self._is_released:
            raise closed_error(action)

    # -- watching
    # ------------------------------------------------------------------------------------

    async def watch(
        self, which: JobFilter, heartbeat_s: float | None
    ) -> AsyncGenerator[Job | None, None]:
        """Live jobs that match, then None, then each change; None too as a sign of life.

        From the first None on no change is missed: who waits for the end of a job that was not
        among the live ones can ask then whether it has ended already.

        Raises UnavailableError once the worker is closed.
        """
        self.require_open("watch jobs")
        subscriber = Subscriber(lambda job: is_match(which, job))
        self._subscribers.add(subscriber)
        try:
            for live in tuple(self.live.values()):
                if is_match(which, live.job):
                    yield live.job
            yield None
            while True:
                jobs: list[Job | None] = [None]
                try:
                    async with asyncio.timeout(heartbeat_s):
                        jobs = [*await subscriber.next_changes()]
                except TimeoutError:
                    pass
                for job in jobs:
                    yield job
        finally:
            self._subscribers.discard(subscriber)


async def _carry_out(
    job_id: JobId, work: Coroutine[object, object, T], done: asyncio.Future[T]
) -> None:
    """Never raises: the outcome is that of ``done``."""
    try:
        done.set_result(await work)
    except Exception as error:  # whoever waits for it gets it
        if not isinstance(error, JobWorkerError):
            logger.exception("cannot do what was asked for", extra={"job_id": job_id})
        done.set_exception(error)


def is_match(which: JobFilter, job: Job) -> bool:
    """Does a job fit a filter?  The journal asks the same in SQL."""
    return (
        which.owner in (None, job.owner)
        and (not which.states or job.state in which.states)
        and job.id.startswith(which.id_prefix)
        and all(job.spec.labels.get(key) == value for key, value in which.labels.items())
    )
