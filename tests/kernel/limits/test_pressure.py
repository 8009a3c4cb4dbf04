"""Pressure: how long a job stood still, where the kernel keeps it, and nothing where it does not.

Two kinds of host are about different tests here: the host with PSI (hybrid), and kernels without
it, as the guest's (cgroup v2, User-Mode Linux), or trees without it (v1 alone).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jobworker.cgroup.location import find_locations
from jobworker.model import Job, Limits, Usage
from support.guards import only_on
from support.worker import ALICE, WorkerPlace, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

_UNIFIED = find_locations().unified
HAS_PRESSURE = _UNIFIED is not None and Path(_UNIFIED.mount, "cpu.pressure").exists()

SPIN = "while :; do :; done"


def _ran_us(job: Job) -> float:
    assert job.started_at is not None
    assert job.ended_at is not None
    return (job.ended_at - job.started_at).total_seconds() * 1e6


def _usage(job: Job) -> Usage:
    assert job.ending is not None
    return job.ending.usage


async def test_a_job_that_its_cpu_limit_holds_back_has_stood_still(place: WorkerPlace) -> None:
    """With a fifth of a CPU, it waits for four fifths of its time; a half is asked for here."""
    only_on(HAS_PRESSURE, "a kernel that keeps pressure")
    async with place.open() as worker:
        job, _ = await run(worker, sh(SPIN, limits=Limits(cpu_millis=200), timeout_s=2))
    pressure = _usage(job).cpu_pressure
    assert pressure is not None
    assert 0.5 * _ran_us(job) < pressure.some_us <= 1.1 * _ran_us(job), (pressure, _ran_us(job))


async def test_a_job_that_waits_for_nothing_has_hardly_stood_still(place: WorkerPlace) -> None:
    """Of a second of sleep, at most a quarter: its start, on a busy host."""
    only_on(HAS_PRESSURE, "a kernel that keeps pressure")
    async with place.open() as worker:
        job, _ = await run(worker, sh("exec sleep 1"))
    usage = _usage(job)
    for pressure in (usage.cpu_pressure, usage.memory_pressure, usage.io_pressure):
        assert pressure is not None
        assert 0 <= pressure.some_us < 250_000, usage


async def test_a_job_over_its_memory_limit_has_stood_still_for_memory(place: WorkerPlace) -> None:
    """It reads a file that does not fit, again and again: each page is taken and read anew."""
    only_on(HAS_PRESSURE, "a kernel that keeps pressure")
    script = """
    dd if=/dev/urandom of=file bs=1M count=48 2>/dev/null
    for round in 1 2 3 4 5 6; do cat file file > /dev/null; done
    """
    async with place.open() as worker:
        job, _ = await run(worker, sh(script, limits=Limits(memory_bytes=16 << 20)))
    usage = _usage(job)
    assert usage.memory_pressure is not None
    assert usage.io_pressure is not None
    assert usage.memory_pressure.some_us + usage.io_pressure.some_us > 5000, usage


async def test_a_running_job_tells_its_pressure_until_now(place: WorkerPlace) -> None:
    only_on(HAS_PRESSURE, "a kernel that keeps pressure")
    counting = "i=0; while :; do i=$((i+1)); [ $((i % 100000)) = 0 ] && echo $i; done"
    async with place.open() as worker:
        job = await worker.start(sh(counting, limits=Limits(cpu_millis=100)), owner=ALICE)
        await read_until(worker, job.id, lambda data: data.count(b"\n") > 2)
        usage = (await worker.get(job.id)).usage
        assert usage.cpu_pressure is not None
        assert usage.cpu_pressure.some_us > 100_000, usage


async def test_where_no_kernel_keeps_it_there_is_none_and_not_zero(place: WorkerPlace) -> None:
    only_on(not HAS_PRESSURE, "a kernel that keeps no pressure")
    async with place.open() as worker:
        job, _ = await run(worker, sh(SPIN, limits=Limits(cpu_millis=200), timeout_s=1))
    usage = _usage(job)
    assert (usage.cpu_pressure, usage.memory_pressure, usage.io_pressure) == (None, None, None)
    assert (usage.cpu_throttled_seconds or 0) > 0.1
