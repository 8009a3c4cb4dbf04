"""Limits of running jobs: recorded as the kernel keeps them, and changed while the job runs."""

from __future__ import annotations

import time

import pytest

from jobworker.errors import FailedPreconditionError, InvalidLimitError, UnenforceableLimitError
from jobworker.model import EndReason, JobPolicy, Limits, Resource
from jobworker.worker import Worker
from support.guards import need
from support.worker import ALICE, ROOT, WorkerPlace, collect, python, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

_MIB = 1 << 20
_ALL = Limits(
    cpu_millis=500,
    memory_bytes=64 * _MIB,
    tasks=20,
    io_read_bytes_per_s=10 * _MIB,
    io_write_bytes_per_s=10 * _MIB,
    io_read_ops_per_s=100,
    io_write_ops_per_s=100,
)


def _keeps_all(worker: Worker) -> bool:
    return all(verdict.is_enforced for verdict in worker.hierarchy.verdicts().values())


async def test_what_was_asked_and_what_is_kept_is_told(place: WorkerPlace) -> None:
    policy = JobPolicy(limits=Limits(tasks=30, cpu_millis=2000))
    async with place.open() as worker:
        need(_keeps_all(worker), "controller for every limit")
        job, _ = await run(worker, sh("true", limits=_ALL), policy=policy)
        assert job.limits == _ALL
        assert {limit.resource for limit in job.effective} == set(Resource)
        for limit in job.effective:
            assert limit.is_enforced, limit
            assert limit.effective == limit.requested == _ALL.get(limit.resource)
            assert bool(limit.device) == limit.resource.value.startswith("io_")
        by_policy, _ = await run(worker, sh("true", limits=Limits(cpu_millis=100)), policy=policy)
        assert by_policy.limits == Limits(tasks=30, cpu_millis=100)
        assert by_policy.spec.limits == Limits(cpu_millis=100)
        free, _ = await run(worker, sh("true"))
        assert (free.limits, free.effective) == (Limits(), ())


@pytest.mark.parametrize("value", [0, -1, 1 << 63])
@pytest.mark.parametrize("resource", Resource, ids=lambda resource: resource.value)
def test_limits_that_no_host_could_keep_do_not_exist(resource: Resource, value: int) -> None:
    with pytest.raises(InvalidLimitError, match="cannot use limits"):
        Limits(**{resource.value: value})


async def test_limits_are_changed_while_the_job_runs(place: WorkerPlace) -> None:
    """It tells what it was given of 0.4 s of wall time, and since when, again and again."""
    program = """
import time
while True:
    began = time.monotonic()
    used = time.process_time()
    while time.monotonic() < began + 0.4: pass
    print(began, (time.process_time() - used) / 0.4, flush=True)
"""
    async with place.open(stop_jobs=False) as worker:
        need(worker.hierarchy.verdicts()["cpu_millis"].is_enforced, "CPU controller")
        job = await worker.start(python(program, limits=Limits(tasks=50)), owner=ALICE)
        changed = await worker.update_limits(job.id, Limits(cpu_millis=100), changed_by=ROOT)
        changed_at = time.monotonic()
        assert changed.limits == Limits(tasks=50, cpu_millis=100)
        kept = {limit.resource: limit.effective for limit in changed.effective}
        assert kept == {Resource.TASKS: 50, Resource.CPU: 100}
    async with place.open() as worker:
        again = await worker.get(job.id)
        assert (again.limits, again.effective) == (changed.limits, changed.effective)
        told = await read_until(
            worker, job.id, lambda data: len(_shares_since(changed_at, data)) >= 3
        )
        assert max(_shares_since(changed_at, told)) < 0.35, told
        await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
        with pytest.raises(FailedPreconditionError, match="it does not run"):
            await worker.update_limits(job.id, Limits(cpu_millis=200), changed_by=ROOT)


def _shares_since(since: float, told: bytes) -> list[float]:
    lines = [line.split() for line in told.splitlines()]
    return [float(share) for began, share in lines if float(began) > since]


async def test_a_task_limit_is_kept_and_its_refusals_counted(place: WorkerPlace) -> None:
    async with place.open() as worker:
        need(worker.hierarchy.verdicts()["tasks"].is_enforced, "pids controller")
        script = "for i in 1 2 3 4 5 6; do sleep 60 & done 2>/dev/null; exit 4"
        job, _ = await run(worker, sh(script, limits=Limits(tasks=3)))
        assert job.ending is not None
        assert job.ending.reason is EndReason.EXITED
        assert job.ending.usage.tasks_refused
        assert f"refused {job.ending.usage.tasks_refused} fork" in job.ending.message


async def test_a_limit_that_the_kernel_refuses_is_not_dropped(place: WorkerPlace) -> None:
    async with place.open() as worker:
        need(worker.hierarchy.verdicts()["memory_bytes"].is_enforced, "memory controller")
        job = await worker.start(python("x = bytearray(32 << 20); input()"), owner=ALICE)
        # input() ends at once, with stdin at its end: what follows is about an ended job.
        await collect(worker, job.id)
        with pytest.raises(FailedPreconditionError):
            await worker.update_limits(job.id, Limits(memory_bytes=4 * _MIB), changed_by=ROOT)
        if worker.hierarchy.mode.value == "v2":
            return  # there the kernel takes it, and kills
        holds = "x = bytearray(32 << 20); print(1, flush=True); import time; time.sleep(60)"
        job = await worker.start(python(holds), owner=ALICE)
        async for _ in worker.follow(job.id):
            break
        with pytest.raises(UnenforceableLimitError, match="memory_bytes"):
            await worker.update_limits(job.id, Limits(memory_bytes=4 * _MIB), changed_by=ROOT)
