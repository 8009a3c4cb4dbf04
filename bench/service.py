"""The service under measurement: its own installation, its own port, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import (
    Helper,
    children,
    name_of,
    open_helper,
    python_helper,
    run,
)
from jobworker.client import Client, Target, connect
from jobworker.model.ids import JobId
from jobworker.model.job import Job, JobFilter
from jobworker.model.spec import JobSpec
from jobworker.model.state import JobState

BIN: Final = Path(sys.executable).parent
#: Standard user with the default limits, and an admin without any.
USER: Final = "alice"
ADMIN: Final = "admin"
_READY_S: Final = 60.0
#: Of one write by a job that writes as fast as it can: what a pipe holds.
_BLOCK: Final = 64 * 1024
#: What the measurements need beyond the defaults; none of it makes anything faster.
_CHANGES: Final = {
    "max_streams = 1000": "max_streams = 4000",
    "max_streams_per_user = 200": "max_streams_per_user = 4000",
    "max_running_jobs = 50": 'max_running_jobs = "none"',
    "max_jobs = 10000": 'max_jobs = "none"',
    'max_age = "30d"': 'max_age = "none"',
    'max_bytes = "50G"': 'max_bytes = "none"',
    'max_kept = "10G"': 'max_kept = "none"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A daemon that serves."""

    directory: Path
    address: str
    pid: int

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def launcher(self) -> int:
        [pid] = [pid for pid in children(self.pid) if name_of(pid).startswith("jobworker-l")]
        return pid

    def shims(self) -> list[int]:
        """Those of jobs, and one or two that wait for the next order."""
        return [pid for pid in children(self.launcher) if name_of(pid) == "jobworker-shim"]

    def pki(self, name: str) -> Path:
        return self.directory / "pki" / name

    def target(self, user: str) -> Target:
        cert, key = self.pki(f"{user}.pem"), self.pki(f"{user}.key")
        return Target(server=self.address, ca=self.pki("ca.pem"), cert=cert, key=key)

    @contextlib.asynccontextmanager
    async def client(self, user: str = ADMIN) -> AsyncIterator[Client]:
        async with connect(self.target(user)) as client:
            yield client

    @contextlib.asynccontextmanager
    async def clients(
        self, user: str = ADMIN, *, connections: int = 0, server: str = ""
    ) -> AsyncIterator[Helper]:
        """A process with clients; with connections: bare ones, without the SDK."""
        async with open_helper(*python_helper("clients")) as helper:
            target = self.target(user)
            await helper.ask(
                do="connect",
                server=server or target.server,
                ca=str(target.ca),
                cert=str(target.cert),
                key=str(target.key),
                connections=connections,
            )
            yield helper

    def jobctl(self, user: str, *arguments: str) -> list[str]:
        """A whole command line."""
        target = self.target(user)
        options = [f"--ca={target.ca}", f"--cert={target.cert}", f"--key={target.key}"]
        return [f"{BIN}/jobctl", f"--server={target.server}", *options, *arguments]


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Service]:
    """The service with its state below a directory, which is kept; its jobs are ended."""
    await asyncio.to_thread(make_installation, directory)
    process = await asyncio.create_subprocess_exec(
        BIN / "jobworker",
        "serve",
        f"--config={directory / 'jobworker.toml'}",
        "--listen=127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        address = await _read_address(process)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(_drain(process))
            service = Service(directory=directory, address=address, pid=process.pid)
            try:
                yield service
            finally:
                await stop_jobs(service)
                process.terminate()
                await process.wait()
                draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
            await process.wait()


def make_installation(directory: Path) -> None:
    """Unless it is there already."""
    if directory.exists():
        return
    run([BIN / "jobworker", "init", f"--dir={directory}"])
    config = directory / "jobworker.toml"
    text = config.read_text()
    for old, new in _CHANGES.items():
        if old not in text:
            raise SystemExit(f"bench: cannot configure the service: {old!r} is not in its file")
        text = text.replace(old, new)
    config.write_text(text)


async def _read_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = []
    async with asyncio.timeout(_READY_S):
        while line := (await process.stderr.readline()).decode():
            said.append(line)
            if found := re.search(r"listening on (\S+)", line):
                return found[1]
    raise SystemExit(f"bench: cannot start the service: {''.join(said)}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass


async def stop_jobs(service: Service) -> None:
    """End what is still running; a job outlives the service otherwise."""
    async with service.client() as client:
        live = frozenset(JobState) - {JobState.ENDED}
        while True:
            page = await client.list(JobFilter(states=live), page_size=1000)
            if not page.jobs:
                return
            for job in page.jobs:
                await client.stop(job.id, grace_s=0, wait=False)
            await client.wait(page.jobs[-1].id)


async def run_job(client: Client, *argv: str) -> Job:
    """A job from its start to its end."""
    job = await client.start(JobSpec(argv=argv))
    return await client.wait(job.id)


def writer(size: int) -> tuple[str, ...]:
    """A command that writes so many bytes as fast as it can, and says how long it took."""
    return ("dd", "if=/dev/zero", f"bs={_BLOCK}", f"count={size // _BLOCK}")


def seconds_of_writer(said: bytes) -> float:
    """From what the writer said on its standard error."""
    found = re.search(rb"copied, ([0-9.e-]+) s", said)
    if found is None:
        raise SystemExit(f"bench: cannot read what dd says: {said!r}")
    return float(found[1])


async def write_output(client: Client, size: int) -> JobId:
    """An ended job that has written so many bytes to its standard output."""
    job = await run_job(client, *writer(size))
    if job.output.stdout_bytes != size:
        raise SystemExit(f"bench: cannot go on: {size} bytes were written, {job.output} kept")
    return job.id


def write_file(size: int, file: Path) -> float:
    """Seconds that the same command takes to write into a plain file."""
    with file.open("wb") as out:
        done = subprocess.run(writer(size), stdout=out, stderr=subprocess.PIPE, check=True)
    file.unlink()
    return seconds_of_writer(done.stderr)
