"""Verbs that start jobs: run, start.

``run`` behaves like the command itself would: its bytes, its exit code, and Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Final, Self

from jobworker.cli import console, exits
from jobworker.cli.console import OutputError
from jobworker.cli.describe import job_json
from jobworker.cli.logs import copy_output
from jobworker.cli.render import one_line
from jobworker.cli.session import is_json, open_client, refuse_json, show_json
from jobworker.cli.values import request_id_of, spec_of
from jobworker.client import Client
from jobworker.errors import DeadlineExceededError, JobWorkerError, UnreachableError
from jobworker.model.ending import Ending, EndReason
from jobworker.model.ids import JobId, RequestId
from jobworker.model.job import Job
from jobworker.model.spec import JobSpec

#: A terminal that is closed is a Ctrl-C that can say nothing more.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def start(options: argparse.Namespace) -> int:
    """Start a job and leave it alone."""
    request = _Request.of(options)
    async with open_client(options) as client:
        job = await request.start(client)
    if is_json(options):
        show_json(job_json(job))
    else:
        console.show(f"{job.id}\n")
    return exits.OK


async def run(options: argparse.Namespace) -> int:
    """Start a job and be its stand-in here until it ends."""
    if options.detach:
        return await start(options)
    refuse_json(options)
    request = _Request.of(options)
    async with open_client(options) as client:
        # Before this point nothing was started, and a signal simply ends jobctl.
        with _Interrupts() as interrupts:
            return await _Foreground(client, interrupts).run(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is to be started, and the id by which the service knows it again."""

    spec: JobSpec
    request_id: RequestId

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """As the command line has it; the id is made if none is given."""
        request_id = request_id_of(options) or RequestId(os.urandom(16).hex())
        return cls(spec=spec_of(options), request_id=request_id)

    async def start(self, client: Client) -> Job:
        """Raises JobWorkerError; if nobody answered, after saying how to find the job."""
        try:
            return await client.start(self.spec, request_id=self.request_id)
        except (UnreachableError, DeadlineExceededError):
            console.talk(
                "no answer to the start, so the job may run: the same command with "
                f"--request-id {self.request_id} finds it, or starts it"
            )
            raise


class _Interrupts:
    """Signals that ask for an end, counted: the first stops the job, the second leaves it."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.exit_code = exits.INTERRUPTED
        """For the last signal."""

    def __enter__(self) -> Self:
        self._undo = contextlib.ExitStack()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # What the caller had ignored, as nohup(1) does, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._count, number)
                self._undo.callback(loop.remove_signal_handler, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _count(self, number: int) -> None:
        self.exit_code = exits.SIGNAL_BASE + number
        (self.second if self.first.is_set() else self.first).set()


class _Foreground:
    """One job that is run as if it were a local command."""

    def __init__(self, client: Client, interrupts: _Interrupts) -> None:
        self._client = client
        self._interrupts = interrupts
        self._started = asyncio.Event()
        self._job_id: JobId | None = None

    async def run(self, request: _Request) -> int:
        """The exit code, once the job has ended or was left."""
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._work(request))
            leave = tasks.create_task(self._interrupts.second.wait())
            stop = tasks.create_task(self._stop_when_interrupted())
            await asyncio.wait((work, leave), return_when=asyncio.FIRST_COMPLETED)
            for task in (work, leave, stop):
                task.cancel()
        if work.cancelled():
            self._say_left()
            return self._interrupts.exit_code
        outcome = work.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _work(self, request: _Request) -> int | JobWorkerError | OutputError:
        """Start and follow.  Failures are results: raised here, the group would wrap them up."""
        try:
            job = await request.start(self._client)
            self._job_id = job.id
            self._started.set()
            return await self._follow(job.id)
        except JobWorkerError as error:
            if self._job_id is not None:
                self._say_left()
            return error
        except OutputError as error:
            return error

    async def _follow(self, job_id: JobId) -> int:
        try:
            end = await copy_output(self._client.follow(job_id))
        except OutputError:
            # A local command would get SIGPIPE, or find the disk full as we did.
            await self._stop()
            raise
        if end.ending is None:  # the service ends a followed output only with the job
            return exits.FAILURE
        _say_ending(job_id, end.ending)
        return exits.of_ending(end.ending)

    async def _stop_when_interrupted(self) -> None:
        await self._interrupts.first.wait()
        console.talk("stopping the job; once more leaves it alone")
        await self._started.wait()
        await self._stop()

    async def _stop(self) -> None:
        if self._job_id is None:
            return
        try:
            await self._client.stop(self._job_id, wait=False)
        except JobWorkerError as error:
            console.talk(str(error))

    def _say_left(self) -> None:
        if self._job_id is None:
            console.talk("left while the job was being started; to find it: jobctl list")
        else:
            console.talk(f"left job {self._job_id} alone; to go on: jobctl logs -f {self._job_id}")


def _say_ending(job_id: JobId, ending: Ending) -> None:
    """Why, unless the exit code says it all."""
    if ending.reason is not EndReason.EXITED:
        console.talk(f"job {job_id} {one_line(ending.message) or ending.reason.value}")
