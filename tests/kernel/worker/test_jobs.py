"""Asking about jobs, watching them, keeping and removing them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from jobworker.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    JobNotFoundError,
    UnavailableError,
)
from jobworker.model import EndReason, Job, JobFilter, JobId, JobState, Limits
from jobworker.worker import Retention, Worker
from support.triggers import start_waiting, when_told
from support.worker import (
    ALICE,
    BOB,
    WorkerPlace,
    collect,
    read_until,
    run,
    sh,
    starting_job,
)

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

_NOBODYS = JobId("z" * 20)


async def test_a_running_job_tells_what_it_uses(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo 12345; exec sleep 60"), owner=ALICE)
        assert job.state is JobState.RUNNING
        await read_until(worker, job.id, lambda data: data == b"12345\n")
        now = await worker.get(job.id)
        assert now.output.stdout_bytes == 6
        assert now.usage.tasks in (1, None)
        assert now.usage.memory_bytes
        assert await worker.owner_of(job.id) == ALICE
        (listed,) = (await worker.list()).jobs
        assert (listed.id, listed.output.stdout_bytes) == (job.id, 6)
        for unknown in (worker.get, worker.wait, worker.owner_of, worker.delete):
            with pytest.raises(JobNotFoundError):
                await unknown(_NOBODYS)
        with pytest.raises(JobNotFoundError):
            await worker.stop(_NOBODYS, stopped_by=ALICE)
        for grace_s in (-1, float("nan"), 1e9):
            with pytest.raises(InvalidArgumentError):
                await worker.stop(job.id, stopped_by=ALICE, grace_s=grace_s)


async def test_a_list_is_filtered(place: WorkerPlace) -> None:
    async with place.open() as worker:
        runs = await worker.start(sh("exec sleep 60", labels={"k": "1", "l": "x"}), owner=ALICE)
        ended, _ = await run(worker, sh("true", labels={"k": "1"}))
        bobs, _ = await run(worker, sh("true", labels={"k": "2"}), owner=BOB)
        cases: list[tuple[JobFilter, set[str]]] = [
            (JobFilter(), {runs.id, ended.id, bobs.id}),
            (JobFilter(owner=ALICE), {runs.id, ended.id}),
            (JobFilter(states=frozenset({JobState.ENDED})), {ended.id, bobs.id}),
            (JobFilter(states=frozenset({JobState.RUNNING})), {runs.id}),
            (JobFilter(states=frozenset(JobState)), {runs.id, ended.id, bobs.id}),
            (JobFilter(labels={"k": "1"}), {runs.id, ended.id}),
            (JobFilter(labels={"k": "1", "l": "x"}), {runs.id}),
            (JobFilter(labels={"k": "3"}), set()),
            (JobFilter(id_prefix=bobs.id[:10]), {bobs.id}),
            (JobFilter(id_prefix=bobs.id, owner=ALICE), set()),
        ]
        for which, expected in cases:
            page = await worker.list(which)
            assert {job.id for job in page.jobs} == expected, which
            assert page.next_page_token == ""
        for size in (0, -1, 1001):
            with pytest.raises(InvalidArgumentError):
                await worker.list(page_size=size)
        with pytest.raises(InvalidArgumentError, match="page_token"):
            await worker.list(page_token="not from here")


async def test_pages_stay_as_they_are_while_jobs_are_added(place: WorkerPlace) -> None:
    async with place.open() as worker:
        first = [(await run(worker, sh("true")))[0].id for _ in range(7)]
        seen: list[str] = []
        token = ""
        while True:
            page = await worker.list(page_size=2, page_token=token)
            assert len(page.jobs) <= 2
            seen += [job.id for job in page.jobs]
            token = page.next_page_token
            if not token:
                break
            await run(worker, sh("true"))
    assert seen == list(reversed(first))


async def test_what_ended_is_at_once_listed_as_ended(place: WorkerPlace) -> None:
    ended = JobFilter(states=frozenset({JobState.ENDED}))
    running = JobFilter(states=frozenset({JobState.RUNNING, JobState.STOPPING}))
    async with place.open() as worker:
        for number in range(1, 11):
            job = await worker.start(sh("exec sleep 60"), owner=ALICE)
            assert [found.id for found in (await worker.list(running)).jobs] == [job.id]
            await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
            assert len((await worker.list(ended)).jobs) == number
            assert (await worker.list(running)).jobs == ()


async def test_a_watcher_sees_what_is_there_and_each_change(place: WorkerPlace) -> None:
    async with place.open() as worker:
        there = await worker.start(sh("exec sleep 60"), owner=ALICE)
        seen: list[tuple[str, JobState]] = []
        async with contextlib.aclosing(
            worker.watch(JobFilter(owner=ALICE), heartbeat_s=60)
        ) as changes:
            seen.append(_told(await anext(changes)))
            assert await anext(changes) is None  # from here on no change is missed
            await run(worker, sh("true"), owner=BOB)
            job = await worker.start(sh("exec sleep 60"), owner=ALICE)
            seen.append(_told(await anext(changes)))
            await worker.stop(job.id, stopped_by=ALICE, wait=False)
            await worker.wait(job.id)
            while seen[-1] != (job.id, JobState.ENDED):
                seen.append(_told(await anext(changes)))
        assert seen[0] == (there.id, JobState.RUNNING)
        assert seen[1] == (job.id, JobState.RUNNING)
        assert set(seen[2:]) <= {(job.id, JobState.STOPPING), (job.id, JobState.ENDED)}
        async with contextlib.aclosing(worker.watch(heartbeat_s=0.02)) as changes:
            # One that ended may be there until the journal has it.
            while await anext(changes) is not None:
                pass
            assert [await anext(changes) for _ in range(3)] == [None] * 3


def _told(job: Job | None) -> tuple[str, JobState]:
    assert job is not None
    return job.id, job.state


async def test_a_running_job_is_not_deleted_and_an_ended_one_is_once(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo x; exec sleep 60"), owner=ALICE)
        with pytest.raises(FailedPreconditionError, match="stop it first"):
            await worker.delete(job.id)
        await worker.stop(job.id, stopped_by=ALICE, grace_s=0)

        async def delete() -> bool:
            try:
                await worker.delete(job.id)
            except JobNotFoundError:
                return False
            return True

        async with asyncio.TaskGroup() as tasks:
            deletes = [tasks.create_task(delete()) for _ in range(5)]
        assert sum(task.result() for task in deletes) == 1
        assert worker._registry.kept_bytes == {ALICE: 0}
        with pytest.raises(JobNotFoundError):
            await worker.get(job.id)
        assert not place.job_directory(job.id).exists()


async def test_who_hears_of_an_ending_finds_the_job_among_the_ended(place: WorkerPlace) -> None:
    ended = JobFilter(states=frozenset({JobState.ENDED}))
    async with place.open() as worker, contextlib.aclosing(worker.watch(ended)) as changes:
        assert await anext(changes) is None
        waiting = await start_waiting(worker, when_told("exit 3"))
        waiting.go()
        told = await anext(changes)
        found = (await worker.list(ended)).jobs
        assert [job.id for job in found] == [waiting.job.id]
        assert found == (told,)


async def test_a_removal_is_done_when_its_caller_goes_away(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, _ = await run(worker, sh("echo x"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker._keeper.remove(job)
    # The worker has waited for it.
    assert worker._registry.kept_bytes == {ALICE: 0}
    assert not place.job_directory(job.id).exists()


async def _kept(place: WorkerPlace, worker: Worker, count: int) -> set[str]:
    """The ended jobs, once no more than so many are left, directories and account included."""
    async with asyncio.timeout(20):
        while True:
            jobs = (await worker.list(JobFilter(states=frozenset({JobState.ENDED})))).jobs
            there = place.job_directories()
            total = sum(job.output.kept_bytes for job in jobs)
            is_removed = there == {job.id for job in jobs}
            if len(jobs) <= count and is_removed and worker._registry.kept_bytes[ALICE] == total:
                return there
            await asyncio.sleep(0.01)  # noqa: TID251 - a removal is announced to nobody


async def test_only_so_many_ended_jobs_are_kept(place: WorkerPlace) -> None:
    async with place.open() as worker:
        runs = await worker.start(sh("exec sleep 60"), owner=ALICE)
        ended = [(await run(worker, sh("true")))[0].id for _ in range(6)]
        await worker.stop(runs.id, stopped_by=ALICE)
    async with place.open(retention=Retention(max_jobs=3)) as worker:
        assert await _kept(place, worker, 3) == {*ended[-2:], runs.id}
        job, _ = await run(worker, sh("true"))
        assert await _kept(place, worker, 3) == {ended[-1], runs.id, job.id}


async def test_ended_jobs_are_kept_for_so_long_and_so_many_bytes(place: WorkerPlace) -> None:
    async with place.open(retention=Retention(max_bytes=25)) as worker:
        jobs = [(await run(worker, sh("printf 1234567890")))[0].id for _ in range(4)]
        assert await _kept(place, worker, 2) == set(jobs[-2:])
    async with place.open(retention=Retention(max_age_s=0.05)) as worker:
        assert await _kept(place, worker, 0) == set()
        await run(worker, sh("true"))
        assert await _kept(place, worker, 0) == set()


async def test_jobs_go_on_without_a_worker_and_are_found_again(place: WorkerPlace) -> None:
    async with place.open(stop_jobs=False) as worker:
        runs = await start_waiting(worker, when_told("echo after; exit 7"))
        lasts = await worker.start(sh("exec sleep 60"), owner=ALICE)
        deaf = await worker.start(sh("trap '' TERM; echo r; while :; do sleep 60; done"), owner=BOB)
        await read_until(worker, deaf.id, lambda data: data == b"r\n")
        await worker.stop(deaf.id, stopped_by=ALICE, grace_s=60, wait=False)
    runs.go()
    async with place.open() as worker:
        assert (await worker.get(lasts.id)).state is JobState.RUNNING
        assert (await worker.get(deaf.id)).state is JobState.STOPPING
        output = await collect(worker, runs.job.id)
        assert output.stdout == b"%d\nafter\n" % runs.pid
        assert (output.ending.reason, output.ending.exit_code) == (EndReason.EXITED, 7)
        ended = await worker.stop(deaf.id, stopped_by=BOB, grace_s=0)
        assert ended.ending is not None
        assert ended.ending.stopped_by == ALICE
        assert (await worker.get(lasts.id)).started_at == lasts.started_at


@contextlib.asynccontextmanager
async def _closed_under(place: WorkerPlace) -> AsyncIterator[tuple[asyncio.TaskGroup, Worker]]:
    """A group whose tasks go on when the worker is closed, and end soon after."""
    async with (
        asyncio.timeout(10),
        asyncio.TaskGroup() as outside,
        place.open(stop_jobs=False) as worker,
    ):
        yield outside, worker


async def test_who_still_waits_when_the_worker_is_closed_is_told(place: WorkerPlace) -> None:
    async with _closed_under(place) as (outside, worker):
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
        waiting = outside.create_task(_refusal_of(worker.wait(job.id)))
        await asyncio.sleep(0)  # noqa: TID251 - it begins
    assert waiting.result() == f"cannot wait for job {job.id}: the worker is closed"
    async with place.open() as worker:
        assert (await worker.get(job.id)).state is JobState.RUNNING


async def test_who_still_follows_or_watches_when_the_worker_is_closed_is_told(
    place: WorkerPlace,
) -> None:
    async with _closed_under(place) as (outside, worker):
        job = await worker.start(sh("echo on; exec sleep 60"), owner=ALICE)
        sources = (
            worker.follow(job.id),
            worker.follow(job.id, heartbeat_s=0.05),
            worker.watch(),
            worker.watch(heartbeat_s=0.05),
        )
        begun = [asyncio.Event() for _ in sources]
        waiting = [
            outside.create_task(_refusal_of(_exhaust(source, event)))
            for source, event in zip(sources, begun, strict=True)
        ]
        for event in begun:
            await event.wait()
    follows = f"cannot follow job {job.id}: the worker is closed"
    watches = "cannot watch jobs: the worker is closed"
    assert [told.result() for told in waiting] == [follows, follows, watches, watches]
    async with place.open() as worker:
        assert (await worker.get(job.id)).state is JobState.RUNNING


async def _exhaust(source: AsyncGenerator[object, None], begun: asyncio.Event) -> None:
    async with contextlib.aclosing(source):
        async for _ in source:
            begun.set()


async def test_a_closed_worker_says_so(place: WorkerPlace) -> None:
    async with place.open(stop_jobs=False) as worker:
        ended, _ = await run(worker, sh("true"))
        runs = await worker.start(sh("exec sleep 60"), owner=ALICE)
    calls: list[Callable[[], Awaitable[object]]] = [
        worker.list,
        lambda: worker.get(ended.id),
        lambda: worker.delete(ended.id),
        lambda: collect(worker, ended.id),
        lambda: collect(worker, runs.id),
        lambda: worker.wait(runs.id),
        lambda: worker.stop(runs.id, stopped_by=BOB),
        lambda: worker.update_limits(runs.id, Limits(tasks=20), changed_by=BOB),
        lambda: worker.start(sh("true"), owner=ALICE),
        lambda: anext(worker.watch()),
    ]
    async with asyncio.timeout(10):
        for call in calls:
            assert (await _refusal_of(call())).endswith(": the worker is closed")
    async with place.open() as worker:
        assert (await worker.get(runs.id)).state is JobState.RUNNING


async def test_a_worker_that_is_closed_during_a_start_leaves_the_job_running(
    place: WorkerPlace,
) -> None:
    async with _closed_under(place) as (outside, worker):
        starting = outside.create_task(worker.start(sh("exec sleep 60"), owner=ALICE))
        job_id = await starting_job(worker)
    assert starting.result().id == job_id
    async with place.open() as worker:
        assert (await worker.get(job_id)).state is JobState.RUNNING


async def test_a_start_that_meets_the_closing_of_the_worker_is_made_or_refused(
    place: WorkerPlace,
) -> None:
    for rounds in (0, 2, 4, 8, 16, 128):
        async with _closed_under(place) as (outside, worker):
            starting = outside.create_task(_ids_of_started(worker))
            for _ in range(rounds):
                await asyncio.sleep(0)  # noqa: TID251 - it comes so far
        async with place.open() as worker:
            page = await worker.list(JobFilter(states=frozenset({JobState.RUNNING})))
            assert [job.id for job in page.jobs] == starting.result()


async def _ids_of_started(worker: Worker) -> list[JobId]:
    """One, or none if it was refused."""
    try:
        job = await worker.start(sh("exec sleep 60"), owner=ALICE)
    except UnavailableError:
        return []
    return [job.id]


async def test_a_place_that_is_being_made_when_the_worker_is_closed_is_cleared_away(
    place: WorkerPlace,
) -> None:
    places, scratch = place.state_dir / "jobs" / "places", place.state_dir / "scratch"
    async with place.open() as worker:
        ready = await worker._starter._launcher.take()
        await ready.withdraw()
        worker._starter._prepare_next()
        while not list(places.iterdir()):  # noqa: ASYNC110 - see below
            await asyncio.sleep(0)  # noqa: TID251 - nothing announces it
    assert not list(places.iterdir())
    assert not list(scratch.iterdir())


async def test_what_watches_a_job_cleans_up_though_it_never_began(place: WorkerPlace) -> None:
    cleaned = asyncio.Event()
    async with place.open() as worker:
        worker._registry.run_until_released(_wait_for_ever(), then=cleaned.set)
        worker._registry.release()
    assert cleaned.is_set()


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


async def _refusal_of(waiting: Awaitable[object]) -> str:
    with pytest.raises(UnavailableError) as refusal:
        await waiting
    return str(refusal.value)


def test_a_loop_that_is_torn_down_takes_the_worker_with_it(place: WorkerPlace) -> None:
    """As by a signal handler that raises: asyncio then cancels all tasks at once, ours too.

    What the embedding program does on its way out must come to an end all the same.
    """

    async def embed() -> None:
        async with place.open() as worker, asyncio.TaskGroup() as tasks:
            await worker.start(sh("exec sleep 60"), owner=ALICE)
            for _ in range(5):
                tasks.create_task(worker.start(sh("exec sleep 60"), owner=ALICE))
            asyncio.get_running_loop().call_later(0.01, _interrupt)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(embed())

    async def stop_what_is_left() -> None:
        async with place.open():
            pass

    asyncio.run(stop_what_is_left())


def _interrupt() -> None:
    raise KeyboardInterrupt
