"""A job that prints a million lines of 50 bytes, against the same into a pipe to ``cat > file``."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Final

from bench.measure import Result, alternate, compare
from bench.service import serving
from bench.stage import Stage
from jobworker.client import Client
from jobworker.model.spec import JobSpec

#: 49 characters and the newline.
_FORMAT: Final = "%049.0f"


async def run(stage: Stage) -> list[Result]:
    count = stage.pick(1_000_000, 300_000)
    results = []
    async with serving(stage.directory / "service") as service, service.client() as client:
        for how, prefix in (("buffered by libc", ""), ("a write a line", "stdbuf -oL ")):
            command = f"{prefix}seq -f {_FORMAT} {count}"

            async def ours(command: str = command) -> list[float]:
                return [await _run(client, command)]

            async def plain(command: str = command) -> list[float]:
                return [await asyncio.to_thread(_pipe, command, str(stage.directory / "plain"))]

            taken = await alternate(stage.rounds, {"ours": ours, "plain": plain})
            results.append(
                compare(
                    "lines",
                    f"{count} lines of 50 bytes, {how}, start to end",
                    taken["ours"],
                    taken["plain"],
                    peer="the same | cat > file",
                    unit="s",
                    target=1.5,
                    note="ours ends with the output on the disk (fsync), the peer does not",
                )
            )
    return results


async def _run(client: Client, command: str) -> float:
    began = time.perf_counter()
    job = await client.start(JobSpec(argv=("sh", "-c", command)))
    job = await client.wait(job.id)
    took = time.perf_counter() - began
    if job.output.stdout_bytes % 50:
        raise SystemExit(f"bench: cannot go on: {job.output}")
    await client.delete(job.id)
    return took


def _pipe(command: str, file: str) -> float:
    began = time.perf_counter()
    subprocess.run(["sh", "-c", f"{command} | cat > {file}"], check=True)
    return time.perf_counter() - began
