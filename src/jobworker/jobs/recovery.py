"""What a worker does before it serves: finds out what became of the jobs of an earlier one.

Called when no start of the earlier worker is under way any more, so that the records are complete.
Ended jobs cost nothing here; only those that the journal does not know as ended are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import Hierarchy
from jobworker.errors import DataLossError, UnavailableError
from jobworker.jobs import catalog
from jobworker.jobs.clearing import clear_cgroup
from jobworker.jobs.directories import StateDirectory
from jobworker.jobs.endings import Endings
from jobworker.jobs.evidence import Evidence
from jobworker.jobs.journal import Journal, damage_mark, mark_damaged
from jobworker.jobs.limiting import LimitChanger
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.jobs.shortage import is_shortage
from jobworker.kernel.process import read_boot_id
from jobworker.model.ids import JobId, RequestId, is_job_id
from jobworker.model.job import Job
from jobworker.model.state import JobState
from jobworker.shim import records

logger = logging.getLogger(__name__)

#: Before the worker serves, for all that an earlier one left.  A process in an uninterruptible wait
#: dies of no signal while that lasts, which may be as long as the machine is up.
_PATIENCE_S: Final = 5.0


async def recover(
    registry: Registry, endings: Endings, changer: LimitChanger, hierarchy: Hierarchy
) -> None:
    """Adopt the jobs that run, settle those that do not, clear away what belongs to none.

    What does not end soon is waited for while the worker serves.
    """
    directories, boot_id = registry.directories, read_boot_id()
    is_same_boot = await asyncio.to_thread(directories.is_of_boot, boot_id)
    registry.kept_bytes = await registry.journal.run(catalog.kept_bytes)
    running, unsettled = await _adopt(registry, endings, is_same_boot=is_same_boot)
    found = await asyncio.to_thread(hierarchy.stray_jobs)
    strays = [name for name in found if JobId(name) not in registry.live]

    async def settle_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for live in unsettled:
                tasks.create_task(endings.settle(live))
            for name in strays:
                tasks.create_task(_clear_stray(hierarchy, name))
        if not is_same_boot:
            # Not before: a worker that is killed until then has settled nothing.
            await asyncio.to_thread(directories.note_boot, boot_id)

    is_over = asyncio.Event()

    def finish() -> None:
        is_over.set()
        for live in unsettled:
            live.abandon()

    registry.run_until_released(settle_all(), then=finish)
    async with asyncio.TaskGroup() as tasks:
        for live in running:
            tasks.create_task(changer.resume(live))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await is_over.wait()
    except TimeoutError:
        left = sum(not live.ended.is_set() for live in unsettled)
        logger.warning("not all of an earlier run has ended yet", extra={"jobs": left})
    await asyncio.to_thread(_clear_scratch, registry)
    await asyncio.to_thread(directories.clear_places)


async def _adopt(
    registry: Registry, endings: Endings, *, is_same_boot: bool
) -> tuple[list[LiveJob], list[LiveJob]]:
    """The jobs whose shims live, which are watched from here on, and those to be settled."""
    running: list[LiveJob] = []
    unsettled: list[LiveJob] = []
    for job in await registry.journal.run(catalog.live_jobs):
        evidence = await endings.evidence_of(job.id)
        live = registry.add(_as_recorded(job, evidence))
        live.is_of_this_boot = is_same_boot
        is_watched = evidence.ended is None and endings.watch(live, evidence)
        (running if is_watched else unsettled).append(live)
        if is_watched or evidence.started is not None:
            state = JobState.STOPPING if evidence.has_stop else JobState.RUNNING
            live.job = replace(live.job, state=state)
            live.started.set_result(live.job)
        if is_watched and evidence.has_stop:
            # Asked for before the crash; the shim may not have been told.
            endings.wake_shim(live)
    return running, unsettled


def _as_recorded(job: Job, evidence: Evidence) -> Job:
    """A job as its records tell it; the journal may not have heard of the last step."""
    started = evidence.started
    if started is not None and job.started_at is None:
        job = replace(job, started_at=started.at, effective=started.effective)
    return job if evidence.limits is None else evidence.limits.applied_to(job)


async def _clear_stray(hierarchy: Hierarchy, name: str) -> None:
    """The cgroups of a job that is over, or of a place that no job came to."""
    try:
        await clear_cgroup(open_job(hierarchy.plan(name)))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        logger.warning("cannot remove a cgroup", extra={"job_id": name, "reason": reason})


def _clear_scratch(registry: Registry) -> None:
    for entry in registry.directories.scratch.iterdir():
        if is_job_id(entry.name) and JobId(entry.name) not in registry.live:
            registry.directories.remove_scratch(JobId(entry.name))


async def open_journal(directories: StateDirectory, uids: range) -> Journal:
    """The journal, or if it is damaged a new one made from the jobs' directories.

    uids: those that are given to owners; what their jobs run as is recovered too.

    The damaged file is kept beside it.  Killed while it does this, it does it again: a journal that
    misses jobs would have them cleared away as nobody's.
    """
    file = directories.journal_file
    mark = damage_mark(file)
    try:
        if not mark.exists():
            return await asyncio.to_thread(Journal, file)
        reason = "it was found damaged by an earlier run"
    except sqlite3.DatabaseError as error:
        reason = str(error)
    await asyncio.to_thread(mark_damaged, file)
    kept = await asyncio.to_thread(_put_aside, file)
    logger.error("journal is damaged, making it anew", extra={"reason": reason, "kept": str(kept)})
    journal = await asyncio.to_thread(Journal, file)
    try:
        found = await asyncio.to_thread(_read_directories, directories)
        await journal.run(lambda connection: _put_all(connection, found, uids), durable=True)
        await asyncio.to_thread(mark.unlink)
    except BaseException:
        journal.close()
        raise
    return journal


def _put_aside(file: Path) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    kept = file.with_name(f"{file.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            file.with_name(file.name + suffix).rename(kept.with_name(kept.name + suffix))
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What one ``spec.json`` tells."""

    entry: catalog.Entry
    uid: int
    """That the job runs as; -1: the worker's own."""


def _read_directories(directories: StateDirectory) -> list[_Found]:
    """Every job as its ``spec.json`` tells it; the recovery that follows settles the endings.

    Raises UnavailableError for want of descriptors or memory.
    """
    found = []
    for folder in directories.jobs.iterdir():
        if folder == directories.places:
            continue
        try:
            with directories.open_job(JobId(folder.name)) as directory:
                spec = records.read(directory, records.SPEC)
            if spec is not None:
                found.append(_found(spec))
        except (OSError, DataLossError, KeyError, ValueError, msgspec.ValidationError) as error:
            if is_shortage(error):
                # Left out it would be cleared away as nobody's.
                raise UnavailableError(
                    f"read the records of job {folder.name}", str(error)
                ) from error
            logger.error(  # noqa: TRY400 - the reason says all
                "cannot recover a job", extra={"job_id": folder.name, "reason": str(error)}
            )
    return found


def _found(spec: dict[str, Any]) -> _Found:
    request_id = spec["request_id"]
    entry = catalog.Entry(
        job=msgspec.convert(spec["job"], Job),
        request_id=None if request_id is None else RequestId(request_id),
        fingerprint=bytes.fromhex(spec["fingerprint"]),
    )
    account = spec["order"]["account"]
    return _Found(entry=entry, uid=-1 if account is None else account["uid"])


def _put_all(connection: sqlite3.Connection, found: list[_Found], uids: range) -> None:
    for each in found:
        catalog.put(connection, each.entry)
        if each.uid in uids:
            # Or another owner would be given the user of jobs that run.
            catalog.keep_uid(connection, each.entry.job.owner, each.uid)
