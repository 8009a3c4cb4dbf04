"""What daemon and shims do while a thousand jobs sleep: it should be nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from bench.figures.daemon_memory import start_sleepers
from bench.measure import Result, compare
from bench.processes import cpu_s, wakeups
from bench.service import serving
from bench.stage import Stage

#: Of a core.
_SHARE: Final = 0.001
#: gRPC's own timers, however many jobs there are.
_WAKEUPS: Final = 10.0
#: After the last start: the starts' own writes reach the disk.
_SETTLE_S: Final = 5.0


async def run(stage: Stage) -> list[Result]:
    jobs, window_s = stage.pick(1000, 100), stage.pick(10, 5)
    cpu: list[Sequence[float]] = []
    woken: list[Sequence[float]] = []
    async with serving(stage.directory / "service") as service:
        await start_sleepers(service, jobs)
        pids = [service.pid, service.launcher, *service.shims()]
        if len(pids) < jobs + 2:
            raise SystemExit(f"bench: {len(pids) - 2} shims run, not {jobs}")
        await asyncio.sleep(_SETTLE_S)  # noqa: TID251 -- nothing tells when a host is idle
        for _ in range(stage.rounds):
            before = sum(map(cpu_s, pids)), sum(map(wakeups, pids))
            await asyncio.sleep(window_s)  # noqa: TID251 -- the time of measuring
            after = sum(map(cpu_s, pids)), sum(map(wakeups, pids))
            cpu.append([(after[0] - before[0]) / window_s])
            woken.append([max(after[1] - before[1], 0.01) / window_s])
    return [
        compare(
            "idle",
            f"CPU of daemon, launcher and {jobs} shims while the jobs sleep",
            cpu,
            [[1.0] for _ in cpu],
            peer="one core",
            unit="cores",
            target=_SHARE,
        ),
        compare(
            "idle",
            f"wake-ups of all {jobs + 2} processes in a second",
            woken,
            [[1.0] for _ in woken],
            peer="a process that wakes once in a second",
            unit="1/s",
            target=_WAKEUPS,
        ),
    ]
