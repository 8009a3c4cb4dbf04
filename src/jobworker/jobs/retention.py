"""Removing ended jobs: one that is not wanted any more, and the oldest beyond what is kept.

The journal forgets a job first and keeps its id until its files are gone too: a worker that dies in
between leaves them to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from jobworker.errors import FailedPreconditionError, JobNotFoundError, JobWorkerError
from jobworker.jobs import catalog
from jobworker.jobs.registry import Registry
from jobworker.jobs.settings import Retention
from jobworker.model.ids import JobId
from jobworker.model.job import Job
from jobworker.model.state import JobState

logger = logging.getLogger(__name__)

#: Looked at in one round; a round that removes all of them is followed by another.
_ROUND: Final = 100
#: After the journal took nothing; jobs get too old also where none ends.
_AGAIN_S: Final = 60.0


class Keeper:
    """Removes jobs that are over."""

    def __init__(self, registry: Registry, retention: Retention) -> None:
        self._registry = registry
        self._retention = retention
        self._wake = asyncio.Event()
        registry.on_ended = self._wake.set
        self._is_bounded = retention != Retention()

    async def remove(self, job: Job) -> None:
        """Forget an ended job and its output.  Goes on when the caller goes away.

        Raises FailedPreconditionError while it runs.
        """
        if job.state is not JobState.ENDED:
            why = "it has not ended; stop it first"
            raise FailedPreconditionError(f"remove job {job.id}", why)
        await self._registry.see_through(job.id, self._remove(job))

    async def _remove(self, job: Job) -> None:
        registry = self._registry
        is_there = await registry.journal.run(
            lambda connection: catalog.delete(connection, job.id), durable=True
        )
        if not is_there:
            # Somebody else was first, and has taken its bytes off the owner's account.
            raise JobNotFoundError(job.id)
        live = registry.live.get(job.id)
        if live is not None:
            # Ended while the journal took nothing.
            registry.forget(live)
        left = registry.kept_bytes.get(job.owner, 0) - job.output.kept_bytes
        registry.kept_bytes[job.owner] = max(0, left)
        await self._remove_files(job.id)

    async def resume(self) -> None:
        """Remove what is left of jobs that an earlier worker was removing when it died."""
        for job_id in await self._registry.journal.run(catalog.removals):
            await self._remove_files(job_id)

    async def _remove_files(self, job_id: JobId) -> None:
        """Of a job that the journal has forgotten."""
        registry = self._registry
        await asyncio.to_thread(registry.directories.remove_job, job_id)
        # Where the journal takes nothing, the next worker looks for them once more.
        with contextlib.suppress(JobWorkerError):
            await registry.journal.run(lambda connection: catalog.end_removal(connection, job_id))

    async def run(self) -> None:
        """Keep to the retention while the worker lives: after each ending, and by the clock."""
        while self._is_bounded:
            self._wake.clear()
            try:
                next_s = await self._prune()
            except JobWorkerError as error:
                logger.error("cannot remove old jobs", extra={"reason": str(error)})  # noqa: TRY400
                next_s = _AGAIN_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next_s):
                    await self._wake.wait()

    async def _prune(self) -> float | None:
        """Remove what is too much; seconds until the next job is too old, None for never."""
        keep = self._retention
        journal = self._registry.journal
        while True:
            count = await journal.run(catalog.count_ended)
            oldest = await journal.run(lambda connection: catalog.oldest_ended(connection, _ROUND))
            removed = 0
            for job_id, ended_us in oldest:
                age_s = time.time() - ended_us / 1e6
                too_many = keep.max_jobs is not None and count - removed > keep.max_jobs
                too_old = keep.max_age_s is not None and age_s > keep.max_age_s
                if not (too_many or too_old or self._too_much()):
                    return None if keep.max_age_s is None else max(1.0, keep.max_age_s - age_s)
                await self._remove_by_id(job_id)
                removed += 1
            if not removed:
                return None

    def _too_much(self) -> bool:
        most = self._retention.max_bytes
        return most is not None and sum(self._registry.kept_bytes.values()) > most

    async def _remove_by_id(self, job_id: JobId) -> None:
        logger.info("removing an old job", extra={"job_id": job_id})
        with contextlib.suppress(JobNotFoundError):  # its owner was first
            await self.remove(await self._registry.find(job_id))
