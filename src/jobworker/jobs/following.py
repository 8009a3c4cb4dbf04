"""Following the output of a job, from its start to the ending that closes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from jobworker.errors import DataLossError, InvalidArgumentError
from jobworker.jobs.live import LiveJob
from jobworker.jobs.measuring import Meter
from jobworker.jobs.registry import Registry
from jobworker.model.ending import EndReason
from jobworker.model.ids import JobId
from jobworker.model.job import Job
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat
from jobworker.output.cursor import View
from jobworker.output.follow import read_log
from jobworker.output.reader import LogReader
from jobworker.output.watch import LogWatcher, Signal


class Follower:
    """Opens logs for any number of readers, who share nothing but the watch on a file."""

    def __init__(self, registry: Registry, watcher: LogWatcher, meter: Meter) -> None:
        self._registry = registry
        self._watcher = watcher
        self._meter = meter

    async def follow(
        self, job_id: JobId, view: View, *, follow: bool, heartbeat_s: float | None
    ) -> AsyncGenerator[Chunk | Heartbeat | EndOfOutput, None]:
        """See ``Worker.follow``."""
        job = await self._registry.find(job_id)
        live = self._registry.live.get(job_id)
        if live is not None and not live.started.done():
            # Until then there is no log.  A failed start has none either, and is told by its
            # ending.
            await asyncio.wait((live.started,))
        log = self._open_log(job_id)
        if log is not None:
            with log:
                events = self._read(log, view, live, job_id, follow=follow, heartbeat_s=heartbeat_s)
                async with contextlib.aclosing(events):
                    with contextlib.suppress(StopAsyncIteration):
                        while True:
                            yield await anext(events)
                _check_kept(log, job if live is None else live.job)
        else:
            _check_none_kept(job if live is None else live.job, view.offset)
        yield await self._end_of_output(live, job if live is None else live.job)

    async def _read(
        self,
        log: LogReader,
        view: View,
        live: LiveJob | None,
        job_id: JobId,
        *,
        follow: bool,
        heartbeat_s: float | None,
    ) -> AsyncGenerator[Chunk | Heartbeat, None]:
        with contextlib.ExitStack() as stack:
            if live is not None and not live.is_over("follow") and follow:
                directory = self._registry.directories.job(job_id)
                stack.callback(self._watcher.unwatch, self._watcher.watch(directory, live.changed))
            elif view.offset > log.kept_bytes():
                why = f"the output ends at byte {log.kept_bytes()}"
                raise InvalidArgumentError("offset", view.offset, why)
            pieces = read_log(
                log,
                view,
                changed=Signal() if live is None else live.changed,
                is_complete=lambda: live is None or live.is_over("follow"),
                follow=follow,
                heartbeat_s=heartbeat_s,
                turns=self._watcher.turns,
            )
            async with contextlib.aclosing(pieces):
                with contextlib.suppress(StopAsyncIteration):
                    while True:
                        yield await anext(pieces)

    def _open_log(self, job_id: JobId) -> LogReader | None:
        try:
            with self._registry.directories.open_job(job_id) as directory:
                return LogReader(directory)
        except FileNotFoundError:
            return None

    async def _end_of_output(self, live: LiveJob | None, job: Job) -> EndOfOutput:
        if job.ending is not None:
            return EndOfOutput(job.output, job.ending)
        assert live is not None  # noqa: S101 - for the type checker: only live jobs have no ending
        measured = await asyncio.to_thread(self._meter.measure, live, job)
        return EndOfOutput(measured.output, None)


def _check_kept(log: LogReader, job: Job) -> None:
    """Is everything there that the ending says was kept?"""
    if job.ending is None:
        return
    kept, recorded = log.kept_bytes(), job.ending.output.kept_bytes
    if kept != recorded:
        why = f"{recorded} bytes were kept, and its log has {kept}"
        raise DataLossError(f"read the output of job {job.id}", why)
    indexed = log.indexed_bytes()
    # Without stderr it is known whose they are.  A shim that was killed may have left bytes that it
    # had not indexed; one that ended has not.
    is_doubtful = job.ending.output.stderr_bytes and job.ending.reason is not EndReason.LOST
    if indexed != kept and is_doubtful:
        why = f"of its {kept} bytes the index knows {indexed}: whose the others are is not known"
        raise DataLossError(f"tell the streams of job {job.id} apart", why)


def _check_none_kept(job: Job, offset: int) -> None:
    """There is no log: a job whose start failed has none."""
    if job.output.kept_bytes:
        why = f"{job.output.kept_bytes} bytes were kept, and its log is gone"
        raise DataLossError(f"read the output of job {job.id}", why)
    if offset:
        raise InvalidArgumentError("offset", offset, "the job has no output")
