"""The real daemon is killed under load, with real clients: nothing of any job may change by it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from faults.soak import describe, run_soak
from jobworker.client import Client, connect
from jobworker.model import Chunk, EndOfOutput, EndReason, Job, JobState
from support.certificates import Installation, make_installation
from support.faults import (
    BIN,
    Writing,
    cgroup_parents,
    kill,
    launcher_of,
    open_daemon,
    shims_of,
    wait_dead,
    witness_directory,
    witnessed,
)
from support.guards import in_guest, need
from support.triggers import Waiting, when_told
from support.worker import sh, state_directory

pytestmark = pytest.mark.anyio

#: In the gate; ``bench/soak`` does the same a thousand times and more.
KILLS: Final = 50


@pytest.fixture
def folder(cgroup_name: str) -> Iterator[Path]:
    need(os.geteuid() == 0, "root")
    cgroup_parents(cgroup_name)
    with state_directory() as path:
        yield path


@pytest.fixture
def installation(folder: Path) -> Installation:
    return make_installation(folder / "certificates")


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_nothing_is_lost_in_fifty_kills(folder: Path, cgroup_name: str) -> None:
    tally = await run_soak(folder, kills=KILLS, seed=1, cgroup_name=cgroup_name)
    assert sum(tally.kills.values()) == KILLS
    # A machine that is busy with other tests has time for fewer.
    assert tally.jobs > KILLS // 5
    assert tally.is_clean, describe(tally)


async def follow_all(client: Client, job: Job) -> tuple[bytes, EndOfOutput]:
    data = bytearray()
    async with contextlib.aclosing(client.follow(job.id)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                data += event.data
            else:
                return bytes(data), event
    raise AssertionError("the stream ended without its end")


@pytest.mark.slow
async def test_a_running_job_keeps_its_pid_and_its_followers_get_each_byte_once(
    folder: Path, installation: Installation, cgroup_name: str
) -> None:
    writing = Writing(name="long", lines=1_000_000, period_s=0.02)
    with witness_directory(folder) as witnesses:
        async with (
            open_daemon(folder, installation, cgroup_name) as daemon,
            connect(daemon.target(installation, "alice")) as client,
        ):
            job = await client.start(writing.spec(witnesses))
            async with asyncio.TaskGroup() as tasks:
                followers = [tasks.create_task(follow_all(client, job)) for _ in range(3)]
                jobctl = await open_jobctl(
                    daemon.target(installation, "alice").server, installation, job
                )
                assert jobctl.stdout is not None
                # Only from here on does it bear with a service that is away.
                first_line = await jobctl.stdout.readline()
                reading = tasks.create_task(jobctl.communicate())
                for _ in range(3):
                    launcher = launcher_of(daemon.pid)
                    await daemon.kill()
                    if launcher is not None:
                        kill(launcher)
                    await daemon.spawn()
                    assert await daemon.wait_ready()
                    seen = await client.get(job.id)
                    assert seen.state is JobState.RUNNING
                await client.stop(job.id)
            ((pid,),) = witnessed(witnesses).values()
            written = (witnesses / f"{writing.name}.{pid}").read_text()
    stdout, stderr = writing.expected(int(written))
    for follower in followers:
        data, end = follower.result()
        assert sorted(data.splitlines()) == sorted((stdout + stderr).splitlines())
        assert end.ending is not None
        assert (end.ending.reason, end.ending.exit_code) == (EndReason.STOPPED, 0)
    rest, errors = reading.result()
    assert first_line + rest == stdout
    # Beside what the job wrote there: that it bears with a service that is away.
    said = [line for line in errors.splitlines(True) if line.startswith(b"jobctl: ")]
    assert b"".join(line for line in errors.splitlines(True) if line not in said) == stderr


async def open_jobctl(
    server: str, installation: Installation, job: Job
) -> asyncio.subprocess.Process:
    """``jobctl logs -f``, as a user has it in a terminal."""
    store = installation.store
    return await asyncio.create_subprocess_exec(
        *(BIN / "jobctl", "logs", "-f", "--server", server, "--ca", installation.ca_file),
        *("--cert", store.certificate_file("alice"), "--key", store.key_file("alice"), job.id),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": "/nonexistent"},
    )


async def first_line(client: Client, job: Job) -> bytes:
    """Of its output, once it is there."""
    async with contextlib.aclosing(client.follow(job.id)) as events:
        event = await anext(events)
        assert isinstance(event, Chunk)
        return event.data


async def start_waiting(client: Client, script: str) -> Waiting:
    job = await client.start(when_told(script))
    return Waiting(job=job, pid=int(await first_line(client, job)))


async def test_what_was_under_way_is_carried_through(
    folder: Path, installation: Installation, cgroup_name: str
) -> None:
    async with (
        open_daemon(folder, installation, cgroup_name) as daemon,
        connect(daemon.target(installation, "alice")) as client,
    ):
        deaf = await client.start(sh("trap '' TERM; echo deaf; while :; do sleep 1; done"))
        await first_line(client, deaf)
        short = await start_waiting(client, "exit 42")
        struck = await start_waiting(client, "kill -SEGV $$")
        limited = await client.start(sh("exec sleep 60", timeout_s=2.0))
        await client.stop(deaf.id, grace_s=1.0, wait=False)
        await daemon.kill()
        # The grace, the time limit and both ends come while there is no daemon.
        short.go()
        struck.go()
        for pid in shims_of(folder / "state"):
            await wait_dead(pid)
        began = time.monotonic()
        await daemon.spawn()
        assert await daemon.wait_ready()
        jobs = {job.id: job for job in (await client.list()).jobs}
        took_s = time.monotonic() - began
    endings = [jobs[job.id].ending for job in (deaf, limited, short.job, struck.job)]
    assert [(one.reason, one.exit_code, one.signal) for one in endings if one] == [
        (EndReason.STOPPED, None, signal.SIGKILL),
        (EndReason.TIMED_OUT, None, signal.SIGTERM),
        (EndReason.EXITED, 42, None),
        (EndReason.SIGNALED, None, signal.SIGSEGV),
    ]
    assert endings[0] is not None
    assert endings[0].stopped_by == "alice"
    # From its first instruction; a machine that is busy with other tests is given more.
    # In a guest kernel the imports alone take that long.
    assert took_s < (30 if in_guest() else 5)


async def test_a_second_daemon_is_refused_and_harms_nothing(
    folder: Path, installation: Installation, cgroup_name: str
) -> None:
    async with (
        open_daemon(folder, installation, cgroup_name) as daemon,
        connect(daemon.target(installation, "alice")) as client,
    ):
        job = await client.start(sh("exec sleep 60"))
        second = await asyncio.create_subprocess_exec(
            *(BIN / "jobworker", "serve", "--config", folder / "jobworker.toml"),
            *("--listen", "127.0.0.1:0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, text = await second.communicate()
        assert second.returncode
        assert f"another jobworker uses it (pid {daemon.pid})" in text.decode()
        assert (await client.get(job.id)).state is JobState.RUNNING
        ended = await client.stop(job.id)
        assert ended.ending is not None
        assert ended.ending.reason is EndReason.STOPPED
