"""StartJob of /bin/true until it runs, limits on, over a warm connection.

Peers do the same command: crun and podman with the same limits, crun without any cgroup, ssh over
a connection that stands.  They are timed as whole processes until the command has ended, which is
what their users wait for; ours is timed until the answer says RUNNING, and once more until the end
of the output has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from bench.measure import Result, Round, Samples, alternate, compare
from bench.peers.containers import containers
from bench.peers.ssh import ssh_server
from bench.processes import Helper
from bench.service import USER, serving
from bench.stage import Stage
from jobworker.client import Client
from jobworker.model.output import EndOfOutput
from jobworker.model.spec import JobSpec

#: Between isolated starts: the kernel's grace periods are over by then.
_PAUSE_S: Final = 0.05
_TRUE: Final = JobSpec(argv=("/bin/true",))
_TARGETS: Final = {"crun run": 0.3, "podman run": 0.1, "warm ssh": 1.0, "crun run, no cgroup": 1.0}


async def run(stage: Stage) -> list[Result]:
    times = stage.pick(20, 8)
    with (
        containers(stage.directory / "oci") as peers,
        ssh_server(stage.directory / "ssh") as ssh,
    ):
        async with (
            serving(stage.directory / "service") as service,
            service.client(USER) as client,
            peers.spawner() as spawner,
        ):
            results = []
            for how, pause_s in (("isolated", _PAUSE_S), ("back to back", 0.0)):
                commands = {
                    "crun run": peers.crun(),
                    "crun run, no cgroup": peers.crun("free"),
                    "podman run": peers.podman_run("/bin/true"),
                    "warm ssh": ssh.warm("true"),
                }
                contenders: dict[str, Round] = {
                    "running": partial(_start, client, times, pause_s),
                    "ended": partial(_start_to_end, client, times, pause_s),
                } | {name: timed(spawner, argv, times, pause_s) for name, argv in commands.items()}
                results += _results(how, await alternate(stage.rounds, contenders))
            return results


def _results(how: str, taken: Mapping[str, Samples]) -> list[Result]:
    results = []
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        for peer, target in _TARGETS.items():
            results.append(
                compare(
                    "start",
                    f"StartJob of true to RUNNING, {how}, {name}",
                    taken["running"],
                    taken[peer],
                    peer=f"{peer}, {name}",
                    unit="ms",
                    scale=1e3,
                    target=target,
                    share=share,
                )
            )
        results.append(
            compare(
                "start",
                f"StartJob of true to the end of its output, {how}, {name}",
                taken["ended"],
                taken["crun run"],
                peer=f"crun run, {name}",
                unit="ms",
                scale=1e3,
                target=1.0,
                share=share,
            )
        )
    return results


def timed(spawner: Helper, argv: Sequence[str], times: int, pause_s: float) -> Round:
    """A peer's turn: the seconds that its whole process takes, so many times."""

    async def turn() -> Sequence[float]:
        samples: list[float] = await spawner.ask(argv=list(argv), times=times, pause_s=pause_s)
        return samples

    return turn


async def _start(client: Client, times: int, pause_s: float) -> list[float]:
    samples = []
    job = None
    for _ in range(times):
        await asyncio.sleep(pause_s)  # noqa: TID251 -- isolated starts are what is measured
        began = time.perf_counter()
        job = await client.start(_TRUE)
        samples.append(time.perf_counter() - began)
    if job is not None:
        await client.wait(job.id)
    return samples


async def _start_to_end(client: Client, times: int, pause_s: float) -> list[float]:
    samples = []
    for _ in range(times):
        await asyncio.sleep(pause_s)  # noqa: TID251 -- isolated starts are what is measured
        began = time.perf_counter()
        await start_to_end(client)
        samples.append(time.perf_counter() - began)
    return samples


async def start_to_end(client: Client) -> None:
    """As ``jobctl run`` does it."""
    job = await client.start(_TRUE)
    async with contextlib.aclosing(client.follow(job.id)) as events:
        async for event in events:
            assert isinstance(event, EndOfOutput)
