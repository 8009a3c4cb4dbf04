"""State directories with a long past: many ended jobs, much kept output.

Made by copying one job that really ran: its journal row and its directory, whose records are linked
and not copied.  The output is sparse, so that 100 GB fit anywhere.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from bench.service import run_job, serving
from jobworker.jobs import catalog
from jobworker.model.ids import JobId, new_job_id
from jobworker.model.job import Job


async def make_history(directory: Path, count: int, *, kept_bytes: int = 0) -> None:
    """An installation with so many ended jobs, of all of which so many bytes are kept."""
    async with serving(directory) as service, service.client() as client:
        job = await run_job(client, "echo", "output")
    if count:
        _copy(directory / "state", job, count, kept_bytes // count)


def _copy(state: Path, job: Job, count: int, each_bytes: int) -> None:
    connection = sqlite3.connect(state / "journal.sqlite", isolation_level=None)
    connection.execute("BEGIN")
    for number in range(1, count):
        copy = _renamed(job, new_job_id(), number, each_bytes)
        entry = catalog.Entry(job=copy, request_id=None, fingerprint=b"")
        catalog.put(connection, entry)
        _link(state / "jobs" / job.id, state / "jobs" / copy.id, each_bytes)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _renamed(job: Job, job_id: JobId, number: int, each_bytes: int) -> Job:
    """Older than all before it."""
    shift = timedelta(seconds=number)
    assert job.ended_at is not None
    output = replace(job.output, stdout_bytes=each_bytes) if each_bytes else job.output
    return replace(
        job,
        id=job_id,
        created_at=job.created_at - shift,
        ended_at=job.ended_at - shift,
        output=output,
    )


def _link(source: Path, target: Path, each_bytes: int) -> None:
    target.mkdir()
    for file in source.iterdir():
        if each_bytes and file.name == "output":
            with (target / file.name).open("wb") as output:
                output.truncate(each_bytes)
        else:
            # A file takes 65,000 links on ext4: the records of a job are what matters, and one
            # that nobody reads may be missing.
            try:
                (target / file.name).hardlink_to(file)
            except OSError:
                (target / file.name).write_bytes(file.read_bytes())
