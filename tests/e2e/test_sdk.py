"""The client SDK as a program uses it, against a real service."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from jobworker.client import Client, Target, connect
from jobworker.errors import JobNotFoundError, PermissionDeniedError, StartFailedError
from jobworker.model import Chunk, EndOfOutput, EndReason, JobFilter, JobSpec, JobState, Limits
from support.daemon import Daemon

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]


def target_of(daemon: Daemon, user: str) -> Target:
    return Target(
        server=f"127.0.0.1:{daemon.port}",
        ca=Path(daemon.pki("ca.pem")),
        cert=Path(daemon.pki(f"{user}.pem")),
        key=Path(daemon.pki(f"{user}.key")),
    )


def script(text: str) -> JobSpec:
    return JobSpec(argv=("sh", "-c", text))


async def test_start_follow_wait_list_delete(daemon: Daemon) -> None:
    async with connect(target_of(daemon, "alice")) as client:
        job = await client.start(script("echo out; echo err >&2; exit 3"))
        async with contextlib.aclosing(client.follow(job.id)) as events:
            seen = [event async for event in events]
        pieces = [event.data for event in seen if isinstance(event, Chunk)]
        assert sorted(b"".join(pieces).splitlines()) == [b"err", b"out"]
        assert isinstance(seen[-1], EndOfOutput)
        ended = await client.wait(job.id)
        assert ended.ending is not None
        assert (ended.ending.reason, ended.ending.exit_code) == (EndReason.EXITED, 3)
        page = await client.list(JobFilter(id_prefix=job.id))
        assert [found.id for found in page.jobs] == [job.id]
        await client.delete(job.id)
        with pytest.raises(JobNotFoundError):
            await client.get(job.id)


async def test_a_watch_sees_a_job_from_start_to_end(daemon: Daemon) -> None:
    async with connect(target_of(daemon, "bob")) as client:
        job = await client.start(script("sleep 600"))
        seen: list[JobState] = []
        async with contextlib.aclosing(client.watch(JobFilter(id_prefix=job.id))) as changes:
            async for change in changes:
                seen.append(change.state)
                if seen == [JobState.RUNNING]:
                    await client.stop(job.id, grace_s=0, wait=False)
                if change.state is JobState.ENDED:
                    break
    assert seen[0] is JobState.RUNNING
    assert set(seen[1:-1]) <= {JobState.STOPPING}


async def test_errors_are_those_of_the_library(daemon: Daemon) -> None:
    async with connect(target_of(daemon, "alice")) as client:
        with pytest.raises(StartFailedError) as raised:
            await client.start(JobSpec(argv=("/nonexistent",)))
        assert (raised.value.reason, raised.value.path) == ("COMMAND_NOT_FOUND", "/nonexistent")
        with pytest.raises(PermissionDeniedError):
            await client.start(JobSpec(argv=("true",), limits=Limits(cpu_millis=100)))
        await _refused_to_others(client, target_of(daemon, "bob"))


async def _refused_to_others(client: Client, other: Target) -> None:
    job = await client.start(script("sleep 600"))
    async with connect(other) as stranger:
        with pytest.raises(JobNotFoundError):
            await anext(stranger.follow(job.id))
    stopped = await client.stop(job.id, grace_s=0)
    assert stopped.state is JobState.ENDED


async def test_who_am_i(daemon: Daemon) -> None:
    async with connect(target_of(daemon, "alice")) as client:
        me = await client.who_am_i()
    assert (me.user, me.role) == ("alice", "user")
