"""Jobs per second from start to end, 16 callers, against the same loop with crun."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from bench.figures.start import start_to_end
from bench.measure import Result, alternate, compare
from bench.peers.containers import containers
from bench.service import USER, serving
from bench.stage import Stage
from jobworker.client import Client

_CALLERS: Final = 16


async def run(stage: Stage) -> list[Result]:
    count = stage.pick(320, 96)
    with containers(stage.directory / "oci") as peers:
        async with (
            serving(stage.directory / "service") as service,
            service.client(USER) as client,
            peers.spawner() as spawner,
        ):

            async def crun() -> list[float]:
                # xargs starts them, so that the loop around them costs nothing to speak of.
                command = " ".join(peers.crun()).replace("{n}", "{}")
                loop = f"seq {count} | xargs -P{_CALLERS} -I{{}} {command}"
                [seconds] = await spawner.ask(argv=["sh", "-c", loop])
                return [count / seconds]

            async def ours() -> list[float]:
                return [count / await _callers(client, count)]

            taken = await alternate(stage.rounds, {"ours": ours, "crun": crun})
    return [
        compare(
            "throughput",
            f"jobs from start to end, {_CALLERS} callers",
            taken["ours"],
            taken["crun"],
            peer="xargs -P16 crun run",
            unit="jobs/s",
            target=3.0,
            at_most=False,
        )
    ]


async def _callers(client: Client, count: int) -> float:
    async def caller() -> None:
        for _ in range(count // _CALLERS):
            await start_to_end(client)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLERS):
            tasks.create_task(caller())
    return time.perf_counter() - began
