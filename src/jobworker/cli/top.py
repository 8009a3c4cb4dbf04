"""The verb top: what running jobs use, looked at again and again."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from jobworker.cli import console, exits
from jobworker.cli.describe import bytes_or_dash, duration_s, job_json, state_cell
from jobworker.cli.render import Style, command_line, one_line, table, terminal_width
from jobworker.cli.session import is_json, open_client, show_json
from jobworker.cli.values import interval_of
from jobworker.client import Client
from jobworker.model.ids import JobId
from jobworker.model.job import Job, JobFilter
from jobworker.model.state import JobState
from jobworker.model.units import format_duration
from jobworker.model.usage import Pressure, Usage

_LIVE: Final = JobFilter(states=frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING}))
#: Jobs in one picture, newest first: more than a screen has lines.
_JOBS_MAX: Final = 200
#: Cursor to the upper left, then erase to the end: ECMA-48, sections 8.3.21 (CUP) and 8.3.39 (ED).
_HOME: Final = "\x1b[H"
_ERASE_LINE: Final = "\x1b[K"
_ERASE_REST: Final = "\x1b[J"
_CLEAR: Final = _HOME + _ERASE_REST
_HEADER: Final = (
    "ID",
    "OWNER",
    "STATE",
    "RAN",
    "CPU%",
    "CPU",
    "MEMORY",
    "PEAK",
    "TASKS",
    "READ",
    "WRITTEN",
    "STALL%",
    "COMMAND",
)  # fmt: skip -- a row of names
#: What a job has used that nobody looked at before.
_NOTHING: Final = Usage()
_AMOUNTS: Final = frozenset(range(3, 12))


async def top(options: argparse.Namespace) -> int:
    """Once where nobody looks at a terminal, else until Ctrl-C."""
    interval_s = interval_of(options.interval)
    async with open_client(options) as client:
        if options.once or is_json(options) or not sys.stdout.isatty():
            jobs = await _look(client)
            if is_json(options):
                show_json([job_json(job) for job in jobs])
            else:
                console.show(_picture(jobs, {}, elapsed_s=0.0))
            return exits.OK
        await _redraw(client, interval_s)
    return exits.OK


async def _redraw(client: Client, interval_s: float) -> None:
    console.show(_CLEAR)
    before: dict[JobId, Usage] = {}
    looked_at = time.monotonic()
    while True:
        jobs = await _look(client)
        now = time.monotonic()
        picture = _picture(jobs, before, elapsed_s=now - looked_at)
        console.show(_HOME + picture.replace("\n", _ERASE_LINE + "\n") + _ERASE_REST)
        before = {job.id: job.usage for job in jobs}
        looked_at = now
        # Usage changes all the time and nothing announces it: the interval is what was asked for.
        await asyncio.sleep(interval_s)  # noqa: TID251 -- see above


async def _look(client: Client) -> Sequence[Job]:
    return (await client.list(_LIVE, page_size=_JOBS_MAX)).jobs


def _picture(jobs: Sequence[Job], before: Mapping[JobId, Usage], *, elapsed_s: float) -> str:
    """before: usage at the last look; a job that is not in it is judged by its whole life."""
    now = datetime.datetime.now(datetime.UTC)
    rows = []
    for job in jobs:
        usage, ran_s = job.usage, duration_s(job, now=now)
        base, span_s = (before[job.id], elapsed_s) if job.id in before else (_NOTHING, ran_s)
        rows.append(
            (
                job.id,
                one_line(job.owner),
                state_cell(job),
                format_duration(round(ran_s)),
                _percent(usage.cpu_seconds, base.cpu_seconds, span_s),
                "-" if usage.cpu_seconds is None else format_duration(usage.cpu_seconds),
                bytes_or_dash(usage.memory_bytes),
                bytes_or_dash(usage.memory_peak_bytes),
                "-" if usage.tasks is None else str(usage.tasks),
                bytes_or_dash(usage.io_read_bytes),
                bytes_or_dash(usage.io_write_bytes),
                _stalled(usage, base, span_s),
                command_line(job.spec.argv),
            )
        )
    width = terminal_width(sys.stdout)
    return table(_HEADER, rows, style=Style.of(sys.stdout), width=width, right=_AMOUNTS)


def _percent(spent_s: float | None, base_s: float | None, span_s: float) -> str:
    """Of the time that has passed; of CPU seconds that is of one CPU, as top(1) counts."""
    if spent_s is None or span_s <= 0:
        return "-"
    return f"{max(0.0, spent_s - (base_s or 0.0)) / span_s * 100:.0f}"


def _stalled(usage: Usage, base: Usage, span_s: float) -> str:
    """``81/0/2``: for how much of the time some of it waited for CPU, memory and disks."""
    shares = [
        _percent(_some_s(now), _some_s(then), span_s)
        for now, then in zip(_pressures(usage), _pressures(base), strict=True)
    ]
    return "-" if set(shares) == {"-"} else "/".join(shares)


def _pressures(usage: Usage) -> tuple[Pressure | None, ...]:
    return usage.cpu_pressure, usage.memory_pressure, usage.io_pressure


def _some_s(pressure: Pressure | None) -> float | None:
    return None if pressure is None else pressure.some_us / 1_000_000
