"""What the worker needs has run out for a while: nobody's job pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import pytest

from jobworker.errors import UnavailableError
from jobworker.jobs import clearing, endings, evidence
from jobworker.kernel.process import open_process
from jobworker.model import EndReason, JobState
from jobworker.shim import records
from support.faults import is_alive, kill, no_descriptors, shims_of, told_by, wait_dead
from support.triggers import start_waiting, when_told
from support.worker import ALICE, BOB, WorkerPlace, read_until, sh

pytestmark = pytest.mark.anyio

P = ParamSpec("P")
T = TypeVar("T")

#: How often each kind of work is refused before it is let through.
_REFUSALS: Final = 2


def refused(work: Callable[P, T], moments: list[str]) -> Callable[P, T]:
    """Really refused: it is the moment that is chosen.

    moments: gets the name of the work for each time that it is tried.
    """

    def try_it(*args: P.args, **options: P.kwargs) -> T:
        moments.append(work.__name__)
        if moments.count(work.__name__) > _REFUSALS:
            return work(*args, **options)
        with no_descriptors():
            return work(*args, **options)

    return try_it


async def test_a_job_whose_shim_cannot_be_watched_at_once_is_watched_later(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[str] = []
    monkeypatch.setattr(endings, "open_process", refused(open_process, moments))
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 1000"), owner=ALICE)
        assert job.state is JobState.RUNNING
        # The shim is told as soon as it can be.
        async with asyncio.timeout(30):
            ended = await worker.stop(job.id, stopped_by=BOB)
    assert len(moments) == _REFUSALS + 1
    assert ended.ending is not None
    assert (ended.ending.reason, ended.ending.stopped_by) == (EndReason.STOPPED, BOB)


async def test_an_ending_that_cannot_be_read_at_once_is_not_lost(place: WorkerPlace) -> None:
    async with place.open() as worker:
        waiting = await start_waiting(worker, when_told("exit 7"))
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(worker.wait(waiting.job.id))
            with told_by("jobworker.jobs.shortage") as is_told, no_descriptors():
                telling = tasks.create_task(is_told.wait())
                waiting.go()
                await asyncio.wait((ending, telling), return_when=asyncio.FIRST_COMPLETED)
            telling.cancel()
        ended = ending.result()
    assert ended.ending is not None
    assert (ended.ending.reason, ended.ending.exit_code) == (EndReason.EXITED, 7)


async def test_records_that_cannot_be_read_at_once_are_not_damaged(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[str] = []
    monkeypatch.setattr(evidence, "_read", refused(evidence._read, moments))
    async with place.open(stop_jobs=False) as worker:
        waiting = await start_waiting(worker, when_told("exit 3"))
        (shim,) = shims_of(place.state_dir)
    waiting.go()
    await wait_dead(shim)
    async with place.open() as worker:
        found = await worker.get(waiting.job.id)
    assert len(moments) > _REFUSALS
    assert found.ending is not None
    assert (found.ending.reason, found.ending.exit_code) == (EndReason.EXITED, 3)


async def test_what_is_left_of_a_lost_job_is_killed_and_counted_as_soon_as_it_can_be(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[str] = []
    for module, name in ((clearing, "_kill_or_remove"), (endings, "count_output")):
        monkeypatch.setattr(module, name, refused(getattr(module, name), moments))
    async with place.open() as worker:
        job = await worker.start(sh("echo $$; exec sleep 1000"), owner=ALICE)
        said = await read_until(worker, job.id, lambda data: data.endswith(b"\n"))
        kill(place.shim_pid(job.id))
        ended = await worker.wait(job.id)
        assert not is_alive(int(said))
    assert {name: moments.count(name) > _REFUSALS for name in moments} == {
        "_kill_or_remove": True,
        "count_output": True,
    }
    assert ended.ending is not None
    assert ended.ending.reason is EndReason.LOST
    assert ended.output.kept_bytes == len(said)


async def test_a_journal_is_not_made_anew_without_a_job_that_cannot_be_read(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(stop_jobs=False) as worker:
        job = await worker.start(sh("echo on; exec sleep 1000"), owner=ALICE)
    (place.state_dir / "journal.sqlite").write_bytes(b"no database" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(records, "read", refused(records.read, []))
        with pytest.raises(UnavailableError, match="Too many open files"):
            async with place.open(stop_jobs=False):
                pass
    async with place.open() as worker:
        assert (await worker.get(job.id)).state is JobState.RUNNING
