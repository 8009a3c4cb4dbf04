"""All that many followers receive together, against what one receives alone; and the memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from bench.measure import Result, Round, Samples, alternate, compare
from bench.processes import Helper, cores, memory_kib
from bench.service import Service, serving, write_output
from bench.stage import Stage
from jobworker.model.ids import JobId

_COUNTS: Final = (16, 128, 512, 1000)
_WINDOW_S: Final = 4.0
#: The most streams of a connection are 512.
_CONNECTIONS: Final = 4
#: What the daemon may have: so much, and so much more for each follower.
_BASE_MIB: Final = 100.0
_EACH_MIB: Final = 0.3


async def run(stage: Stage) -> list[Result]:
    counts = _COUNTS[:: stage.pick(1, 3)]
    memory: dict[int, list[Sequence[float]]] = {count: [] for count in (1, *counts)}
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(stage.directory / "service"))
        # As many processes as there are cores, for one follower as for a thousand.
        readers = [
            await stack.enter_async_context(service.clients(connections=_CONNECTIONS))
            for _ in range(cores())
        ]
        async with service.client() as client:
            job = await write_output(client, 256 << 20)

        def turn(count: int) -> Round:
            async def measure() -> Sequence[float]:
                speed, peak = await _follow(service, readers, job, count)
                memory[count].append([peak])
                return [speed]

            return measure

        taken = await alternate(stage.rounds, {str(count): turn(count) for count in (1, *counts)})
    stopped = await _beside_stopped(stage, counts[-1])
    results = [_memory(counts[-1], "stopped followers", [[stopped]])]
    for count in counts:
        results.append(
            compare(
                "followers",
                f"{count} followers, together",
                taken[str(count)],
                taken["1"],
                peer="one follower",
                unit="MB/s",
                scale=1e-6,
                target=1.0,
                at_most=False,
            )
        )
        # Of the first turns, which go upwards: what malloc was given once it hardly gives back.
        results.append(_memory(count, "full-speed followers", memory[count][:1]))
    return results


def _memory(count: int, what: str, peaks: Samples) -> Result:
    """peaks: KiB."""
    allowed = (_BASE_MIB + _EACH_MIB * count) * 1024
    return compare(
        "followers",
        f"memory of the daemon with {count} {what}",
        peaks,
        [[allowed] for _ in peaks],
        peer=f"{_BASE_MIB:.0f} MB + {_EACH_MIB} MB a follower",
        unit="MiB",
        scale=1 / 1024,
        target=1.0,
    )


async def _beside_stopped(stage: Stage, count: int) -> float:
    """The daemon's memory in KiB once so many clients have opened a stream and read nothing."""
    async with (
        serving(stage.directory / "stopped") as service,
        service.clients(connections=_CONNECTIONS) as clients,
        service.client() as client,
    ):
        job = await write_output(client, 256 << 20)
        await clients.ask(do="stall", job=job, count=count)
        await asyncio.sleep(2 * _WINDOW_S)  # noqa: TID251 -- until every stream is full
        return memory_kib(service.pid, "Rss")


async def _follow(
    service: Service, readers: Sequence[Helper], job: JobId, count: int
) -> tuple[float, float]:
    """Bytes per second of all together, and the daemon's memory in KiB while it lasts."""
    shares = [count // len(readers) + (n < count % len(readers)) for n in range(len(readers))]
    busy = [(reader, share) for reader, share in zip(readers, shares, strict=True) if share]
    for reader, share in busy:
        await reader.tell(do="follow", job=job, count=share)
    for reader, _ in busy:
        await reader.answer()
    for reader, _ in busy:
        await reader.ask(do="begin")
    peak = 0.0
    for _ in range(4):
        await asyncio.sleep(_WINDOW_S / 4)  # noqa: TID251 -- the time of measuring
        peak = max(peak, memory_kib(service.pid, "Rss"))
    for reader, _ in busy:
        await reader.tell(do="stop")
    answers = [await reader.answer() for reader, _ in busy]
    return sum(answer["bytes"] / answer["seconds"] for answer in answers), peak
