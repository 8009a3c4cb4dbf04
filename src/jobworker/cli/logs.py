"""The verb logs, and the way of a job's bytes to our own descriptors."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator

from jobworker.cli import console, exits
from jobworker.cli.session import find_job, open_client, refuse_json
from jobworker.cli.stamps import LineStamper
from jobworker.cli.values import count_of, since_of
from jobworker.errors import DataLossError
from jobworker.model.output import Chunk, EndOfOutput, Stream

_DESCRIPTORS = {Stream.STDOUT: console.STDOUT, Stream.STDERR: console.STDERR}


async def logs(options: argparse.Namespace) -> int:
    """What a job has written, and with -f what it writes."""
    refuse_json(options)
    tail_lines = count_of(options.tail, "--tail")
    now = datetime.datetime.now(datetime.UTC)
    since_us = None if options.since is None else since_of(options.since, now=now)
    stream = Stream.STDOUT if options.stdout else Stream.STDERR if options.stderr else None
    async with open_client(options) as client:
        events = client.follow(
            await find_job(client, options.job),
            follow=options.follow,
            stream=stream,
            tail_lines=tail_lines,
            since_us=since_us,
            exact_times=options.timestamps,
        )
        await copy_output(events, stamper=LineStamper() if options.timestamps else None)
    return exits.OK


async def copy_output(
    events: AsyncGenerator[Chunk | EndOfOutput, None], *, stamper: LineStamper | None = None
) -> EndOfOutput:
    """Each piece to the descriptor of its stream; the last event.  Raises OutputError."""
    unheld = {descriptor for descriptor in _DESCRIPTORS.values() if console.is_unheld(descriptor)}
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, EndOfOutput):
                _say_dropped(event)
                return event
            data = event.data if stamper is None else stamper.stamp(event)
            descriptor = _DESCRIPTORS[event.stream]
            if descriptor in unheld:
                console.write(descriptor, data)
            else:
                # In a thread, which takes a third of the speed: a terminal that is held, or a slow
                # reader, must not keep signals from being heard.
                await asyncio.to_thread(console.write, descriptor, data)
    raise DataLossError("print the output of the job", "it ended without saying so")


def _say_dropped(end: EndOfOutput) -> None:
    dropped = end.totals.dropped_bytes
    if dropped:
        console.talk(f"{dropped} bytes of output were beyond the job's limit and not kept")
