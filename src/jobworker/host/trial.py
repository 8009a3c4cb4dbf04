"""What ``jobworker doctor`` tries things with: small real jobs of the worker library, and findings.

Owns: running one job for a trial, and how what came of it is called.  Not the trials themselves
(limit_trials.py, isolation_trials.py).
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobworker.errors import JobWorkerError
from jobworker.model.ending import Ending
from jobworker.model.ids import UserName
from jobworker.model.job import Job
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.output import Chunk, Stream
from jobworker.model.spec import JobSpec
from jobworker.worker import Worker

OWNER: Final = UserName("doctor")
#: A trial that takes longer than this is broken off: the host is too busy to tell anything.
PATIENCE_S: Final = 8.0
#: Much more than any trial says.
_OUTPUT_BYTES_MAX: Final = 64 * 1024
#: What a shell says where a command is not there (POSIX, "Exit Status for Commands").
_NOT_FOUND: Final = 127


class Outcome(enum.Enum):
    """What came of trying."""

    HOLDS = "holds"
    PARTLY = "partly"
    DOES_NOT_HOLD = "does not hold"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried."""

    name: str
    """A ``Resource`` value, or the name of a promise about isolation."""
    outcome: Outcome
    measured: str = ""
    """What was seen, for people."""
    reason: str = ""
    """Why it is not simply kept; "" exactly where it is."""

    @property
    def is_kept(self) -> bool:
        """Would the worker, told to be strict, start a job that asks for it?"""
        return self.outcome in {Outcome.HOLDS, Outcome.PARTLY}


class NotTriedError(Exception):
    """The trial could not be carried out: it says nothing about the host's limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job of a trial that has ended."""

    job: Job
    ending: Ending
    wall_s: float
    """From the moment the command was executed until nothing of it was left."""
    stdout: str
    stderr: str

    def require_success(self) -> None:
        """Raises NotTriedError, with what the command said, unless it exited with 0."""
        if self.ending.exit_code != 0:
            said = self.stderr.strip().splitlines()
            why = said[-1] if said else self.ending.message
            raise NotTriedError(f"the command of the trial failed: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A worker to try things with."""

    worker: Worker
    state_dir: Path

    async def start(
        self, script: str, *arguments: str, limits: Limits | None = None, timeout_s: float
    ) -> Job:
        """Start a shell script; ``arguments`` are its $1, $2, …  Raises NotTriedError."""
        try:
            spec = JobSpec(
                argv=("/bin/sh", "-c", script, "sh", *arguments),
                limits=limits or Limits(),
                timeout_s=timeout_s,
                max_output_bytes=_OUTPUT_BYTES_MAX,
            )
            return await self.worker.start(spec, owner=OWNER)
        except JobWorkerError as error:
            raise NotTriedError(str(error)) from error

    async def finish(self, job: Job) -> Ended:
        """Wait for a job, with its output.  Raises NotTriedError if a command of it is missing."""
        texts = dict.fromkeys(Stream, b"")
        async with contextlib.aclosing(self.worker.follow(job.id)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    texts[event.stream] += event.data
        job = await self.worker.wait(job.id)
        if job.ending is None or job.started_at is None or job.ended_at is None:
            raise NotTriedError("the record of its start is lost")
        ended = Ended(
            job=job,
            ending=job.ending,
            wall_s=(job.ended_at - job.started_at).total_seconds(),
            stdout=texts[Stream.STDOUT].decode(errors="replace"),
            stderr=texts[Stream.STDERR].decode(errors="replace"),
        )
        if job.ending.exit_code == _NOT_FOUND:
            raise NotTriedError(f"a command is missing: {ended.stderr.strip()}")
        return ended

    async def run(
        self,
        script: str,
        *arguments: str,
        limits: Limits | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> Ended:
        """Start a shell script and wait for its end.  Raises NotTriedError."""
        job = await self.start(script, *arguments, limits=limits, timeout_s=timeout_s)
        return await self.finish(job)


def judge(
    name: str, effective: Iterable[EffectiveLimit], *, is_held: bool, measured: str, hole: str = ""
) -> Finding:
    """What the job's status says of a limit, together with what was measured.

    hole: what was seen to pass by the limit; the status should have said so in its note.
    """
    records = [limit for limit in effective if limit.resource.value == name]
    notes = "; ".join(dict.fromkeys(limit.note for limit in records if limit.note))
    if not any(limit.is_enforced for limit in records):
        outcome, reason = Outcome.DOES_NOT_HOLD, notes
    elif not is_held:
        outcome = Outcome.DOES_NOT_HOLD
        passed = "the kernel took the limit, and the job was not held to it"
        reason = "; ".join(filter(None, (passed, notes)))
    elif notes or hole:
        outcome, reason = Outcome.PARTLY, notes or hole
    else:
        outcome, reason = Outcome.HOLDS, ""
    return Finding(name=name, outcome=outcome, measured=measured, reason=reason)


async def found(name: str, trial: Awaitable[Finding]) -> Finding:
    """The finding of a trial, also of one that could not be carried out."""
    try:
        return await trial
    except NotTriedError as error:
        return Finding(name=name, outcome=Outcome.NOT_TRIED, reason=str(error))
