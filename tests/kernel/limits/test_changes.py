"""Limits of a running job are changed and bite; limits that a host does not keep are refused."""

from __future__ import annotations

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.errors import UnenforceableLimitError
from jobworker.model import EndReason, Limits
from jobworker.model.limits import Resource
from jobworker.worker import RequireLimits
from kernel.limits.test_cpu_memory_tasks import FILL, FORK, LIMIT, MIB, SPIN
from support.triggers import start_waiting, when_told
from support.worker import ALICE, PYTHON, ROOT, WorkerPlace, collect, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

#: As in test_disk.py: 2 s by the limit alone.
_RATE = 2 * MIB
_WRITE = "dd if=/dev/zero of=file bs=256k count=16 oflag=direct 2>/dev/null"


async def test_a_spinning_job_is_slowed_down(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh(SPIN, timeout_s=2.5), owner=ALICE)
        changed = await worker.update_limits(job.id, Limits(cpu_millis=50), changed_by=ROOT)
        assert [limit.effective for limit in changed.effective] == [50]
        assert changed.limits.cpu_millis == 50
        ended = await worker.wait(job.id)
    assert ended.ending is not None
    usage = ended.ending.usage
    assert (usage.cpu_throttled_seconds or 0) > 0.1
    # From the change on 0.05 of a CPU; 0.5 s is what it may have had before.
    assert (usage.cpu_seconds or 0) < 0.5 + 0.2 * 2.5


async def test_memory_is_taken_back_from_a_running_job(place: WorkerPlace) -> None:
    async with place.open() as worker:
        spec = when_told(FILL, str(4 * LIMIT), limits=Limits(memory_bytes=8 * LIMIT))
        waiting = await start_waiting(worker, spec)
        changed = await worker.update_limits(
            waiting.job.id, Limits(memory_bytes=LIMIT), changed_by=ROOT
        )
        assert [limit.effective for limit in changed.effective] == [LIMIT]
        waiting.go()
        ended = await worker.wait(waiting.job.id)
    assert ended.ending is not None
    assert ended.ending.reason is EndReason.OOM_KILLED


async def test_memory_is_given_to_a_running_job(place: WorkerPlace) -> None:
    async with place.open() as worker:
        spec = when_told(FILL, str(2 * LIMIT), limits=Limits(memory_bytes=LIMIT))
        waiting = await start_waiting(worker, spec)
        await worker.update_limits(waiting.job.id, Limits(memory_bytes=4 * LIMIT), changed_by=ROOT)
        waiting.go()
        ended = await worker.wait(waiting.job.id)
    assert ended.ending is not None
    assert (ended.ending.reason, ended.ending.exit_code) == (EndReason.EXITED, 0)


async def test_memory_below_what_is_in_use_is_refused_or_kills(place: WorkerPlace) -> None:
    """v1 refuses what it cannot bring about; v2 brings it about."""
    hold = "import signal; held = bytearray(64 << 20); print('held', flush=True); signal.pause()"
    async with place.open() as worker:
        spec = sh(f'exec {PYTHON} -I -S -c "$1"', hold, limits=Limits(memory_bytes=8 * LIMIT))
        job = await worker.start(spec, owner=ALICE)
        await read_until(worker, job.id, lambda data: b"held" in data)
        if worker.hierarchy.mode is Mode.UNIFIED:
            await worker.update_limits(job.id, Limits(memory_bytes=LIMIT), changed_by=ROOT)
            ended = await worker.wait(job.id)
            assert ended.ending is not None
            assert ended.ending.reason is EndReason.OOM_KILLED
            return
        with pytest.raises(UnenforceableLimitError, match=f"still holds {8 * LIMIT}"):
            await worker.update_limits(job.id, Limits(memory_bytes=LIMIT), changed_by=ROOT)
        (limit,) = (await worker.get(job.id)).effective
        assert not limit.is_enforced


async def test_a_running_job_may_not_fork_any_more(place: WorkerPlace) -> None:
    async with place.open() as worker:
        spec = when_told(f'exec {PYTHON} -I -S -c "$1"', FORK, limits=Limits(tasks=100))
        waiting = await start_waiting(worker, spec)
        await worker.update_limits(waiting.job.id, Limits(tasks=5), changed_by=ROOT)
        waiting.go()
        output = await collect(worker, waiting.job.id)
    assert output.stdout.splitlines()[-1] == b"4 8"
    assert (output.ending.usage.tasks_refused or 0) >= 1


async def test_a_running_job_writes_more_slowly(place: WorkerPlace, disk: str) -> None:
    timed = f"a=$(date +%s%N); {_WRITE}; b=$(date +%s%N); echo $((b - a))"
    async with place.open() as worker:
        waiting = await start_waiting(worker, when_told(timed))
        changed = await worker.update_limits(
            waiting.job.id, Limits(io_write_bytes_per_s=_RATE), changed_by=ROOT
        )
        told = {limit.device.split()[0]: limit.effective for limit in changed.effective}
        waiting.go()
        output = await collect(worker, waiting.job.id)
    assert told.get(disk) == _RATE
    assert int(output.stdout.splitlines()[-1]) / 1e9 >= 1.5


#: No directory can have this name: the worker finds nothing that it may write to.
_NOWHERE = "no\nname"


@pytest.mark.parametrize("resource", Resource, ids=lambda resource: resource.value)
async def test_what_cannot_be_kept_is_refused_or_flagged(
    place: WorkerPlace, resource: Resource
) -> None:
    """With the reason that the host's verdict gives, whoever tells it."""
    limits = Limits(**{resource.value: 1 << 20})
    async with place.open(cgroup_parent=_NOWHERE) as worker:
        assert worker.hierarchy.mode is Mode.NONE
        verdict = worker.hierarchy.verdicts()[resource.value]
        assert not verdict.is_enforced
        with pytest.raises(UnenforceableLimitError) as refused:
            await worker.start(sh("true", limits=limits), owner=ALICE)
        assert verdict.note in str(refused.value)
        assert (await worker.list()).jobs == ()
    warn = RequireLimits.WARN
    async with place.open(cgroup_parent=_NOWHERE, require_limits=warn) as worker:
        job, _ = await run(worker, sh("true", limits=limits))
    assert job.ending is not None
    assert job.ending.exit_code == 0
    assert [(limit.effective, limit.note) for limit in job.effective] == [(None, verdict.note)]
