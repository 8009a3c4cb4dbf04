"""What each RPC does, from the client's side of the wire."""

from __future__ import annotations

import pytest

from jobworker.api.v1 import job_worker_pb2 as pb
from support.service import ServicePlace, output, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


async def test_a_job_is_started_followed_and_told_about(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "echo out; echo err >&2; exit 7", labels={"a": "b"})
        assert job.owner == "alice"
        assert await output(alice, job.id) == b"out\nerr\n"
        job = (await alice.GetJob(pb.GetJobRequest(job_id=job.id))).job
        assert job.state == pb.JOB_STATE_ENDED
        assert (job.ending.reason, job.ending.exit_code) == (pb.END_REASON_EXITED, 7)
