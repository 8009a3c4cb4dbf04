"""The client: the verbs and values of ``jobworker.worker``, for a service that is elsewhere.

Owns: each RPC in terms of ``jobworker.model``.  Not the connection (connection.py) and not where a
broken stream goes on (follow.py).

All errors are those of ``jobworker.errors``: the service's own arrive as the same class with the
same message.  UnavailableError: the service was not reached for as long as ``Patience`` allows.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

from jobworker.api import convert
from jobworker.api.events import stream_to_proto
from jobworker.api.limits import limits_to_proto
from jobworker.api.scalars import duration_to_proto, micros_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.wire import decode_event
from jobworker.client.backoff import Backoff, Patience
from jobworker.client.connection import Connection, open_connection
from jobworker.client.follow import OutputCursor
from jobworker.client.target import Target
from jobworker.errors import (
    JobNotFoundError,
    JobWorkerError,
    ResourceExhaustedError,
    UnavailableError,
)
from jobworker.model.ids import JobId, RequestId
from jobworker.model.job import Job, JobFilter, JobPage
from jobworker.model.limits import Limits
from jobworker.model.output import Chunk, EndOfOutput, Heartbeat, Stream
from jobworker.model.spec import JobSpec
from jobworker.model.state import JobState

PAGE_SIZE: Final = 100
"""Jobs in one page of a list, unless asked for otherwise; the service gives at most 1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who the service takes this client for, and which service it is."""

    user: str
    role: str
    """``"user"`` or ``"admin"``."""
    certificate_serial: str
    """Hexadecimal."""
    certificate_not_after: datetime.datetime
    """UTC; streams end with the certificate."""
    server_version: str


@contextlib.asynccontextmanager
async def connect(target: Target, *, patience: Patience | None = None) -> AsyncIterator[Client]:
    """A client of the service at ``target``; leaving the block breaks off what it still does.

    Raises UnavailableError with the reason, which may well be a file of one's own.
    """
    async with open_connection(target, patience or Patience()) as connection:
        yield Client(connection)


class Client:
    """Jobs on another machine.  One event loop; any number of calls at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub

    async def start(self, spec: JobSpec, *, request_id: RequestId | None = None) -> Job:
        """Start a command; returns once it is executed.

        request_id: the same one returns the same job, in another process and after days too, for
            as long as that job is kept.  Without one, the client makes its own, for its own
            repetitions.
        """
        request = pb.StartJobRequest(
            spec=convert.spec_to_proto(spec), request_id=request_id or os.urandom(16).hex()
        )
        answer = await self._connection.call(self._stub.StartJob, request)
        return convert.job_from_proto(answer.job)

    async def stop(self, job_id: JobId, *, grace_s: float | None = None, wait: bool = True) -> Job:
        """End a job with all its processes; returns once it has ended, or at once.

        grace_s: from SIGTERM to SIGKILL; 0 is SIGKILL at once, ``None`` the service's default.
        """
        # Waiting is left to the watch, which notices a service that is gone; a single call that
        # may take any time could not be told from a dead one.
        request = pb.StopJobRequest(job_id=job_id, no_wait=True)
        if grace_s is not None:
            request.grace.CopyFrom(duration_to_proto(grace_s))
        answer = await self._connection.call(self._stub.StopJob, request)
        job = convert.job_from_proto(answer.job)
        return await self.wait(job_id) if wait and job.state is not JobState.ENDED else job

    async def get(self, job_id: JobId) -> Job:
        """One job as it is now; raises JobNotFoundError."""
        answer = await self._connection.call(self._stub.GetJob, pb.GetJobRequest(job_id=job_id))
        return convert.job_from_proto(answer.job)

    async def list(
        self, wanted: JobFilter | None = None, *, page_size: int = PAGE_SIZE, page_token: str = ""
    ) -> JobPage:
        """Jobs, newest first."""
        request = pb.ListJobsRequest(
            filter=convert.filter_to_proto(wanted or JobFilter()),
            page_size=page_size,
            page_token=page_token,
        )
        answer = await self._connection.call(self._stub.ListJobs, request)
        return convert.page_from_proto(answer)

    async def wait(self, job_id: JobId) -> Job:
        """The job once it has ended; cancelling this leaves the job alone."""
        changes = self._changes(JobFilter(id_prefix=job_id))
        async with contextlib.aclosing(changes):
            job = await self.get(job_id)
            while job.state is not JobState.ENDED:
                change = await anext(changes)
                # A job that is removed is told of by nothing: a sign of life is time to ask.
                job = await self.get(job_id) if change is None else change
        return job

    async def watch(self, wanted: JobFilter | None = None) -> AsyncGenerator[Job, None]:
        """The jobs that match now, then each change, for ever.

        After a broken connection all that match are told again; so the last state of each job is
        never missed, but one may be told twice.
        """
        changes = self._changes(wanted or JobFilter())
        async with contextlib.aclosing(changes):
            async for job in changes:
                if job is not None:
                    yield job

    async def follow(
        self,
        job_id: JobId,
        *,
        offset: int = 0,
        follow: bool = True,
        stream: Stream | None = None,
        tail_lines: int | None = None,
        since_us: int | None = None,
        exact_times: bool = False,
    ) -> AsyncGenerator[Chunk | EndOfOutput, None]:
        """The output of a job, each byte exactly once, then ``EndOfOutput``.

        Broken connections are resumed behind the scenes.  Raises DataLossError if the service
        delivers less than there is.  Close it with ``contextlib.aclosing`` if you leave early.
        """
        cursor = OutputCursor(
            offset=offset, stream=stream, tail_lines=tail_lines, since_us=since_us
        )
        backoff = Backoff(self._connection.patience.resume_s)
        while True:
            request = _stream_request(
                job_id, cursor, follow=follow, stream=stream, exact_times=exact_times
            )
            messages = self._connection.stream(self._connection.stream_output, request)
            failure: JobWorkerError = UnavailableError(
                "read on", "the stream ended before the output did"
            )
            async with contextlib.aclosing(messages):
                try:
                    async for message in messages:
                        backoff.progress()
                        event = decode_event(message)
                        cursor.accept(event)
                        if not isinstance(event, Heartbeat):
                            yield event
                        if isinstance(event, EndOfOutput):
                            return
                except (UnavailableError, ResourceExhaustedError) as error:
                    failure = error
            await self._before_resuming(backoff, failure)

    async def update_limits(self, job_id: JobId, limits: Limits) -> Job:
        """Change the given limits of a running job; its history tells of it.  Admins only."""
        request = pb.UpdateLimitsRequest(job_id=job_id, limits=limits_to_proto(limits))
        answer = await self._connection.call(self._stub.UpdateLimits, request)
        return convert.job_from_proto(answer.job)

    async def delete(self, job_id: JobId) -> None:
        """Remove an ended job with its output."""
        request = pb.DeleteJobRequest(job_id=job_id)
        await self._connection.call(self._stub.DeleteJob, request, settled=JobNotFoundError)

    async def who_am_i(self) -> Caller:
        """Who the service takes this client for."""
        answer = await self._connection.call(self._stub.WhoAmI, pb.WhoAmIRequest())
        return Caller(
            user=answer.user,
            role=answer.role,
            certificate_serial=answer.certificate_serial,
            certificate_not_after=answer.certificate_not_after.ToDatetime(datetime.UTC),
            server_version=answer.server_version,
        )

    async def _changes(self, wanted: JobFilter) -> AsyncGenerator[Job | None, None]:
        """Changes of state; ``None`` is a sign of life."""
        request = pb.WatchJobsRequest(filter=convert.filter_to_proto(wanted))
        backoff = Backoff(self._connection.patience.resume_s)
        while True:
            messages = self._connection.stream(self._stub.WatchJobs, request)
            failure: JobWorkerError = UnavailableError("watch jobs", "the service ended the stream")
            async with contextlib.aclosing(messages):
                try:
                    async for message in messages:
                        backoff.progress()
                        has_job = message.HasField("job")
                        yield convert.job_from_proto(message.job) if has_job else None
                except (UnavailableError, ResourceExhaustedError) as error:
                    failure = error
            await self._before_resuming(backoff, failure)

    async def _before_resuming(self, backoff: Backoff, failure: JobWorkerError) -> None:
        """Wait before a stream is asked for again; raises when that is over or would not help."""
        if isinstance(failure, UnavailableError):
            await self._connection.recover(backoff, failure)
        elif backoff.attempts:
            # The stream that broke may be among those that are too many: the service notices later
            # than we do that nobody is at its other end.
            await backoff.pause(failure)
        else:
            raise failure


def _stream_request(
    job_id: JobId,
    cursor: OutputCursor,
    *,
    follow: bool,
    stream: Stream | None,
    exact_times: bool,
) -> pb.StreamOutputRequest:
    return pb.StreamOutputRequest(
        job_id=job_id,
        offset=cursor.offset or 0,
        follow=follow,
        stream=stream_to_proto(stream),
        tail_lines=cursor.tail_lines,
        since=None if cursor.since_us is None else micros_to_proto(cursor.since_us),
        timestamps=exact_times,
    )
