"""A unary call beside full-speed streams, against the same call on an idle service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.measure import Result, Round, alternate, compare
from bench.service import serving, write_output
from bench.stage import Stage

_COUNTS: Final = (4, 1000)
_CONNECTIONS: Final = 4
_PAUSE_S: Final = 0.002


async def run(stage: Stage) -> list[Result]:
    times = stage.pick(200, 100)
    async with (
        serving(stage.directory / "service") as service,
        service.clients() as caller,
        service.clients(connections=_CONNECTIONS) as streams,
    ):
        async with service.client() as client:
            job = await write_output(client, 512 << 20)

        async def idle() -> list[float]:
            samples: list[float] = await caller.ask(
                do="ping", what="whoami", times=times, pause_s=_PAUSE_S
            )
            return samples

        def beside(count: int) -> Round:
            async def measure() -> Sequence[float]:
                await streams.ask(do="follow", job=job, count=count)
                samples = await idle()
                await streams.ask(do="stop")
                return samples

            return measure

        contenders: dict[str, Round] = {str(count): beside(count) for count in _COUNTS}
        taken = await alternate(stage.rounds, contenders | {"idle": idle})
    return [
        compare(
            "beside",
            f"a unary call beside {count} full-speed streams, {name}",
            taken[str(count)],
            taken["idle"],
            peer=f"the same, idle, {name}",
            unit="ms",
            scale=1e3,
            target=10.0,
            share=share,
        )
        for count in _COUNTS
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]
