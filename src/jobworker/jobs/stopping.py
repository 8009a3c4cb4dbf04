"""The wish to stop a job: recorded before anything else, so that it outlives whoever had it.

It is carried out when its caller goes away, too: a wish on record that no shim was woken for would
be carried out only by the next worker.

The shim carries it out; see supervise.py.
"""

from __future__ import annotations

import asyncio

from jobworker.errors import UnavailableError, errno_text
from jobworker.jobs.endings import Endings
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.model.ids import JobId, UserName
from jobworker.model.state import JobState
from jobworker.shim import records


class Stopper:
    """Records stops and wakes shims."""

    def __init__(self, registry: Registry, endings: Endings) -> None:
        self._registry = registry
        self._endings = endings

    async def stop(self, job_id: JobId, stopped_by: UserName, grace_s: float) -> LiveJob | None:
        """The job that will now end by itself; None if there is nothing to wait for."""
        live = self._registry.live.get(job_id)
        if live is None or live.ended.is_set():
            return None
        return await self._registry.see_through(job_id, self._stop(live, stopped_by, grace_s))

    async def _stop(self, live: LiveJob, stopped_by: UserName, grace_s: float) -> LiveJob | None:
        await self._record(live, stopped_by, grace_s)
        if self._is_over(live):
            return None
        self._registry.move(live, JobState.STOPPING)
        self._endings.wake_shim(live)
        return live

    def _is_over(self, live: LiveJob) -> bool:
        # Not in the registry: it has ended, or turned out to be a repetition of an earlier start.
        return live.ended.is_set() or self._registry.live.get(live.job.id) is not live

    async def _record(self, live: LiveJob, stopped_by: UserName, grace_s: float) -> None:
        try:
            async with live.stop_lock:
                try:
                    await asyncio.to_thread(self._write, live.job.id, stopped_by, grace_s)
                except FileNotFoundError:
                    # Its start has not made the directory yet, or its shim has just ended and
                    # cleared away what it had reserved for this record.
                    await asyncio.wait((live.started,))
                    if not self._is_over(live):
                        await asyncio.to_thread(self._write, live.job.id, stopped_by, grace_s)
        except OSError as error:
            reason = errno_text(error.errno or 0)
            raise UnavailableError(f"record the stop of job {live.job.id}", reason) from error

    def _write(self, job_id: JobId, stopped_by: str, grace_s: float) -> None:
        """In a thread.  Of several stops the first one's name and the shortest grace count."""
        with self._registry.directories.open_job(job_id) as directory:
            earlier = records.read(directory, records.STOP)
            if earlier is not None:
                stopped_by = earlier["stopped_by"]
                grace_s = min(grace_s, earlier["grace_s"])
            record = {"stopped_by": stopped_by, "grace_s": grace_s}
            records.write(directory, records.STOP, record, durable=False)
