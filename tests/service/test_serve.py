"""The command ``jobworker serve`` as a process: signals, systemd, files, words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio
import pytest

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from jobworker.model.ids import UserName
from jobworker.security.tls import channel_credentials
from jobworker.worker import open_worker
from support.service import LOOPBACK, ServicePlace, output, refused, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

READY: Final = re.compile(r"jobworker: listening on 127\.0\.0\.1:(\d+) \((\d+) jobs running\)\n")
STUBBORN: Final = "trap '' TERM; echo ready; while :; do sleep 60 & wait; done"


@dataclass
class Daemon:
    """A running ``jobworker serve``."""

    place: ServicePlace
    process: Process
    port: int
    jobs: int

    @contextlib.asynccontextmanager
    async def client(self, who: str) -> AsyncIterator[JobWorkerStub]:
        files = self.place.installation.client_files(who)
        credentials = channel_credentials(ca=files.ca, certificate=files.certificate, key=files.key)
        async with grpc.aio.secure_channel(f"{LOOPBACK}:{self.port}", credentials) as channel:
            yield JobWorkerStub(channel)  # type: ignore[no-untyped-call]  # generated

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; the exit code, and what it said since it was ready."""
        self.process.send_signal(number)
        _, said = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


@dataclass(frozen=True)
class Bench:
    """Where a test runs daemons, one after the other."""

    place: ServicePlace
    config: Path
    audit: Path

    async def launch(self, *arguments: str, **environment: str) -> Process:
        command = ["-m", "jobworker.host.main", "serve", "--config", str(self.config)]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *arguments,
            stderr=PIPE,
            env={**os.environ, **environment},
        )

    @contextlib.asynccontextmanager
    async def serve(self, *arguments: str, **environment: str) -> AsyncIterator[Daemon]:
        process = await self.launch("--listen", f"{LOOPBACK}:0", *arguments, **environment)
        try:
            assert process.stderr is not None
            line = (await process.stderr.readline()).decode()
            found = READY.fullmatch(line)
            assert found is not None, line + (await process.stderr.read()).decode()
            yield Daemon(self.place, process, int(found[1]), int(found[2]))
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture
def bench(place: ServicePlace, tmp_path: Path) -> Iterator[Bench]:
    audit = tmp_path / "log" / "audit.log"
    audit.parent.mkdir()
    config = tmp_path / "jobworker.toml"
    config.write_text(
        f"""
        [server]
        state_dir = "{place.state_dir}"
        [audit]
        file = "{audit}"
        [worker]
        cgroup_parent = "{place.cgroup_name}"
        [policy.user]
        io_read = "none"
        io_write = "none"
        """
    )
    yield Bench(place, config, audit)
    asyncio.run(_stop_all(place))


async def _stop_all(place: ServicePlace) -> None:
    async with open_worker(place.state_dir, place.config().worker.to_settings()) as worker:
        await worker.stop_all(stopped_by=UserName("the.test"), grace_s=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_job_outlives_its_daemon_and_is_found_again(
    bench: Bench, number: signal.Signals
) -> None:
    async with bench.serve() as daemon, daemon.client("alice") as alice:
        assert daemon.jobs == 0
        job = await start(alice, "echo before; exec sleep 60")
        stream = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
        assert (await anext(aiter(stream))).chunk.data == b"before\n"
        code, said = await daemon.end(number)
        assert code == 0
        assert "service ends jobs=leave" in said
        with refused() as refusal:
            await anext(aiter(stream))
        assert str(refusal.error) == "cannot go on with the stream: the service is shutting down"
    async with bench.serve() as daemon, daemon.client("alice") as alice:
        assert daemon.jobs == 1
        await alice.StopJob(pb.StopJobRequest(job_id=job.id))
        assert await output(alice, job.id) == b"before\n"


async def test_a_daemon_can_take_its_jobs_along(bench: Bench) -> None:
    async with bench.serve("--shutdown", "stop") as daemon, daemon.client("alice") as alice:
        job = await start(alice, "exec sleep 60")
        code, _ = await daemon.end()
        assert code == 0
    async with bench.serve() as daemon, daemon.client("alice") as alice:
        assert daemon.jobs == 0
        ending = (await alice.GetJob(pb.GetJobRequest(job_id=job.id))).job.ending
        assert (ending.reason, ending.stopped_by) == (pb.END_REASON_STOPPED, "jobworker")


async def test_nothing_starts_below_the_free_space_that_the_configuration_asks_for(
    bench: Bench,
) -> None:
    text = bench.config.read_text()
    bench.config.write_text(text.replace("[worker]", '[worker]\nmin_free = "1024P"'))
    async with bench.serve() as daemon, daemon.client("alice") as alice:
        with refused() as refusal:
            await start(alice, "true")
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert "no space for its output" in str(refusal.error)
        assert f"the least is {1 << 60}" in str(refusal.error)


async def test_a_range_of_ids_that_belong_to_accounts_is_warned_of(bench: Bench) -> None:
    account = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    ids = f"[worker]\nuid_first = {account.pw_uid}\nuid_count = 1"
    bench.config.write_text(bench.config.read_text().replace("[worker]", ids))
    process = await bench.launch("--listen", f"{LOOPBACK}:0")
    try:
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        assert "WARNING jobworker.host.serve: ids given to jobs belong to accounts" in said
        assert account.pw_name in said
    finally:
        process.terminate()
        await process.communicate()


async def test_systemd_is_told_and_a_second_signal_ends_at_once(
    bench: Bench, tmp_path: Path
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(address))
        told.setblocking(False)
        loop = asyncio.get_running_loop()
        async with (
            bench.serve(NOTIFY_SOCKET=str(address)) as daemon,
            daemon.client("alice") as alice,
            asyncio.TaskGroup() as tasks,
        ):
            assert (await loop.sock_recv(told, 4096)).startswith(b"READY=1\nSTATUS=")
            job = await start(alice, STUBBORN)
            # Before that it does not yet ignore the signal.
            stream = alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
            assert (await anext(aiter(stream))).chunk.data == b"ready\n"
            stream.cancel()
            # A call that the daemon gives some time to finish.
            tasks.create_task(_stop_in_vain(alice, job.id))
            changes = alice.WatchJobs(pb.WatchJobsRequest())
            async for change in changes:
                if change.job.state == pb.JOB_STATE_STOPPING:
                    break
            daemon.process.send_signal(signal.SIGTERM)
            assert await loop.sock_recv(told, 4096) == b"STOPPING=1"
            code, _ = await daemon.end()
            assert code == 128 + signal.SIGTERM
    async with bench.serve() as daemon:
        assert daemon.jobs == 1


async def _stop_in_vain(client: JobWorkerStub, job_id: str) -> None:
    with refused() as refusal:
        await client.StopJob(pb.StopJobRequest(job_id=job_id))
    assert refusal.code == "UNAVAILABLE"


async def test_sighup_goes_on_in_a_new_audit_file(bench: Bench) -> None:
    old = bench.audit.with_suffix(".1")
    async with bench.serve() as daemon, daemon.client("alice") as alice:
        await alice.WhoAmI(pb.WhoAmIRequest())
        bench.audit.rename(old)
        daemon.process.send_signal(signal.SIGHUP)
        while not bench.audit.exists():
            # Each call writes a line, and the first one after the signal opens the file.
            await alice.WhoAmI(pb.WhoAmIRequest())
        code, _ = await daemon.end()
        assert code == 0
    texts = [await asyncio.to_thread(file.read_text) for file in (old, bench.audit)]
    lines = [json.loads(line) for line in "".join(texts).splitlines()]
    assert len(lines) >= 2
    assert {line["method"] for line in lines} == {"/jobworker.v1.JobWorker/WhoAmI"}
    assert bench.audit.stat().st_mode & 0o777 == 0o600


async def test_failed_handshakes_write_nothing(bench: Bench) -> None:
    async with bench.serve() as daemon:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(LOOPBACK, daemon.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()
        _, said = await daemon.end()
    assert len(said.splitlines()) == 1, said


async def test_what_keeps_it_from_serving_is_said_in_one_line(bench: Bench) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        told = f"cannot listen on {address}: Address already in use (EADDRINUSE)"
        assert await _failure(bench, "--listen", address) == f"jobworker: {told}\n"
    said = await _failure(bench, "--listen", "192.0.2.1:0")
    assert said.startswith("jobworker: cannot listen on 192.0.2.1:0: Cannot assign requested")
    said = await _failure(bench, "--listen", "nowhere")
    assert said.startswith("jobworker: cannot use address 'nowhere'")
    async with bench.serve():
        said = await _failure(bench, "--listen", f"{LOOPBACK}:0")
        assert said.startswith("jobworker: cannot "), said
        assert said.count("\n") == 1, said


async def _failure(bench: Bench, *arguments: str) -> str:
    process = await bench.launch(*arguments)
    _, said = await process.communicate()
    assert process.returncode == 1
    return said.decode()
