"""What the worker needs has run out for a while: nobody's job pays for it."""

from __future__ import annotations

import asyncio

import pytest

from jobworker.jobs import endings
from jobworker.kernel.process import ProcessName, open_process
from jobworker.model import EndReason, JobState
from support.faults import no_descriptors
from support.worker import ALICE, BOB, WorkerPlace, sh

pytestmark = pytest.mark.anyio


async def test_a_job_whose_shim_cannot_be_watched_at_once_is_watched_later(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def open_with_trouble(name: ProcessName) -> int | None:
        """Really refused: it is the moment that is chosen."""
        attempts.append(name)
        if len(attempts) > 2:
            return open_process(name)
        with no_descriptors():
            return open_process(name)

    monkeypatch.setattr(endings, "open_process", open_with_trouble)
    async with place.open() as worker:
        job = await worker.start(sh("exec sleep 1000"), owner=ALICE)
        assert job.state is JobState.RUNNING
        # The shim is told as soon as it can be.
        async with asyncio.timeout(30):
            ended = await worker.stop(job.id, stopped_by=BOB)
    assert len(attempts) == 3
    assert ended.ending is not None
    assert (ended.ending.reason, ended.ending.stopped_by) == (EndReason.STOPPED, BOB)
