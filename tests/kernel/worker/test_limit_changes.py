"""The history of a job's limits: who changed what, when, from what to what, with what outcome."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
    UnenforceableLimitError,
)
from jobworker.model import EndReason, Job, JobState, Limits, Resource
from jobworker.model.job import LIMIT_CHANGES_MAX
from jobworker.worker import RequireLimits, Worker
from support.faults import wait_dead
from support.guards import need
from support.triggers import start_waiting, when_told
from support.worker import ALICE, BOB, ROOT, WorkerPlace, python, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

_MIB = 1 << 20


def _need_tasks_and_memory(worker: Worker) -> None:
    verdicts = worker.hierarchy.verdicts()
    need(all(verdicts[name].is_enforced for name in ("tasks", "memory_bytes")), "controllers")


def _told(job: Job) -> list[tuple[str, Limits, Limits]]:
    return [(change.changed_by, change.before, change.after) for change in job.limit_changes]


async def test_each_change_is_told_with_what_came_of_it(place: WorkerPlace) -> None:
    begin = datetime.datetime.now(datetime.UTC)
    async with place.open() as worker:
        _need_tasks_and_memory(worker)
        spec = sh("exec sleep 60", limits=Limits(tasks=50, memory_bytes=64 * _MIB))
        job = await worker.start(spec, owner=ALICE)
        assert (job.limit_changes, job.limit_changes_dropped) == ((), 0)
        await worker.update_limits(job.id, Limits(tasks=40), changed_by=ROOT)
        both = Limits(tasks=30, cpu_millis=500)
        job = await worker.update_limits(job.id, both, changed_by=BOB)
        assert _told(job) == [
            (ROOT, Limits(tasks=50), Limits(tasks=40)),
            (BOB, Limits(tasks=40), Limits(tasks=30, cpu_millis=500)),
        ]
        first, second = job.limit_changes
        assert begin <= first.changed_at <= second.changed_at
        assert second.changed_at <= datetime.datetime.now(datetime.UTC)
        assert [(one.resource, one.effective) for one in second.effective] == [
            (Resource.CPU, 500),
            (Resource.TASKS, 30),
        ]
        assert not first.outcome_unknown
        ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
        assert ended.limit_changes == job.limit_changes
        with pytest.raises(FailedPreconditionError, match="it does not run"):
            await worker.update_limits(job.id, Limits(tasks=20), changed_by=ROOT)
        assert (await worker.get(job.id)).limit_changes == job.limit_changes


async def test_a_change_that_the_kernel_refuses_is_told_too(place: WorkerPlace) -> None:
    async with place.open(cgroup_parent="no\nname", require_limits=RequireLimits.WARN) as worker:
        assert worker.hierarchy.mode is Mode.NONE
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        changed = await worker.update_limits(job.id, Limits(tasks=20), changed_by=ROOT)
        (change,) = changed.limit_changes
        ((limit,),) = (change.effective,)
        assert not limit.is_enforced
        assert limit.note == worker.hierarchy.verdicts()["tasks"].note
        await worker.stop(job.id, stopped_by=ALICE, grace_s=0)


async def test_a_change_that_is_refused_for_it_is_told_all_the_same(place: WorkerPlace) -> None:
    async with place.open() as worker:
        _need_tasks_and_memory(worker)
        if worker.hierarchy.mode is Mode.UNIFIED:
            return  # there the kernel takes it, and kills
        holds = "x = bytearray(32 << 20); print(1, flush=True); import time; time.sleep(60)"
        job = await worker.start(python(holds), owner=ALICE)
        async for _ in worker.follow(job.id):
            break
        with pytest.raises(UnenforceableLimitError):
            await worker.update_limits(job.id, Limits(memory_bytes=4 * _MIB), changed_by=ROOT)
        (change,) = (await worker.get(job.id)).limit_changes
        assert [limit.is_enforced for limit in change.effective] == [False]
        assert change.effective[0].note


async def test_a_change_of_nothing_is_none(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        with pytest.raises(InvalidArgumentError, match="at least one"):
            await worker.update_limits(job.id, Limits(), changed_by=ROOT)
        assert not (await worker.get(job.id)).limit_changes


async def test_the_oldest_changes_are_dropped_and_counted(place: WorkerPlace) -> None:
    async with place.open(stop_jobs=False) as worker:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        for tasks in range(10, 10 + LIMIT_CHANGES_MAX + 3):
            job = await worker.update_limits(job.id, Limits(tasks=tasks), changed_by=ROOT)
        kept = [change.after.tasks for change in job.limit_changes]
        assert kept == list(range(13, 13 + LIMIT_CHANGES_MAX))
        assert job.limit_changes_dropped == 3
    async with place.open() as worker:
        again = await worker.get(job.id)
        assert again.limit_changes == job.limit_changes
        assert again.limit_changes_dropped == 3


async def test_changes_at_the_same_time_follow_each_other(place: WorkerPlace) -> None:
    """The last one in the history is the one that the kernel holds."""
    async with place.open() as worker:
        _need_tasks_and_memory(worker)
        job = await worker.start(sh("exec sleep 60", limits=Limits(tasks=100)), owner=ALICE)
        async with asyncio.TaskGroup() as changing:
            for tasks in range(20, 30):
                limits = Limits(tasks=tasks)
                changing.create_task(worker.update_limits(job.id, limits, changed_by=ROOT))
        job = await worker.get(job.id)
        before = [change.before.tasks for change in job.limit_changes]
        after = [change.after.tasks for change in job.limit_changes]
        assert sorted(after, key=lambda tasks: tasks or 0) == list(range(20, 30))
        assert before == [100, *after[:-1]]
        assert job.limits.tasks == after[-1] == job.effective[0].effective


async def test_who_goes_away_has_asked_all_the_same(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker.update_limits(job.id, Limits(tasks=20), changed_by=BOB)
        job = await worker.update_limits(job.id, Limits(tasks=30), changed_by=ROOT)
        assert _told(job) == [
            (BOB, Limits(), Limits(tasks=20)),
            (ROOT, Limits(tasks=20), Limits(tasks=30)),
        ]


async def test_what_cannot_be_recorded_is_not_done(place: WorkerPlace) -> None:
    async with place.open() as worker:
        _need_tasks_and_memory(worker)
        job = await worker.start(sh("exec sleep 60", limits=Limits(tasks=50)), owner=ALICE)
        draft = place.job_directory(job.id) / "limits.json.new"
        draft.mkdir()
        with pytest.raises(UnavailableError, match="cannot record the change of limits"):
            await worker.update_limits(job.id, Limits(tasks=20), changed_by=ROOT)
        unchanged = await worker.get(job.id)
        assert (unchanged.limits, unchanged.limit_changes) == (Limits(tasks=50), ())
        assert _kernels_tasks(worker, job) == "50"
        draft.rmdir()
        await worker.update_limits(job.id, Limits(tasks=20), changed_by=ROOT)
        assert _kernels_tasks(worker, job) == "20"


def _kernels_tasks(worker: Worker, job: Job) -> str:
    plan = worker.hierarchy.plan(job.id)
    folder = plan.controllers.get("pids") or plan.members
    return Path(folder, "pids.max").read_text().strip()


async def test_every_change_is_in_the_ending_or_refused(place: WorkerPlace) -> None:
    """However a change and the end fall together.

    Its scratch takes a while to be removed: changes come while the job is settled.
    """
    litter = "i=0; while [ $i -lt 1500 ]; do : >$i; i=$((i + 1)); done"
    async with place.open() as worker:
        for _ in range(2):
            waiting = await start_waiting(worker, when_told(f"{litter}; exit 3"))
            job, made = waiting.job, 0
            waiting.go()
            try:
                while True:
                    limits = Limits(tasks=50 + made)
                    # Where its cgroup was gone, that is told too.
                    with contextlib.suppress(UnenforceableLimitError):
                        await worker.update_limits(job.id, limits, changed_by=ROOT)
                    made += 1
            except FailedPreconditionError:
                pass
            ended = await worker.get(job.id)
            assert (ended.state, ended.limit_changes_dropped + len(ended.limit_changes)) == (
                JobState.ENDED,
                made,
            )


# -- what a later worker finds


async def _changed_job(worker: Worker, **spec: Any) -> Job:
    job = await worker.start(sh("exec sleep 60", limits=Limits(tasks=50), **spec), owner=ALICE)
    await worker.update_limits(job.id, Limits(tasks=20), changed_by=ROOT)
    return await worker.update_limits(job.id, Limits(cpu_millis=500), changed_by=BOB)


def _changed(job: Job) -> tuple[object, ...]:
    return job.limits, job.effective, job.limit_changes, job.limit_changes_dropped


@pytest.mark.parametrize("is_damaged", [False, True], ids=["restart", "journal made anew"])
async def test_a_later_worker_tells_the_same(place: WorkerPlace, is_damaged: bool) -> None:
    async with place.open(stop_jobs=False) as worker:
        ended = await _changed_job(worker)
        ended = await worker.stop(ended.id, stopped_by=ALICE, grace_s=0)
        running = await _changed_job(worker)
    if is_damaged:
        (place.state_dir / "journal.sqlite").write_bytes(b"no database" * 1000)
    async with place.open() as worker:
        for job in (running, ended):
            again = await worker.get(job.id)
            assert _changed(again) == _changed(job)
            assert len(again.limit_changes) == 2
        changed = await worker.update_limits(running.id, Limits(tasks=10), changed_by=ROOT)
        assert _told(changed)[-1] == (ROOT, Limits(tasks=20), Limits(tasks=10))


async def test_a_damaged_record_of_changes_costs_only_itself(place: WorkerPlace) -> None:
    async with place.open(stop_jobs=False) as worker:
        job = await _changed_job(worker)
    (place.job_directory(job.id) / "limits.json").write_bytes(b'{"limits"')
    async with place.open() as worker:
        again = await worker.get(job.id)
        assert _changed(again) == _changed(job)  # the journal has it
        assert again.state is JobState.RUNNING
        ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.STOPPED


async def test_an_interrupted_change_of_a_job_that_ended_is_told_as_unknown(
    place: WorkerPlace,
) -> None:
    async with place.open(stop_jobs=False) as worker:
        waiting = await start_waiting(worker, when_told("exit 3", limits=Limits(tasks=50)))
        job = await worker.update_limits(waiting.job.id, Limits(tasks=40), changed_by=ROOT)
        shim = place.shim_pid(job.id)
    record = place.job_directory(job.id) / "limits.json"
    told = json.loads(record.read_bytes())
    # As it stands on the disk between the intent and the outcome.
    intent = {**told["limit_changes"][0], "before": {"tasks": 40}, "after": {"tasks": 30}}
    told["limit_changes"].append({**intent, "effective": [], "outcome_unknown": True})
    record.write_text(json.dumps(told))
    waiting.go()
    await wait_dead(shim)
    async with place.open() as worker:
        ended = await worker.get(job.id)
        assert ended.state is JobState.ENDED
        assert [change.outcome_unknown for change in ended.limit_changes] == [False, True]
        assert ended.limit_changes[1].effective == ()
        assert ended.limits == Limits(tasks=40)
