"""How the worker learns that a job is over, and what it does when the shim can't say.

A shim that exits has written the ending.  One that was killed has not: then the job's cgroup is
killed, what the log has is kept, and the ending is LOST; it is never made up.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
from dataclasses import replace

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import Hierarchy, JobCgroup
from jobworker.jobs.clearing import clear_cgroup, wait_readable
from jobworker.jobs.evidence import Evidence, count_output, read_evidence, read_fault
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.jobs.shortage import insist, is_shortage
from jobworker.kernel.process import ProcessName, open_process, read_boot_id, send_signal
from jobworker.model.ending import Ending, EndReason
from jobworker.model.ids import JobId
from jobworker.model.job import Job
from jobworker.model.state import JobState
from jobworker.model.usage import Usage
from jobworker.output.log import release_room
from jobworker.shim.supervise import WAKE_SIGNAL

logger = logging.getLogger(__name__)


class Endings:
    """Waits for shims and settles what became of their jobs."""

    def __init__(self, registry: Registry, hierarchy: Hierarchy) -> None:
        self._registry = registry
        self._directories = registry.directories
        self._hierarchy = hierarchy

    def watch(self, live: LiveJob, evidence: Evidence) -> bool:
        """Take care of a job whose shim lives: from here on its end is noticed.

        False if the shim is gone already: then ``settle`` it.
        """
        shim = evidence.shim
        if shim is None:
            return False
        # Where it can't be known now, as without a free descriptor, ``_wait`` finds out.
        with contextlib.suppress(OSError):
            if _hold(live, shim) is None:
                return False
        live.cgroup = self._cgroup(live.job, evidence)
        self._registry.run_until_released(self._wait(live, shim), then=lambda: _let_go(live))
        return True

    async def evidence_of(self, job_id: JobId) -> Evidence:
        """What a job's records prove, as soon as they can be read."""
        return await insist(
            lambda: asyncio.to_thread(read_evidence, self._directories, job_id), job_id
        )

    def wake_shim(self, live: LiveJob) -> None:
        """Have the shim look at the records; no-op if it is not known or gone."""
        if live.pidfd is not None:
            send_signal(live.pidfd, WAKE_SIGNAL)

    async def _wait(self, live: LiveJob, shim: ProcessName) -> None:
        await insist(lambda: self._wait_gone(live, shim), live.job.id)
        _close(live)
        await self.settle(live)

    async def _wait_gone(self, live: LiveJob, shim: ProcessName) -> None:
        """Raises OSError where that can't be waited for now."""
        is_new = live.pidfd is None
        pidfd = _hold(live, shim)
        if pidfd is None:
            return
        if is_new and live.job.state is JobState.STOPPING:
            # Nobody could tell it.
            self.wake_shim(live)
        await wait_readable(pidfd)

    async def settle(self, live: LiveJob) -> None:
        """The shim is gone, or there never was one: end the job by what the records prove."""
        async with live.limits_lock:
            await self._settle(live)

    async def _settle(self, live: LiveJob) -> None:
        job_id = live.job.id
        evidence = await self.evidence_of(job_id)
        job = live.job
        if evidence.started is not None and job.started_at is None:
            started = evidence.started
            job = replace(job, started_at=started.at, effective=started.effective)
        if evidence.ended is not None:
            # The cgroup too: the shim may have been killed between the record and the removal.
            await self._clear(job, evidence)
            ended = _with_ending(job, evidence.ended.ending, evidence.ended.at)
        else:
            ended = await self._lose(live, job, evidence)
        await asyncio.to_thread(self._directories.remove_scratch, job_id)
        self._registry.end(live, ended)

    async def _lose(self, live: LiveJob, job: Job, evidence: Evidence) -> Job:
        usage = await self._clear(job, evidence)
        totals = await insist(
            lambda: asyncio.to_thread(count_output, self._directories, job.id), job.id
        )
        await asyncio.to_thread(self._release_room, job.id)
        fault = await asyncio.to_thread(read_fault, self._directories, job.id)
        reason, message = self._account_without_record(live, evidence, fault)
        logger.error("job ended without a record", extra={"job_id": job.id, "reason": message})
        ending = Ending(reason=reason, message=message, usage=usage, output=totals)
        return _with_ending(job, ending, datetime.datetime.now(datetime.UTC))

    def _release_room(self, job_id: JobId) -> None:
        with contextlib.suppress(OSError), self._directories.open_job(job_id) as directory:
            release_room(directory)

    async def _clear(self, job: Job, evidence: Evidence) -> Usage:
        """Kill what is left of a job and remove its cgroups; what it had used."""
        return await insist(lambda: self._try_to_clear(job, evidence), job.id)

    async def _try_to_clear(self, job: Job, evidence: Evidence) -> Usage:
        try:
            return await clear_cgroup(self._cgroup(job, evidence))
        except OSError as error:
            if is_shortage(error):
                raise
            reason = os.strerror(error.errno or 0)
            logger.exception("cannot clear a job", extra={"job_id": job.id, "reason": reason})
            return Usage()

    def _account_without_record(
        self, live: LiveJob, evidence: Evidence, fault: str
    ) -> tuple[EndReason, str]:
        """Why there is no ending, as far as it can be known."""
        if live.refusal:
            # Where it could not be recorded: the disk is full, or there was no directory yet.
            return EndReason.START_FAILED, live.refusal
        # The directory is made after the journal's row; only a machine that goes down, or somebody
        # later, can have taken it away.
        was_starting = live.job.state is JobState.STARTING
        was_made = evidence.has_directory or not (live.is_of_this_boot and was_starting)
        if evidence.shim is None and not (was_made and evidence.damage):
            why = "the start was interrupted before the command was executed"
            return EndReason.START_FAILED, why
        if evidence.shim is not None and evidence.shim.boot_id != read_boot_id():
            return EndReason.LOST, "the machine went down while it ran"
        if evidence.damage:
            return EndReason.LOST, f"there is no record of its ending: {evidence.damage}"
        because = f" ({fault})" if fault else ""
        if evidence.started is None and was_starting:
            return (
                EndReason.LOST,
                f"its shim was killed{because} while starting it; it may have run",
            )
        return EndReason.LOST, f"its shim was killed{because}; the job was killed with it"

    def _cgroup(self, job: Job, evidence: Evidence) -> JobCgroup:
        # Without a readable order it is where a job of this id would be put now.
        order = evidence.order
        return open_job(self._hierarchy.plan(job.id) if order is None else order.cgroup)


def _hold(live: LiveJob, shim: ProcessName) -> int | None:
    """The pidfd of its shim, from now on the job's; None if it is gone.  Raises OSError."""
    if live.pidfd is None:
        live.pidfd = open_process(shim)
    return live.pidfd


def _close(live: LiveJob) -> None:
    """The pidfd of its shim; no-op if it is closed."""
    pidfd, live.pidfd = live.pidfd, None
    if pidfd is not None:
        os.close(pidfd)


def _let_go(live: LiveJob) -> None:
    """Nobody watches the job any more."""
    _close(live)
    live.abandon()


def _with_ending(job: Job, ending: Ending, at: datetime.datetime) -> Job:
    return replace(
        job,
        state=JobState.ENDED,
        ended_at=at,
        ending=ending,
        usage=ending.usage,
        output=ending.output,
        conditions=(),
    )
