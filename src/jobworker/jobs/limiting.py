"""Changing the limits of a job that runs, so that afterwards it is known who changed what.

The intent is on the disk before the kernel is told, and what the kernel made of it before anybody
is answered.  A worker that dies in between leaves an intent; the next one carries it out, as it
would a stop, if the job still runs: writing a limit twice does no harm.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from dataclasses import replace
from typing import Final

from jobworker.cgroup.interface import JobCgroup
from jobworker.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
    UnenforceableLimitError,
    errno_text,
)
from jobworker.jobs.evidence import ChangedLimits
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.jobs.settings import RequireLimits, WorkerSettings
from jobworker.kernel.disks import MountedDisks
from jobworker.model.ids import JobId, UserName
from jobworker.model.job import Job, LimitChange
from jobworker.model.limits import Limits
from jobworker.shim import records

logger = logging.getLogger(__name__)

_CHANGE: Final = "the change"
_OUTCOME: Final = "what the kernel made of the change"


class LimitChanger:
    """Makes changes of limits, one after the other for each job."""

    def __init__(self, registry: Registry, disks: MountedDisks, settings: WorkerSettings) -> None:
        self._registry = registry
        self._disks = disks
        self._is_strict = settings.require_limits is RequireLimits.STRICT

    async def change(self, job_id: JobId, limits: Limits, changed_by: UserName) -> None:
        """Returns once it is made and recorded; see ``Worker.update_limits``."""
        if limits.is_empty:
            raise InvalidArgumentError("limits", "", "it takes at least one")
        live = self._registry.live.get(job_id)
        if live is None:
            await self._registry.find(job_id)
            raise _not_running(job_id)
        making = self._make(live, limits, changed_by)
        self._require(await self._registry.see_through(job_id, making))

    async def resume(self, live: LiveJob) -> None:
        """Carry out what an earlier worker meant to change when it died."""
        changes = live.job.limit_changes
        if not changes or not changes[-1].outcome_unknown:
            return
        async with live.limits_lock:
            cgroup = _running(live)
            if cgroup is None:
                return
            live.job = replace(live.job, limit_changes=changes[:-1])
            try:
                await self._finish(live, cgroup, changes[-1])
            except Exception:  # the worker serves all the same, and the history tells
                logger.exception("cannot resume a change", extra={"job_id": live.job.id})

    def _require(self, change: LimitChange) -> None:
        for limit in change.effective:
            if not limit.is_enforced and self._is_strict:
                raise UnenforceableLimitError(limit.resource.value, limit.note)

    async def _make(self, live: LiveJob, limits: Limits, changed_by: UserName) -> LimitChange:
        async with live.limits_lock:
            cgroup = _running(live)
            if cgroup is None:
                raise _not_running(live.job.id)
            intent = LimitChange(
                changed_at=datetime.datetime.now(datetime.UTC),
                changed_by=changed_by,
                before=live.job.limits.only(limits),
                after=limits,
                outcome_unknown=True,
            )
            await self._record(live.job.with_limit_change(intent), _CHANGE)
            return await self._finish(live, cgroup, intent)

    async def _finish(self, live: LiveJob, cgroup: JobCgroup, change: LimitChange) -> LimitChange:
        """Tell the kernel, and record what it made of it."""
        try:
            effective = await asyncio.to_thread(cgroup.set_limits, change.after, self._disks.now())
            change = replace(change, effective=effective, outcome_unknown=False)
        finally:
            # The job as it is now: a stop may have come meanwhile.
            self._registry.change(live, live.job.with_limit_change(change))
        await self._record(live.job, _OUTCOME)
        return change

    async def _record(self, job: Job, what: str) -> None:
        try:
            await asyncio.to_thread(self._write, job)
        except OSError as error:
            reason = errno_text(error.errno or 0)
            raise UnavailableError(f"record {what} of limits of job {job.id}", reason) from error

    def _write(self, job: Job) -> None:
        """In a thread."""
        with self._registry.directories.open_job(job.id) as directory:
            record = ChangedLimits.of(job).to_json()
            records.write(directory, records.LIMITS, record, durable=True)


def _running(live: LiveJob) -> JobCgroup | None:
    """Of a job that has started and is not settled."""
    return None if live.ended.is_set() else live.cgroup


def _not_running(job_id: JobId) -> FailedPreconditionError:
    return FailedPreconditionError(f"change the limits of job {job_id}", "it does not run")
