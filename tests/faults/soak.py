"""Kill the daemon and its launcher again and again under load, and keep the accounts.

One real daemon, a client over mutual TLS, jobs whose every byte and whose ending is known
beforehand, and a live follower for each of them.  The tally at the end has one good value: zero.

Everything that is drawn comes from one seeded generator, so that a run can be asked for again; the
moments at which things happen are the machine's, and differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from jobworker.client import Client, Patience, connect
from jobworker.errors import StartFailedError, UnavailableError
from jobworker.model import (
    Chunk,
    EndReason,
    Job,
    JobFilter,
    JobId,
    JobState,
    RequestId,
    Stream,
)
from support.certificates import make_installation
from support.faults import (
    Daemon,
    Writing,
    is_writing,
    job_cgroups,
    kill,
    launcher_of,
    open_daemon,
    shims_of,
    wait_dead,
    witness_directory,
    witnessed,
)

T = TypeVar("T")

USER: Final = "admin"
#: Jobs that live at the same time: enough that each kill hits some in every phase of their life.
_AT_ONCE: Final = 24
_PATIENCE: Final = Patience(connect_s=60.0, call_s=30.0, resume_s=3600.0)
#: From READY to the kill, and from the daemon's first instruction to it; drawn evenly below these.
_AFTER_READY_S: Final = 0.8
_AFTER_SPAWN_S: Final = 0.9


@dataclass
class Tally:
    """What came of it."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    refused: int = 0
    """Starts that failed and said so: their launcher was killed under them."""
    followed: int = 0
    bytes: int = 0
    stops: int = 0
    ready_s: list[float] = field(default_factory=list)
    """From the start of each daemon that came so far to its being ready, recovery included."""
    lost_bytes: int = 0
    lost_endings: int = 0
    duplicates: int = 0
    unknown: int = 0
    """Processes that ran for a start that was said to have failed, or for no start at all."""
    left_processes: int = 0
    left_cgroups: int = 0
    faults: list[str] = field(default_factory=list)
    """What is behind the numbers that are not zero."""

    @property
    def is_clean(self) -> bool:
        return not (
            self.lost_bytes
            or self.lost_endings
            or self.duplicates
            or self.unknown
            or self.left_processes
            or self.left_cgroups
            or self.faults
        )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One job of the play."""

    writing: Writing
    stop_after_s: float | None
    grace_s: float


async def run_soak(
    folder: Path,
    *,
    kills: int,
    seed: int,
    cgroup_name: str,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """folder: one that every user can pass through; is left with what the run wrote."""
    installation = await asyncio.to_thread(make_installation, folder / "pki")
    with witness_directory(folder) as witnesses:
        async with open_daemon(folder, installation, cgroup_name) as daemon:
            async with connect(daemon.target(installation, USER), patience=_PATIENCE) as client:
                soak = _Soak(daemon, client, witnesses, Tally(seed=seed), progress)
                await soak.play(kills)
                await soak.count_jobs()
            # Else it has a place ready for a next job.
            await daemon.terminate()
            await soak.count_leftovers(folder / "state", cgroup_name)
            return soak.tally


class _Soak:
    def __init__(
        self,
        daemon: Daemon,
        client: Client,
        witnesses: Path,
        tally: Tally,
        progress: Callable[[Tally], None],
    ) -> None:
        self._daemon = daemon
        self._client = client
        self._witnesses = witnesses
        self.tally = tally
        self._progress = progress
        self._random = random.Random(tally.seed)
        self._parts: dict[str, _Part] = {}
        self._failed: set[str] = set()
        self._spawned_at: float | None = None
        """When the daemon was started that was not ready yet."""

    async def play(self, kills: int) -> None:
        """All kills, beside a flow of jobs; returns when every job has ended."""
        async with asyncio.TaskGroup() as tasks:
            places = asyncio.Semaphore(_AT_ONCE)
            killing = tasks.create_task(self._kill(kills))
            while not killing.done():
                await places.acquire()
                part = self._draw_part(len(self._parts))
                self._parts[part.writing.name] = part
                live = tasks.create_task(self._live(part))
                live.add_done_callback(lambda _: places.release())

    # -- the killing -------------------------------------------------------------------------------

    async def _kill(self, kills: int) -> None:
        for _ in range(kills):
            victim = self._random.choice(("daemon", "daemon", "launcher", "both"))
            if self._random.random() < 0.25 and victim != "launcher":
                # While it starts: it recovers the jobs, or has not come as far.
                await self._pause(_AFTER_SPAWN_S)
            else:
                assert await self._daemon.wait_ready(), "the daemon ended by itself"
                if self._spawned_at is not None:
                    self.tally.ready_s.append(time.monotonic() - self._spawned_at)
                    self._spawned_at = None
                await self._pause(_AFTER_READY_S)
            await self._strike(victim)
            self.tally.kills[victim] += 1
            self._progress(self.tally)
        assert await self._daemon.wait_ready(), "the daemon ended by itself"

    async def _strike(self, victim: str) -> None:
        launcher = launcher_of(self._daemon.pid)
        if victim != "daemon" and launcher is not None:
            kill(launcher)
        if victim != "launcher":
            await self._daemon.kill()
            await self._daemon.spawn()
            self._spawned_at = time.monotonic()

    async def _pause(self, most_s: float) -> None:
        await asyncio.sleep(self._random.uniform(0, most_s))  # noqa: TID251 - a moment is drawn

    # -- the jobs ----------------------------------------------------------------------------------

    def _draw_part(self, number: int) -> _Part:
        draw = self._random
        name = f"w{number:05d}"
        end = draw.choice((0, 0, 1, 7, 255, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGSEGV))
        kind = draw.choice(("short", "short", "bulk", "long", "long", "stopped"))
        match kind:
            case "short":
                writing = Writing(name=name, lines=draw.randrange(20), end=end)
            case "bulk":
                writing = Writing(name=name, lines=draw.randrange(3000), width=2000, end=end)
            case _:
                period_s = draw.uniform(0.005, 0.05)
                writing = Writing(
                    name=name, lines=draw.randrange(100, 200), period_s=period_s, end=end
                )
        stop_after_s = draw.uniform(0, 3) if kind == "stopped" else None
        return _Part(writing=writing, stop_after_s=stop_after_s, grace_s=draw.choice((0.0, 5.0)))

    async def _live(self, part: _Part) -> None:
        """One job from its start to the end of its output, as one client sees it."""
        writing = part.writing
        job = await self._start(writing)
        if job is None:
            self._failed.add(writing.name)
            self.tally.refused += 1
            return
        self.tally.jobs += 1
        async with asyncio.TaskGroup() as tasks:
            if part.stop_after_s is not None:
                tasks.create_task(self._stop_later(part, job.id))
            following = tasks.create_task(self._follow(job.id))
        streams = following.result()
        self.tally.followed += 1
        ended = await _insist(lambda: self._client.wait(job.id))
        self._check(part, ended, streams, "live")

    async def _start(self, writing: Writing) -> Job | None:
        """None if the answer is a failure."""
        spec, request_id = writing.spec(self._witnesses), RequestId(writing.name)
        try:
            return await _insist(lambda: self._client.start(spec, request_id=request_id))
        except StartFailedError:
            return None

    async def _stop_later(self, part: _Part, job_id: JobId) -> None:
        assert part.stop_after_s is not None
        await asyncio.sleep(part.stop_after_s)  # noqa: TID251 - a moment is drawn
        self.tally.stops += 1
        await _insist(lambda: self._client.stop(job_id, grace_s=part.grace_s, wait=False))

    async def _follow(self, job_id: JobId, *, follow: bool = True) -> tuple[bytes, bytes]:
        streams = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        events = self._client.follow(job_id, follow=follow)
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    streams[event.stream] += event.data
        return bytes(streams[Stream.STDOUT]), bytes(streams[Stream.STDERR])

    # -- the accounts ------------------------------------------------------------------------------

    def _check(self, part: _Part, job: Job, streams: tuple[bytes, bytes], how: str) -> None:
        """Is this all that the job wrote, and is this how it ended?"""
        writing = part.writing
        expected = writing.expected(self._lines_of(part, job))
        if job.ending is not None and job.ending.reason is EndReason.STOPPED:
            # Killed without a word, it was at some line; what came must be how it begins.
            is_forced = job.ending.signal == signal.SIGKILL
            if is_forced and all(map(bytes.startswith, writing.expected(), streams)):
                expected = streams
        for got, wanted in zip(streams, expected, strict=True):
            if got != wanted:
                self.tally.lost_bytes += max(1, abs(len(wanted) - len(got)))
                why = f"{len(got)} of {len(wanted)} bytes"
                self.tally.faults.append(f"{writing.name} ({job.id}) {how}: {why}")
        if not self._is_right_end(part, job):
            self.tally.lost_endings += 1
            self.tally.faults.append(f"{writing.name} ({job.id}): {job.ending}")

    def _lines_of(self, part: _Part, job: Job) -> int | None:
        """How many lines a job wrote that was told to end: it says so itself."""
        if job.ending is None or job.ending.reason is not EndReason.STOPPED:
            return None
        for file in self._witnesses.glob(f"{part.writing.name}.*"):
            text = file.read_text()
            return int(text) if text else None
        return 0

    def _is_right_end(self, part: _Part, job: Job) -> bool:
        ending = job.ending
        if ending is None:
            return False
        if part.stop_after_s is not None and ending.reason is EndReason.STOPPED:
            return ending.stopped_by == USER
        end = part.writing.end
        if end < 0:
            return (ending.reason, ending.signal) == (EndReason.SIGNALED, -end)
        return (ending.reason, ending.exit_code) == (EndReason.EXITED, end)

    async def count_jobs(self) -> None:
        """Read every job once more from its first byte, and compare lists and witnesses."""
        runs = witnessed(self._witnesses)
        listed: Counter[str] = Counter()
        async for job in self._all_jobs():
            name = job.spec.labels["writing"]
            listed[name] += 1
            if name in self._failed:
                continue
            streams = await self._follow(job.id, follow=False)
            self.tally.bytes += sum(map(len, streams))
            self._check(self._parts[name], job, streams, "read again")
        for name in self._parts:
            extra = max(listed[name] - 1, len(runs.get(name, ())) - 1)
            if extra > 0:
                self.tally.duplicates += extra
                self.tally.faults.append(f"{name}: {listed[name]} jobs, processes {runs.get(name)}")
            if name not in self._failed and not listed[name]:
                self.tally.faults.append(f"{name}: was started, is not listed")
        for name in runs.keys() & self._failed:
            self.tally.unknown += 1
            self.tally.faults.append(f"{name}: ran, and its start was said to have failed")

    async def _all_jobs(self) -> AsyncIterator[Job]:
        token = ""
        while True:
            page = await self._client.list(
                JobFilter(states=frozenset(JobState)), page_size=1000, page_token=token
            )
            for job in page.jobs:
                yield job
            token = page.next_page_token
            if not token:
                return

    async def count_leftovers(self, state_dir: Path, cgroup_name: str) -> None:
        """What is there after the last job has ended and every shim had the time to leave."""
        for pid in shims_of(state_dir):
            async with asyncio.timeout(10):
                await wait_dead(pid)
        living = [pid for pids in witnessed(self._witnesses).values() for pid in pids]
        left = [pid for pid in living if is_writing(pid, self._witnesses)]
        cgroups = job_cgroups(cgroup_name)
        self.tally.left_processes += len(left)
        self.tally.left_cgroups += len(cgroups)
        self.tally.faults += [f"process {pid} is left" for pid in left]
        self.tally.faults += [f"cgroup {path} is left" for path in cgroups]


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """The same request until there is an answer: the daemon is away more often than not."""
    while True:
        with contextlib.suppress(UnavailableError):
            return await call()


def describe(tally: Tally) -> str:
    """The table for people."""
    rows: list[tuple[str, object]] = [
        ("seed", tally.seed),
        ("kills", sum(tally.kills.values())),
        *(("… of " + victim, count) for victim, count in sorted(tally.kills.items())),
        ("jobs", tally.jobs),
        ("starts refused cleanly", tally.refused),
        ("stops asked for", tally.stops),
        ("live followers", tally.followed),
        ("bytes", tally.bytes),
        ("daemon ready after, median s", _median(tally.ready_s)),
        ("lost or repeated bytes", tally.lost_bytes),
        ("lost endings", tally.lost_endings),
        ("duplicates", tally.duplicates),
        ("processes of no job", tally.unknown),
        ("left processes", tally.left_processes),
        ("left cgroups", tally.left_cgroups),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return "\n".join([f"| | |\n|---|---|\n{table}", *tally.faults])


def _median(values: list[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f}" if values else "-"
