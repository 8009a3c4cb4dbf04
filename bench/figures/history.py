"""Starting and listing with a long past, against the same without one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from bench.history import make_history
from bench.measure import Result, Round, alternate, compare
from bench.service import serving
from bench.stage import Stage
from jobworker.client import Client
from jobworker.model.spec import JobSpec

_COUNTS: Final = (0, 1_000, 10_000, 100_000)
_PAGE: Final = 50


async def run(stage: Stage) -> list[Result]:
    counts = _COUNTS[: stage.pick(4, 3)]
    times = stage.pick(40, 15)
    async with contextlib.AsyncExitStack() as stack:
        contenders: dict[str, Round] = {}
        for count in counts:
            directory = stage.directory / f"past-{count}"
            await make_history(directory, max(count, _PAGE + 1))
            service = await stack.enter_async_context(serving(directory))
            client = await stack.enter_async_context(service.client())
            contenders[f"start {count}"] = partial(_start, client, times)
            contenders[f"list {count}"] = partial(_list, client, times)
        taken = await alternate(stage.rounds, contenders)
    return [
        compare(
            "history",
            f"{what}, {count} ended jobs",
            taken[f"{name} {count}"],
            taken[f"{name} 0"],
            peer="the same with none" if name == "start" else f"the same with {_PAGE + 1}",
            unit="ms",
            scale=1e3,
            target=1.2,
        )
        for name, what in (("start", "StartJob of true"), ("list", f"a page of {_PAGE} jobs"))
        for count in counts[1:]
    ]


async def _start(client: Client, times: int) -> Sequence[float]:
    samples = []
    for _ in range(times):
        began = time.perf_counter()
        job = await client.start(JobSpec(argv=("/bin/true",)))
        samples.append(time.perf_counter() - began)
        await client.wait(job.id)
        # Its past stays what it was.
        await client.delete(job.id)
    return samples


async def _list(client: Client, times: int) -> Sequence[float]:
    samples = []
    for _ in range(times):
        began = time.perf_counter()
        page = await client.list(page_size=_PAGE)
        samples.append(time.perf_counter() - began)
        assert len(page.jobs) == _PAGE
    return samples
