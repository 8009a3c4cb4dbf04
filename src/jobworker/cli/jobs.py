"""Verbs about jobs that there are: status, list, stop, wait, rm, update.

Those that take several jobs go on when one of them fails, tell each failure, and exit accordingly.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from jobworker.cli import console, exits
from jobworker.cli.describe import (
    duration_s,
    ending_cell,
    job_json,
    limit_rows,
    state_cell,
    status_fields,
)
from jobworker.cli.render import Style, command_line, fields, one_line, table, terminal_width
from jobworker.cli.session import find_job, is_json, open_client, show_json
from jobworker.cli.values import count_of, filter_of, grace_of, limits_of
from jobworker.client import Client
from jobworker.errors import InvalidArgumentError, JobWorkerError
from jobworker.model.ids import JobId
from jobworker.model.job import Job, JobFilter
from jobworker.model.units import format_duration


async def status(options: argparse.Namespace) -> int:
    """Everything about one job."""
    async with open_client(options) as client:
        job = await client.get(await find_job(client, options.job))
    if is_json(options):
        show_json(job_json(job))
        return exits.OK
    style = Style.of(sys.stdout)
    now = datetime.datetime.now(datetime.UTC)
    console.show(fields(status_fields(job, now=now), style=style))
    show_limits(job)
    return exits.OK


def show_limits(job: Job) -> None:
    """The table of what was asked for and what the host made of it."""
    rows = list(limit_rows(job))
    if rows:
        header = ("LIMIT", "ASKED", "IN FORCE", "DEVICE", "NOTE")
        console.show("\n" + table(header, rows, style=Style.of(sys.stdout)))


async def list_jobs(options: argparse.Namespace) -> int:
    """All jobs that fit, newest first, page by page."""
    limit = count_of(options.limit, "--limit")
    wanted = filter_of(options)
    async with open_client(options) as client:
        jobs = [job async for job in _pages(client, wanted, limit)]
    if is_json(options):
        show_json([job_json(job) for job in jobs])
    else:
        console.show(_job_table(jobs))
    return exits.OK


async def _pages(client: Client, wanted: JobFilter, limit: int | None) -> AsyncIterator[Job]:
    token, rest = "", limit
    while rest is None or rest > 0:
        page = await client.list(wanted, page_token=token)
        for job in page.jobs[:rest]:
            yield job
        token = page.next_page_token
        if not token:
            return
        rest = None if rest is None else rest - len(page.jobs)


def _job_table(jobs: Iterable[Job]) -> str:
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        (
            job.id,
            one_line(job.owner),
            state_cell(job),
            format_duration(round(max(0.0, (now - job.created_at).total_seconds()))),
            format_duration(duration_s(job, now=now)),
            one_line(job.spec.name) or "-",
            command_line(job.spec.argv),
        )
        for job in jobs
    ]
    header = ("ID", "OWNER", "STATE", "AGE", "RAN", "NAME", "COMMAND")
    return table(header, rows, style=Style.of(sys.stdout), width=terminal_width(sys.stdout))


async def stop(options: argparse.Namespace) -> int:
    """Ask for the end of all of them first, then wait for each."""
    grace_s = grace_of(options)
    async with open_client(options) as client:

        async def ask(job_id: JobId) -> Job:
            return await client.stop(job_id, grace_s=grace_s, wait=False)

        async def await_end(job_id: JobId) -> Job:
            return await client.wait(job_id)

        asked, code = await _for_each(client, options.jobs, ask)
        if not options.no_wait:
            asked, late_code = await _for_each(client, [job.id for job in asked], await_end)
            code = code or late_code
    _show_outcomes(options, asked)
    return code


async def wait(options: argparse.Namespace) -> int:
    """Until all have ended; exits as the last one that the caller named."""
    async with open_client(options) as client:
        ended, code = await _for_each(client, options.jobs, client.wait)
    _show_outcomes(options, ended)
    if code or not ended or ended[-1].ending is None:
        return code
    return exits.of_ending(ended[-1].ending)


async def remove(options: argparse.Namespace) -> int:
    """Delete ended jobs."""
    async with open_client(options) as client:

        async def delete(job_id: JobId) -> Job:
            job = await client.get(job_id)
            await client.delete(job_id)
            return job

        removed, code = await _for_each(client, options.jobs, delete)
    if is_json(options):
        show_json([job.id for job in removed])
    else:
        console.show("".join(f"{job.id}\n" for job in removed))
    return code


async def update(options: argparse.Namespace) -> int:
    """Change limits, and show what the host made of them."""
    limits = limits_of(options)
    if limits.is_empty:
        raise InvalidArgumentError("limits", "nothing", "give at least one, such as --cpu 0.5")
    async with open_client(options) as client:
        job = await client.update_limits(await find_job(client, options.job), limits)
    if is_json(options):
        show_json(job_json(job))
    else:
        show_limits(job)
    return exits.OK


async def _for_each(
    client: Client, texts: Iterable[str], act: Callable[[JobId], Awaitable[Job]]
) -> tuple[list[Job], int]:
    """Act on one job after the other; the jobs that it worked for, and an exit code."""
    done: list[Job] = []
    code = exits.OK
    for text in texts:
        try:
            done.append(await act(await find_job(client, text)))
        except JobWorkerError as error:
            console.talk(str(error))
            code = exits.of_error(error)
    return done, code


def _show_outcomes(options: argparse.Namespace, jobs: list[Job]) -> None:
    """One line for each job; as JSON the job itself, or an array if several were named."""
    if is_json(options):
        found = [job_json(job) for job in jobs]
        show_json(found[0] if len(options.jobs) == 1 and found else found)
        return
    for job in jobs:
        how = job.state.value if job.ending is None else ending_cell(job.ending)
        message = "" if job.ending is None else one_line(job.ending.message)
        console.show(f"{job.id} {how}{': ' if message else ''}{message}\n")
