"""jobctl run while the service has not answered yet, or does not answer any more."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobworker.client import Target
from support.certificates import make_installation
from support.scripted import ScriptedService, serving, target_of

import grpc  # isort: skip -- after jobworker.client, which loads it under the TLS policy
from jobworker.api.v1 import job_worker_pb2 as pb  # isort: skip

pytestmark = pytest.mark.anyio

JOB = "0123456789abcdefghjk"


def running_job() -> pb.Job:
    job = pb.Job(id=JOB, owner="alice", state=pb.JOB_STATE_RUNNING, spec=pb.JobSpec(argv=["x"]))
    job.isolation = pb.ISOLATION_NONE
    job.created_at.GetCurrentTime()
    return job


@contextlib.asynccontextmanager
async def running(target: Target, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    options = [f"--server={target.server}", f"--ca={target.ca}"]
    options += [f"--cert={target.cert}", f"--key={target.key}"]
    program = Path(sys.executable).parent / "jobctl"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *options, *args, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
def installation(tmp_path: Path):
    return make_installation(tmp_path / "pki")


async def test_two_signals_during_the_start_leave_at_once(installation) -> None:
    service, asked = ScriptedService(), asyncio.Event()

    async def start(request, context):
        asked.set()
        await asyncio.Event().wait()

    service.handlers["StartJob"] = start
    async with (
        serving(service, installation) as port,
        running(target_of(installation, port), "run", "--", "true") as process,
    ):
        assert process.stderr is not None
        await asked.wait()
        process.send_signal(signal.SIGINT)
        assert b"stopping the job" in await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        told = await process.stderr.read()
        assert await process.wait() == 143
    assert told == b"jobctl: left while the job was being started; to find it: jobctl list\n"


async def test_a_signal_during_the_start_stops_the_job_once_it_is_there(installation) -> None:
    service, asked, told = ScriptedService(), asyncio.Event(), asyncio.Event()
    stopped = asyncio.Event()
    job = running_job()

    async def start(request, context):
        asked.set()
        await told.wait()
        return pb.StartJobResponse(job=job)

    async def stop(request, context):
        stopped.set()
        return pb.StopJobResponse(job=job)

    async def stream(request, context):
        await stopped.wait()
        ending = pb.Ending(reason=pb.END_REASON_STOPPED, signal=15, message="stopped by 'alice'")
        end = pb.OutputEnd(totals=pb.OutputTotals(), ending=ending)
        yield pb.StreamOutputResponse(end=end)

    service.handlers |= {"StartJob": start, "StopJob": stop, "StreamOutput": stream}
    async with (
        serving(service, installation) as port,
        running(target_of(installation, port), "run", "--", "x") as process,
    ):
        assert process.stderr is not None
        await asked.wait()
        process.send_signal(signal.SIGINT)
        assert b"stopping the job" in await process.stderr.readline()
        told.set()
        assert await process.stderr.read() == f"jobctl: job {JOB} stopped by 'alice'\n".encode()
        assert await process.wait() == 143


async def test_a_start_that_nobody_answers_tells_how_to_find_the_job(installation) -> None:
    service = ScriptedService()

    async def start(request, context):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too slow")

    service.handlers["StartJob"] = start
    async with (
        serving(service, installation) as port,
        running(target_of(installation, port), "run", "--", "x") as process,
    ):
        _, told = await process.communicate()
    hint, error = told.decode().splitlines()
    assert f"--request-id {service.requests[0].request_id} finds it" in hint
    assert error.startswith("jobctl: cannot wait any longer")
    assert process.returncode == 125


async def test_a_job_that_is_lost_sight_of_is_named(installation) -> None:
    service = ScriptedService()

    async def start(request, context):
        return pb.StartJobResponse(job=running_job())

    async def stream(request, context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "it has expired")
        yield

    service.handlers |= {"StartJob": start, "StreamOutput": stream}
    async with (
        serving(service, installation) as port,
        running(target_of(installation, port), "run", "--", "x") as process,
    ):
        _, told = await process.communicate()
    hint, error = told.decode().splitlines()
    assert hint == f"jobctl: left job {JOB} alone; to go on: jobctl logs -f {JOB}"
    assert "it has expired" in error
    assert process.returncode == 125
