"""Jobs that take all they can get: others are served meanwhile, and a stop ends them.

Each runs under the predefined policy of standard users.
"""

from __future__ import annotations

import statistics
import time

import pytest

from jobworker.model import EndReason, Job, JobPolicy, JobSpec, Limits, OnOutputLimit
from jobworker.server.config_policy import USER_POLICY
from jobworker.worker import Worker
from support.worker import ALICE, BOB, WorkerPlace, collect, python, read_until, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

POLICY = USER_POLICY.to_policy()
MIB = 1024 * 1024
#: How long another job's status may take meanwhile, 19 times out of 20.
ANSWER_S = 0.2
QUESTIONS = 60
FOR_S = 1.0
#: Fewer than the policy has, so that a slow machine comes to it too.
TASKS = 32
#: A stop without grace, on a machine that the bomb keeps busy.
STOP_S = 5.0

_FORK_BOMB = """
import os
print("ready", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
#: Children that leave their session and their parent as fast as they can, deaf to SIGTERM.
_ESCAPE_BOMB = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            os.chdir("/")
            os.closerange(0, 64)
    except OSError:
        pass
"""
#: The shell lives on where the kernel kills only the child that wants too much.
_MEMORY_BOMB = (
    "echo ready; while :; do dd if=/dev/zero of=/dev/null bs=1G count=1 2>/dev/null; done"
)
_PRINTER = "echo ready; exec yes 'a line of some forty characters, and so on'"
_DISK_FILLER = "echo ready; exec dd if=/dev/zero bs=1M 2>/dev/null"
_SCRATCH_FILLER = (
    "echo ready; while :; do dd if=/dev/zero of=file bs=1M count=64 conv=fsync 2>/dev/null; done"
)

BOMBS = {
    "forks": python(_FORK_BOMB, limits=Limits(tasks=TASKS)),
    "escapes": python(_ESCAPE_BOMB, limits=Limits(tasks=TASKS)),
    "memory": sh(_MEMORY_BOMB),
    "lines": sh(_PRINTER, max_output_bytes=64 * MIB, on_output_limit=OnOutputLimit.DISCARD),
    "scratch": sh(_SCRATCH_FILLER),
}


async def _start(worker: Worker, spec: JobSpec, policy: JobPolicy = POLICY) -> Job:
    job = await worker.start(spec, owner=BOB, policy=policy)
    await read_until(worker, job.id, lambda data: data.startswith(b"ready\n"))
    return job


@pytest.mark.parametrize("name", BOMBS)
async def test_others_are_answered_and_a_stop_works(place: WorkerPlace, name: str) -> None:
    async with place.open() as worker:
        quiet = await worker.start(sh("exec sleep 60"), owner=ALICE, policy=POLICY)
        bomb = await _start(worker, BOMBS[name])
        answers: list[float] = []
        until = time.monotonic() + FOR_S
        is_ripe = False
        while len(answers) < QUESTIONS or time.monotonic() < until or not is_ripe:
            began = time.monotonic()
            assert (await worker.get(quiet.id)).ending is None
            answers.append(time.monotonic() - began)
            # One that forks is one only when it has come to its limit.
            usage = (await worker.get(bomb.id)).usage
            is_ripe = bool(usage.tasks_refused) or name not in {"forks", "escapes"}
        began = time.monotonic()
        stopped = await worker.stop(bomb.id, stopped_by=ALICE, grace_s=0)
        stop_s = time.monotonic() - began
        assert (await worker.get(quiet.id)).ending is None
    assert stopped.ending is not None
    # On v2 the kernel ends the whole job that ran out of memory, perhaps before we do.
    expected = {EndReason.STOPPED} | ({EndReason.OOM_KILLED} if name == "memory" else set())
    assert stopped.ending.reason in expected
    late = statistics.quantiles(answers, n=20)[-1]
    print(f"{name}: p95 {late * 1000:.1f} ms of {len(answers)}, stop {stop_s * 1000:.0f} ms")
    assert late <= ANSWER_S
    assert stop_s <= STOP_S


async def test_output_that_fills_the_disk_ends_at_its_limit(place: WorkerPlace) -> None:
    most = 32 * MIB
    policy = JobPolicy(limits=POLICY.limits, max_output_bytes=most)
    async with place.open() as worker:
        job = await worker.start(sh(_DISK_FILLER), owner=BOB, policy=policy)
        output = await collect(worker, job.id)
        ended = await worker.wait(job.id)
    assert len(output.whole) == most
    assert ended.ending is not None
    assert ended.ending.reason is EndReason.OUTPUT_LIMIT
    kept = (place.job_directory(job.id) / "output").stat()
    assert kept.st_size == most
    assert kept.st_blocks * 512 <= most + MIB
