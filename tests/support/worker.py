"""Workers for tests: a state directory that jobs can pass through, and no job left at the end.

Owns: how a test opens a worker, says a command, and gathers a job's output.  Open the worker in the
test's body (``async with``): tasks of an asynchronous fixture would not be those of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobworker.model import (
    Chunk,
    Ending,
    EndOfOutput,
    EndReason,
    Heartbeat,
    Job,
    JobId,
    JobSpec,
    JobState,
    Stream,
    UserName,
)
from jobworker.shim import records
from jobworker.worker import Worker, WorkerSettings, open_worker

ALICE: Final = UserName("alice")
BOB: Final = UserName("bob")
#: Who changes the limits of others' jobs.
ROOT: Final = UserName("root")

#: The host's own interpreter: that of a virtual environment may be closed to the jobs' users.
PYTHON: Final = "/usr/bin/python3"


@contextlib.contextmanager
def state_directory() -> Iterator[Path]:
    """A directory for a worker's state.

    Not below pytest's own temporary directory, which is closed to the users that jobs run as.
    """
    path = Path(tempfile.mkdtemp(prefix="jobworker-test-", dir="/var/tmp"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """Where one test has its workers: one after the other on the same state directory."""

    state_dir: Path
    settings: WorkerSettings

    @contextlib.asynccontextmanager
    async def open(self, *, stop_jobs: bool = True, **changes: Any) -> AsyncIterator[Worker]:
        """A worker; its jobs are stopped when the block ends, unless they are to outlive it.

        changes: to the settings.
        """
        settings = dataclasses.replace(self.settings, **changes)
        async with open_worker(self.state_dir, settings) as worker:
            try:
                yield worker
            finally:
                if stop_jobs:
                    await worker.stop_all(stopped_by=UserName("the.test"), grace_s=0)

    def job_directories(self) -> set[str]:
        """Ids of all that are there, whatever the journal knows."""
        return {path.name for path in (self.state_dir / "jobs").iterdir()} - {"places"}

    def job_directory(self, job_id: JobId) -> Path:
        return self.state_dir / "jobs" / job_id

    def shim_pid(self, job_id: JobId) -> int:
        record = json.loads((self.job_directory(job_id) / records.SHIM).read_bytes())
        pid: int = record["pid"]
        return pid


def sh(script: str, *arguments: str, **spec: Any) -> JobSpec:
    """A shell script as a job; ``arguments`` are its $1, $2, …"""
    return JobSpec(argv=("/bin/sh", "-c", script, "sh", *arguments), **spec)


def python(program: str, *arguments: str, **spec: Any) -> JobSpec:
    """A Python program as a job."""
    return JobSpec(argv=(PYTHON, "-I", "-S", "-c", program, *arguments), **spec)


@dataclass(kw_only=True)
class Collected:
    """Everything that a follower was given."""

    chunks: list[Chunk] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    end: EndOfOutput | None = None

    @property
    def whole(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def stdout(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream is Stream.STDOUT)

    @property
    def stderr(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream is Stream.STDERR)

    @property
    def ending(self) -> Ending:
        assert self.end is not None
        assert self.end.ending is not None
        return self.end.ending


async def collect(worker: Worker, job_id: JobId, **view: Any) -> Collected:
    """Follow a job to its end message; the arguments are those of ``Worker.follow``."""
    found = Collected()
    async with contextlib.aclosing(worker.follow(job_id, **view)) as events:
        async for event in events:
            assert found.end is None, "something came after the end"
            match event:
                case Chunk():
                    found.chunks.append(event)
                case Heartbeat():
                    found.heartbeats.append(event)
                case EndOfOutput():
                    found.end = event
    assert found.end is not None, "the stream broke"
    return found


async def read_until(
    worker: Worker, job_id: JobId, is_enough: Callable[[bytes], object], **view: Any
) -> bytes:
    """Follow a job until its output so far is enough."""
    data = b""
    async with contextlib.aclosing(worker.follow(job_id, **view)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                data += event.data
            if is_enough(data):
                return data
    raise AssertionError(f"it ended with {data!r}")


async def run(worker: Worker, spec: JobSpec, **options: Any) -> tuple[Job, Collected]:
    """Start a job, follow it, and return it as it ended."""
    options.setdefault("owner", ALICE)
    job = await worker.start(spec, **options)
    output = await collect(worker, job.id)
    return await worker.wait(job.id), output


async def output_of(worker: Worker, spec: JobSpec, **options: Any) -> str:
    """What a job that must exit with 0 writes to stdout."""
    job, output = await run(worker, spec, **options)
    assert job.ending is not None
    assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 0), output
    return output.stdout.decode()


async def starting_job(worker: Worker) -> JobId:
    """As soon as there is one; its id is told to nobody yet."""
    while True:
        for live in worker._registry.live.values():
            if live.job.state is JobState.STARTING:
                return live.job.id
        await asyncio.sleep(0)  # noqa: TID251 - nothing announces it
