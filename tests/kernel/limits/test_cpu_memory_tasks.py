"""CPU, memory and tasks: what a job gets, what its account says, on every kind of host.

Tolerances: a busy host gives less than a limit allows, and kernels that count in ticks of 10 ms
(User-Mode Linux) give one tick too many in each period of 100 ms; nothing gives more than that.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.cgroup.interface import CgroupPlan, Mode
from jobworker.cgroup.location import find_locations
from jobworker.cgroup.proof import NO_SWAP_LIMIT
from jobworker.model import EndReason, Limits
from jobworker.model.limits import Resource
from jobworker.model.units import format_bytes
from support.guards import only_on
from support.triggers import start_waiting, when_told
from support.worker import ALICE, WorkerPlace, python, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

MIB = 1024 * 1024
LIMIT = 32 * MIB
_LOCATIONS = find_locations()
EXPECTED_MODE = Mode.UNIFIED
if "memory" in _LOCATIONS.legacy:
    EXPECTED_MODE = Mode.LEGACY if _LOCATIONS.unified is None else Mode.HYBRID

SPIN = "while :; do :; done"
FILL = "exec dd if=/dev/zero of=/dev/null bs=$1 count=1"

FORK = """
import os, signal
forked, refused = [], 0
for _ in range(12):
    try:
        pid = os.fork()
    except BlockingIOError:
        refused += 1
        continue
    if pid == 0:
        signal.pause()
    forked.append(pid)
print(len(forked), refused)
"""


async def test_a_host_is_used_for_what_it_has(place: WorkerPlace) -> None:
    """Or every other test here would be about something else than it says."""
    async with place.open() as worker:
        assert worker.hierarchy.mode is EXPECTED_MODE


async def test_a_twentieth_of_a_cpu_is_no_more(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, _ = await run(worker, sh(SPIN, limits=Limits(cpu_millis=50), timeout_s=2))
    assert job.ending is not None
    assert job.ending.reason is EndReason.TIMED_OUT
    assert job.started_at is not None
    assert job.ended_at is not None
    (limit,) = job.effective
    assert (limit.requested, limit.effective, limit.note) == (50, 50, "")
    usage = job.ending.usage
    assert usage.cpu_seconds is not None
    share = usage.cpu_seconds / (job.ended_at - job.started_at).total_seconds()
    assert 0.01 < share < 0.2, usage
    assert usage.cpu_throttled_seconds is not None
    assert usage.cpu_throttled_seconds > 0.1


async def test_without_a_limit_nothing_is_throttled(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, _ = await run(worker, sh(SPIN, timeout_s=0.5))
    assert job.ending is not None
    assert job.ending.usage.cpu_throttled_seconds in {0.0, None}
    assert (job.ending.usage.cpu_seconds or 0) > 0.02


async def test_more_memory_than_allowed_is_an_oom_kill(place: WorkerPlace) -> None:
    async with place.open() as worker:
        spec = sh(FILL, str(4 * LIMIT), limits=Limits(memory_bytes=LIMIT))
        job, _ = await run(worker, spec)
    assert job.ending is not None
    assert job.ending.reason is EndReason.OOM_KILLED
    assert job.ending.signal == signal.SIGKILL
    assert f"its own limit of {format_bytes(LIMIT)} (" in job.ending.message
    assert [limit.effective for limit in job.effective] == [LIMIT]
    usage = job.ending.usage
    assert (usage.oom_kills or 0) >= 1
    if usage.memory_peak_bytes is not None:  # since Linux 5.19 on v2
        assert LIMIT // 2 < usage.memory_peak_bytes <= LIMIT


async def test_less_memory_than_allowed_is_no_trouble(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, _ = await run(worker, sh(FILL, str(LIMIT // 4), limits=Limits(memory_bytes=LIMIT)))
    assert job.ending is not None
    assert job.ending.exit_code == 0
    assert job.ending.usage.oom_kills == 0


async def test_the_page_cache_counts_and_gives_way(place: WorkerPlace) -> None:
    write = f"dd if=/dev/zero of=file bs=1M count={2 * LIMIT // MIB} 2>/dev/null"
    async with place.open() as worker:
        job, _ = await run(worker, sh(write, limits=Limits(memory_bytes=LIMIT)))
    assert job.ending is not None
    assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 0)
    usage = job.ending.usage
    assert usage.oom_kills == 0
    if usage.memory_peak_bytes is not None:
        assert LIMIT // 2 < usage.memory_peak_bytes <= LIMIT


async def test_swap_is_within_the_limit_or_the_note_says_no(place: WorkerPlace) -> None:
    spec = sh("cat /proc/self/cgroup; sleep 60", limits=Limits(memory_bytes=LIMIT))
    async with place.open() as worker:
        job = await worker.start(spec, owner=ALICE)
        memory = _memory_cgroup(worker.hierarchy.plan(job.id))
        if job.effective[0].note == NO_SWAP_LIMIT:
            assert not (memory / "memory.memsw.limit_in_bytes").exists()
            assert not (memory / "memory.swap.max").exists()
        elif worker.hierarchy.mode is Mode.UNIFIED:
            assert (memory / "memory.swap.max").read_text() == "0\n"
        else:
            assert (memory / "memory.memsw.limit_in_bytes").read_text() == f"{LIMIT}\n"


@pytest.fixture
def swap(place: WorkerPlace) -> Iterator[None]:
    """Swap, in a guest kernel; that of a host is not ours to switch on."""
    only_on("RUN_IN_GUEST" in os.environ, "a kernel that is there for the test alone")
    file = place.state_dir / "swap"
    with file.open("wb") as handle:
        for _ in range(128):
            handle.write(bytes(MIB))
    file.chmod(0o600)
    subprocess.run(["/usr/sbin/mkswap", "-q", file], check=True)
    subprocess.run(["/usr/sbin/swapon", file], check=True)
    yield
    subprocess.run(["/usr/sbin/swapoff", file], check=True)
    file.unlink()


@pytest.mark.usefixtures("swap")
async def test_swap_does_not_help_a_job_over_its_limit(place: WorkerPlace) -> None:
    limits = Limits(memory_bytes=LIMIT)
    async with place.open() as worker:
        held, _ = await run(worker, sh(FILL, str(2 * LIMIT), limits=limits))
        assert held.ending is not None
        assert held.ending.reason is EndReason.OOM_KILLED
        # The same with the kernel's swap limit taken away behind the worker's back: it is this
        # that holds, not a want of swap.
        waiting = await start_waiting(worker, when_told(FILL, str(2 * LIMIT), limits=limits))
        memory = _memory_cgroup(worker.hierarchy.plan(waiting.job.id))
        (memory / "memory.swap.max").write_text("max")
        waiting.go()
        freed = await worker.wait(waiting.job.id)
        assert freed.ending is not None
        assert (freed.ending.reason, freed.ending.exit_code) == (EndReason.EXITED, 0)


async def test_forks_beyond_the_limit_are_refused_and_counted(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, output = await run(worker, python(FORK, limits=Limits(tasks=5)))
    assert output.stdout == b"4 8\n", output.whole
    assert job.ending is not None
    assert [limit.effective for limit in job.effective] == [5]
    # One for each fork on most kernels; Linux 6.1 counts once for each time the limit is hit.
    assert (job.ending.usage.tasks_refused or 0) >= 1
    assert "its task limit of 5 refused" in job.ending.message
    assert "4 processes that it left behind were killed" in job.ending.message


async def test_what_the_host_promises_and_what_a_job_is_told_are_the_same(
    place: WorkerPlace, disk: str
) -> None:
    limits = Limits(
        cpu_millis=500,
        memory_bytes=LIMIT,
        tasks=16,
        io_read_bytes_per_s=MIB,
        io_write_bytes_per_s=MIB,
        io_read_ops_per_s=100,
        io_write_ops_per_s=100,
    )
    async with place.open() as worker:
        job, _ = await run(worker, sh("true", limits=limits))
        verdicts = worker.hierarchy.verdicts()
    told = {limit.resource: limit for limit in job.effective}
    assert set(told) == set(Resource)
    for resource, limit in told.items():
        verdict = verdicts[resource.value]
        assert (limit.is_enforced, limit.note) == (verdict.is_enforced, verdict.note), resource
        assert limit.effective == limit.requested
    io = [limit for limit in job.effective if limit.resource is Resource.IO_READ_BYTES]
    assert disk in {limit.device.split()[0] for limit in io}


def _memory_cgroup(plan: CgroupPlan) -> Path:
    return Path(plan.controllers.get("memory", plan.members))
