"""A unary call beside four full-speed streams, against the same call on an idle service."""

from __future__ import annotations

from typing import Final

from bench.measure import Result, alternate, compare
from bench.service import serving, write_output
from bench.stage import Stage

_STREAMS: Final = 4
_PAUSE_S: Final = 0.002


async def run(stage: Stage) -> list[Result]:
    times = stage.pick(200, 100)
    async with (
        serving(stage.directory / "service") as service,
        service.clients() as caller,
        service.clients(connections=_STREAMS) as streams,
    ):
        async with service.client() as client:
            job = await write_output(client, 512 << 20)

        async def idle() -> list[float]:
            samples: list[float] = await caller.ask(
                do="ping", what="whoami", times=times, pause_s=_PAUSE_S
            )
            return samples

        async def beside() -> list[float]:
            await streams.ask(do="follow", job=job, count=_STREAMS)
            samples = await idle()
            await streams.ask(do="stop")
            return samples

        taken = await alternate(stage.rounds, {"beside": beside, "idle": idle})
    return [
        compare(
            "beside",
            f"a unary call beside {_STREAMS} full-speed streams, {name}",
            taken["beside"],
            taken["idle"],
            peer=f"the same, idle, {name}",
            unit="ms",
            scale=1e3,
            target=10.0,
            share=share,
        )
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]
