"""Every byte of a job's output, to every follower, from whatever moment on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from typing import Any

import pytest

from jobworker.errors import DataLossError, InvalidArgumentError, JobNotFoundError
from jobworker.model import Chunk, EndOfOutput, EndReason, JobId, JobState, Stream
from jobworker.worker import Worker
from support.guards import too_much_for_a_guest
from support.worker import ALICE, WorkerPlace, collect, python, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

#: Numbered lines on both streams, in spurts that are longer than a record's millisecond; waits for
#: a byte on a fifo before the second half.
_TWO_HALVES = """
import os, sys, time
def half(first):
    for number in range(first, first + 3000):
        os.write(1 + number % 3 // 2, b"%06d %s\\n" % (number, b"x" * (number % 80)))
        if number % 500 == 0:
            time.sleep(0.002)
os.mkfifo("gate", 0o600)
half(0)
os.write(1, b"HALF\\n")
open("gate", "rb").read(1)
half(3000)
"""


def _open_gate(place: WorkerPlace, job_id: JobId) -> None:
    (place.state_dir / "scratch" / job_id / "gate").write_bytes(b"1")


async def _digests(worker: Worker, job_id: JobId, count: int, into: list[str]) -> None:
    async def follow_one() -> None:
        output = await collect(worker, job_id)
        into.append(hashlib.sha256(output.whole).hexdigest())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(follow_one())


@pytest.mark.parametrize(
    "followers",
    [3, pytest.param(100, marks=too_much_for_a_guest("300 followers of 6000 pieces each"))],
)
async def test_followers_of_every_moment_get_the_same_bytes(
    place: WorkerPlace, followers: int
) -> None:
    async with place.open() as worker:
        job = await worker.start(python(_TWO_HALVES), owner=ALICE)
        early: list[str] = []
        midway: list[str] = []
        late: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_digests(worker, job.id, followers, early))
            await read_until(worker, job.id, lambda data: b"HALF\n" in data)
            tasks.create_task(_digests(worker, job.id, followers, midway))
            await asyncio.to_thread(_open_gate, place, job.id)
        await _digests(worker, job.id, followers, late)
        whole = await collect(worker, job.id)
    numbers = sorted(int(line[:6]) for line in whole.whole.splitlines() if line != b"HALF")
    assert numbers == list(range(6000))
    assert [int(line[:6]) % 3 for line in whole.stderr.splitlines()] == [2] * 2000
    assert {*early, *midway, *late} == {hashlib.sha256(whole.whole).hexdigest()}
    assert (len(early), len(midway), len(late)) == (followers, followers, followers)


@pytest.mark.parametrize(
    ("script", "stdout", "stderr"),
    [
        pytest.param("echo out; echo err >&2", b"out\n", b"err\n", id="streams told apart"),
        pytest.param("printf 'no newline'", b"no newline", b"", id="no newline at the end"),
        pytest.param("true", b"", b"", id="nothing"),
        pytest.param(
            r"printf '\0\377\0\303(\n'", b"\0\xff\0\xc3(\n", b"", id="NUL and invalid UTF-8"
        ),
        pytest.param("echo a > /dev/stderr; echo b > /dev/stdout", b"b\n", b"a\n", id="by path"),
        pytest.param("echo a >> /dev/stderr; echo b >> /dev/stderr", b"", b"a\nb\n", id="appended"),
        pytest.param("exec 1>&-; echo still >&2", b"", b"still\n", id="stdout closed"),
        pytest.param("exec 1>&- 2>&-; sleep 0.1", b"", b"", id="both closed"),
        pytest.param("cat", b"", b"", id="stdin is empty"),
    ],
)
async def test_bytes_come_as_they_were_written(
    place: WorkerPlace, script: str, stdout: bytes, stderr: bytes
) -> None:
    async with place.open() as worker:
        job, output = await run(worker, sh(script))
    assert (output.stdout, output.stderr) == (stdout, stderr)
    assert output.end is not None
    assert output.end.totals.stdout_bytes == len(stdout)
    assert output.end.totals.stderr_bytes == len(stderr)
    assert job.output == output.end.totals
    assert output.ending == job.ending
    assert output.ending.reason is EndReason.EXITED


async def test_long_lines_and_much_output_are_whole(place: WorkerPlace) -> None:
    program = """
import hashlib, os, random
source = random.Random(7)
digest = hashlib.sha256()
def write(data):
    digest.update(data)
    while data:
        data = data[os.write(1, data):]
for _ in range(3):
    write(b"y" * (1 << 20) + b"\\n")
for _ in range(64):
    write(source.randbytes(1 << 20))
os.write(2, digest.hexdigest().encode())
"""
    async with place.open() as worker:
        job = await worker.start(python(program), owner=ALICE)
        live = await collect(worker, job.id)
        replayed = await collect(worker, job.id)
    for output in (live, replayed):
        assert len(output.stdout) == 3 * ((1 << 20) + 1) + (64 << 20)
        assert hashlib.sha256(output.stdout).hexdigest() == output.stderr.decode()
        assert max(len(chunk.data) for chunk in output.chunks) <= 256 * 1024


async def test_offsets_are_contiguous_and_a_broken_stream_is_resumed(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, whole = await run(worker, sh("for i in $(seq 300); do echo $i; echo e$i >&2; done"))
        at = 0
        for chunk in whole.chunks:
            assert chunk.offset == at
            at = chunk.end
        assert at == len(whole.whole) == job.output.kept_bytes
        for offset in (0, 1, at // 2, at - 1, at):
            rest = await collect(worker, job.id, offset=offset)
            assert rest.whole == whole.whole[offset:]
            assert rest.end == whole.end
        for stream, expected in ((Stream.STDOUT, whole.stdout), (Stream.STDERR, whole.stderr)):
            only = await collect(worker, job.id, stream=stream)
            assert only.whole == expected
            assert {chunk.stream for chunk in only.chunks} == {stream}
        for offset in (at + 1, 1 << 62):
            with pytest.raises(InvalidArgumentError, match="cannot use offset"):
                await collect(worker, job.id, offset=offset)
        for wrong in ({"offset": -1}, {"tail_lines": -1}):
            with pytest.raises(InvalidArgumentError):
                await collect(worker, job.id, **wrong)
        with pytest.raises(JobNotFoundError):
            await collect(worker, JobId("0" * 20))


async def test_tail_begins_at_the_last_lines(place: WorkerPlace) -> None:
    async with place.open() as worker:
        script = "for i in $(seq 100); do echo o$i; echo e$i >&2; done; printf unfinished"
        job, whole = await run(worker, sh(script))
        lines = whole.whole.splitlines(keepends=True)
        for count in (0, 1, 2, 7, 150, 1000):
            tail = await collect(worker, job.id, tail_lines=count)
            assert tail.whole == b"".join(lines[len(lines) - min(count, len(lines)) :]), count
        errors = await collect(worker, job.id, tail_lines=3, stream=Stream.STDERR)
        assert errors.whole == b"e98\ne99\ne100\n"


async def test_tail_of_a_running_job_goes_on_with_what_comes(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("echo a; echo b; mkfifo gate; cat gate; echo c"), owner=ALICE)
        await read_until(worker, job.id, lambda data: data == b"a\nb\n")
        async with contextlib.aclosing(worker.follow(job.id, tail_lines=1)) as events:
            tail = [await anext(events)]
            await asyncio.to_thread(_gate_there, place, job.id)
            await asyncio.to_thread(_open_gate, place, job.id)
            tail += [event async for event in events]
    data = [event.data for event in tail if isinstance(event, Chunk)]
    assert data[0] == b"b\n"
    assert b"".join(data) == b"b\n1c\n"


def _gate_there(place: WorkerPlace, job_id: JobId) -> None:
    gate = place.state_dir / "scratch" / job_id / "gate"
    deadline = time.monotonic() + 10
    while not gate.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # noqa: TID251 - nothing tells that a job has made a fifo


async def test_since_begins_with_what_was_written_then(place: WorkerPlace) -> None:
    async with place.open() as worker:
        # Each line once the one before has arrived, and in another millisecond.
        script = "mkfifo gate; for i in 1 2 3 4 5; do echo $i; read _ <gate; sleep 0.02; done"
        job = await worker.start(sh(script), owner=ALICE)
        async with contextlib.aclosing(worker.follow(job.id)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    await asyncio.to_thread(_open_gate, place, job.id)
        whole = await collect(worker, job.id)
        exact = await collect(worker, job.id, exact_times=True)
        assert [chunk.data for chunk in exact.chunks] == [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]
        times = [chunk.time_us for chunk in exact.chunks]
        assert times == sorted(times)
        assert abs(times[0] / 1e6 - job.created_at.timestamp()) < 5
        for number, chunk in enumerate(exact.chunks):
            since = await collect(worker, job.id, since_us=chunk.time_us)
            assert since.whole == b"".join(whole.whole.splitlines(keepends=True)[number:])
        assert (await collect(worker, job.id, since_us=times[-1] + 1)).whole == b""
        assert (await collect(worker, job.id, since_us=0)).whole == whole.whole
        assert len(whole.chunks) <= 5


async def test_without_follow_it_ends_with_what_is_there(place: WorkerPlace) -> None:
    async with place.open() as worker:
        busy = await worker.start(sh("while :; do echo xxxxxxxxxxxxxxxxxxx; done"), owner=ALICE)
        await read_until(worker, busy.id, lambda data: len(data) > 1000)
        for view in ({}, {"stream": Stream.STDERR}, {"tail_lines": 1}):
            async with asyncio.timeout(10):
                there = await collect(worker, busy.id, follow=False, **view)
            assert there.end is not None
            assert there.end.ending is None
            assert there.end.totals.stdout_bytes >= len(there.whole)
        await worker.stop(busy.id, stopped_by=ALICE, grace_s=0)
        quiet = await worker.start(sh("sleep 60"), owner=ALICE)
        nothing = await collect(worker, quiet.id, follow=False)
    assert (nothing.whole, nothing.end is not None) == (b"", True)


async def test_heartbeats_tell_that_the_other_side_is_there(place: WorkerPlace) -> None:
    async with place.open() as worker:
        idle = await worker.start(sh("printf abc; exec sleep 60"), owner=ALICE)
        await read_until(worker, idle.id, lambda data: data == b"abc")
        assert await _three_beats(worker, idle.id) == [b"abc", 3, 3, 3]
        # Only the stream that is not asked for goes on.
        script = "while :; do echo x; sleep 0.01; done"
        busy = await worker.start(sh(script), owner=ALICE)
        unwanted = await _three_beats(worker, busy.id, stream=Stream.STDERR)
        assert len(unwanted) == 3


async def _three_beats(worker: Worker, job_id: JobId, **view: Any) -> list[bytes | int]:
    """Data and offsets of all that comes up to the third heartbeat, none of which comes early."""
    told: list[bytes | int] = []
    began = time.monotonic()
    async with contextlib.aclosing(worker.follow(job_id, heartbeat_s=0.05, **view)) as events:
        while sum(isinstance(each, int) for each in told) < 3:
            event = await anext(events)
            assert not isinstance(event, EndOfOutput)
            told.append(event.data if isinstance(event, Chunk) else event.offset)
    assert time.monotonic() - began >= 3 * 0.05
    return told


async def test_a_deleted_job_is_read_to_its_end_by_who_reads_it(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job, whole = await run(worker, sh("seq 200000"))
        async with contextlib.aclosing(worker.follow(job.id)) as events:
            data = b""
            async for event in events:
                if not data:
                    await worker.delete(job.id)
                if isinstance(event, Chunk):
                    data += event.data
        assert data == whole.whole
        with pytest.raises(JobNotFoundError):
            await collect(worker, job.id)


@pytest.mark.parametrize("name", ["output", "index"])
async def test_missing_output_is_an_error_and_never_silence(place: WorkerPlace, name: str) -> None:
    async with place.open() as worker:
        job, _ = await run(worker, sh("seq 1000"))
        file = place.job_directory(job.id) / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        if name == "output":
            with pytest.raises(DataLossError):
                await collect(worker, job.id)
        else:
            # The index only says which stream and when: the bytes are all there.
            assert len((await collect(worker, job.id)).whole) == job.output.kept_bytes
        file.unlink()
        with pytest.raises(DataLossError, match="its log is gone"):
            await collect(worker, job.id)


async def test_a_follower_may_leave_and_come_while_others_stay(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("while :; do echo x; sleep 0.001; done"), owner=ALICE)
        async with asyncio.TaskGroup() as tasks:
            stays = tasks.create_task(collect(worker, job.id))
            for _ in range(20):
                await read_until(worker, job.id, lambda data: len(data) > 10)
            ended = await worker.stop(job.id, stopped_by=ALICE, grace_s=0)
        assert ended.state is JobState.ENDED
        assert len(stays.result().whole) == ended.output.kept_bytes


async def test_a_follow_can_be_cancelled_at_any_await(place: WorkerPlace) -> None:
    async with place.open() as worker:
        job = await worker.start(sh("seq 100000; sleep 60"), owner=ALICE)
        await read_until(worker, job.id, bool)
        for delay in (0, 0.001, 0.005, 0.02):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await collect(worker, job.id, tail_lines=90_000)
        assert len((await collect(worker, job.id, follow=False)).whole) > 0


async def test_a_chunk_that_was_handed_on_is_kept_by_nobody(place: WorkerPlace) -> None:
    """With a thousand readers that wait for their turn it would be a thousand chunks."""
    async with place.open() as worker:
        job = await worker.start(sh("head -c 1000000 /dev/zero"), owner=ALICE)
        await worker.wait(job.id)
        async with contextlib.aclosing(worker.follow(job.id)) as events:
            for _ in range(3):
                chunk = await anext(events)
                assert isinstance(chunk, Chunk)
                # The variable or the field, and the argument of the call.
                holders = (sys.getrefcount(chunk), sys.getrefcount(chunk.data))
                assert holders == (2, 2)
