"""From a job's write to a line's arrival at a follower, against a bare gRPC call."""

from __future__ import annotations

from typing import Final

from bench.measure import Result, alternate, compare
from bench.processes import open_helper, python_helper
from bench.service import serving
from bench.stage import Stage
from jobworker.model.spec import JobSpec

_PAUSE_S: Final = 0.02


async def run(stage: Stage) -> list[Result]:
    times = stage.pick(150, 60)
    # date(1) reads the clock and writes it at once.
    script = f"for n in $(seq {times}); do date +%s%N; sleep {_PAUSE_S}; done"
    async with serving(stage.directory / "service") as service, service.client() as client:
        files = [service.pki("ca.pem"), service.pki("server.pem"), service.pki("server.key")]
        async with (
            service.clients() as follower,
            open_helper(*python_helper("echo"), *files) as echo,
            service.clients(connections=1, server=f"127.0.0.1:{await echo.answer()}") as caller,
        ):

            async def line() -> list[float]:
                job = await client.start(JobSpec(argv=("sh", "-c", script)))
                delays: list[float] = await follower.ask(do="lines", job=job.id)
                return delays

            async def ping() -> list[float]:
                samples: list[float] = await caller.ask(
                    do="ping", what="echo", times=times, pause_s=_PAUSE_S
                )
                return samples

            taken = await alternate(stage.rounds, {"line": line, "ping": ping})
    return [
        compare(
            "latency",
            f"from a line's write to its arrival at a follower, {name}",
            taken["line"],
            taken["ping"],
            peer=f"a bare gRPC call, same TLS, {name}",
            unit="ms",
            scale=1e3,
            target=target,
            share=share,
        )
        for share, name, target in ((0.5, "p50", 3.0), (0.99, "p99", 10.0))
    ]
