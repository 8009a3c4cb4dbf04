"""A job that writes as fast as it can: its own speed, and that of somebody who follows it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.measure import Result, alternate, compare
from bench.service import seconds_of_writer, serving, write_file, writer
from bench.stage import Stage
from jobworker.client import Client
from jobworker.model.ids import JobId
from jobworker.model.output import Chunk, Stream
from jobworker.model.spec import JobSpec


async def run(stage: Stage) -> list[Result]:
    size = stage.pick(1024, 256) << 20
    async with (
        serving(stage.directory / "service") as service,
        service.client() as client,
        service.clients() as reader,
    ):
        jobs: list[JobId] = []

        async def plain() -> list[float]:
            return [size / write_file(size, stage.directory / "plain")]

        async def alone() -> list[float]:
            job = await client.start(JobSpec(argv=writer(size)))
            await client.wait(job.id)
            speed = size / await _said(client, job.id)
            await client.delete(job.id)
            return [speed]

        followed: list[Sequence[float]] = []

        async def live() -> list[float]:
            began = time.perf_counter()
            job = await client.start(JobSpec(argv=writer(size)))
            await reader.ask(do="read", job=job.id)
            took = time.perf_counter() - began
            followed.append([size / await _said(client, job.id)])
            for old in jobs:
                await client.delete(old)
            jobs[:] = [job.id]
            return [size / took]

        async def finished() -> list[float]:
            return [size / (await reader.ask(do="read", job=jobs[0]))["seconds"]]

        contenders = {"live": live, "finished": finished, "plain": plain, "alone": alone}
        taken = await alternate(stage.rounds, contenders)
    taken["followed"] = followed[-stage.rounds :]
    rows = (
        ("the job's own speed, nobody follows", "alone", "plain", "dd > file", 0.5),
        ("the job's own speed, followed", "followed", "plain", "dd > file", 0.5),
        ("its follower, from start to end", "live", "finished", "finished output", 0.7),
    )
    return [
        compare(
            "full-speed",
            what,
            taken[ours],
            taken[theirs],
            peer=peer,
            unit="MB/s",
            scale=1e-6,
            target=target,
            at_most=False,
        )
        for what, ours, theirs, peer, target in rows
    ]


async def _said(client: Client, job_id: JobId) -> float:
    """What the job measured itself, on its standard error."""
    text = b""
    async for event in client.follow(job_id, stream=Stream.STDERR):
        text += event.data if isinstance(event, Chunk) else b""
    return seconds_of_writer(text)
