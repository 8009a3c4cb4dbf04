"""The daemon's memory with running jobs, with a long past and with much kept output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from bench.history import make_history
from bench.measure import Result, compare
from bench.processes import memory_kib
from bench.service import Service, serving
from bench.stage import Stage
from jobworker.model.spec import JobSpec

_CALLERS: Final = 16
_GB: Final = 10**9


async def run(stage: Stage) -> list[Result]:
    running, ended = stage.pick(1000, 100), stage.pick(100_000, 10_000)
    cases = {
        "empty": (0, 0, 0),
        f"{running} running jobs": (running, 0, 0),
        f"{ended} ended jobs": (0, ended, 0),
        f"100 GB of kept output of {running} jobs": (0, running, 100 * _GB),
    }
    for number, (_, past, kept) in enumerate(cases.values()):
        await make_history(stage.directory / str(number), past, kept_bytes=kept)
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in cases}
    # Fewer rounds: a process is started for each, and its memory hardly varies.
    rounds = stage.pick(3, 2)
    for _ in range(rounds):
        for number, (name, (jobs, _, _)) in enumerate(cases.items()):
            async with serving(stage.directory / str(number)) as service:
                taken[name].append([await _measure(service, jobs)])
    return [
        compare(
            "daemon-memory",
            f"memory (RSS) of the daemon, {name}",
            taken[name],
            taken["empty"],
            peer="empty",
            unit="MiB",
            scale=1 / 1024,
            target=1.5,
        )
        for name in list(cases)[1:]
    ]


async def _measure(service: Service, jobs: int) -> float:
    """After it was used: started, listed, asked."""
    async with service.client() as client:
        await start_sleepers(service, jobs)
        token = ""
        for _ in range(10):
            page = await client.list(page_size=100, page_token=token)
            token = page.next_page_token
            if not token:
                break
        return float(memory_kib(service.pid, "Rss"))


async def start_sleepers(service: Service, count: int) -> None:
    """So many jobs that do nothing."""
    async with service.client() as client, asyncio.TaskGroup() as tasks:

        async def caller(share: int) -> None:
            for _ in range(share):
                await client.start(JobSpec(argv=("/bin/sleep", "3600")))

        for number in range(_CALLERS):
            tasks.create_task(caller(count // _CALLERS + (number < count % _CALLERS)))
