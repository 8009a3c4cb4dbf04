"""The RPCs of ``jobworker.v1.JobWorker``: a request in, the worker asked, an answer out.

Owns: which of the worker's calls serves which RPC, whose jobs a caller reaches, and what of a
request is bounded here.  Who the caller is and whether the role may call the method at all was
settled by the gate (interceptors.py), which also turns errors into statuses.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message_factory import GetMessageClass

from jobworker import __version__
from jobworker.api import convert
from jobworker.api.events import stream_from_proto
from jobworker.api.fields import refuse_unknown_fields
from jobworker.api.limits import limits_from_proto
from jobworker.api.scalars import duration_from_proto, micros_from_proto, time_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.wire import encode_event
from jobworker.errors import (
    JobNotFoundError,
    PermissionDeniedError,
    StartFailedError,
)
from jobworker.model.ids import JobId, is_job_id, parse_request_id
from jobworker.model.job import JobFilter
from jobworker.model.policy import JobPolicy
from jobworker.security.policy import Action, Role, Scope, require_access, require_grant
from jobworker.server.calls import Call, current_call
from jobworker.server.streams import OpenStreams
from jobworker.worker import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Worker

SERVICE: Final = pb.DESCRIPTOR.services_by_name["JobWorker"]

#: gRPC clients take answers of 4 MiB by default; a page of jobs that would be larger is cut.
_PAGE_BYTES_MAX: Final = 3 * 1024 * 1024
_STOP_WITHOUT_WAITING: Final = "nothing was done: with no_wait it is stopped all the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What the service can be told besides its worker."""

    policies: Mapping[Role, JobPolicy]
    """Of every role."""
    heartbeat_s: float
    """A stream that has nothing to say for so long gives a sign of life.  What breaks a connection
    without a word is found out by the client within this time."""


class JobWorkerService:
    """One method for each RPC."""

    def __init__(self, worker: Worker, settings: ServiceSettings, streams: OpenStreams) -> None:
        """streams: among which the stops that wait are counted."""
        self._worker = worker
        self._settings = settings
        self._streams = streams

    async def start_job(self, request: pb.StartJobRequest, call: Call) -> pb.StartJobResponse:
        if request.spec.limits.ByteSize():
            require_grant(call.principal, Action.START_WITH_LIMITS)
        refuse_unknown_fields(request.spec, "spec")
        refuse_unknown_fields(request.spec.limits, "limits")
        spec = convert.spec_from_proto(request.spec)
        request_id = parse_request_id(request.request_id) if request.request_id else None
        try:
            job = await self._worker.start(
                spec,
                owner=call.principal.name,
                policy=self._settings.policies[call.principal.role],
                request_id=request_id,
            )
        except StartFailedError as error:
            call.job_id = JobId(error.job_id) if error.job_id else None
            raise
        call.job_id = job.id
        return pb.StartJobResponse(job=convert.job_to_proto(job))

    async def stop_job(self, request: pb.StopJobRequest, call: Call) -> pb.StopJobResponse:
        job_id = await self._reach(request.job_id, Action.STOP, call)
        grace_s = None
        if request.HasField("grace"):
            grace_s = duration_from_proto(request.grace, "grace")
        with contextlib.ExitStack() as waiting:
            if not request.no_wait:
                # Until the job has ended, which may take as long as its grace: one user who has
                # many could otherwise take the calls of everybody.
                action = f"stop job {job_id} and wait for its end"
                waiting.enter_context(
                    self._streams.admit(call, action=action, advice=_STOP_WITHOUT_WAITING)
                )
            # A client whose deadline passes while this waits has stopped the job all the same.
            job = await self._worker.stop(
                job_id, stopped_by=call.principal.name, grace_s=grace_s, wait=not request.no_wait
            )
        return pb.StopJobResponse(job=convert.job_to_proto(job))

    async def get_job(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        job_id = await self._reach(request.job_id, Action.GET, call)
        return pb.GetJobResponse(job=convert.job_to_proto(await self._worker.get(job_id)))

    async def list_jobs(self, request: pb.ListJobsRequest, call: Call) -> pb.ListJobsResponse:
        which = _visible(convert.filter_from_proto(request.filter), Action.LIST, call)
        size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        while True:
            page = await self._worker.list(which, page_size=size, page_token=request.page_token)
            answer = convert.page_to_proto(page)
            if answer.ByteSize() <= _PAGE_BYTES_MAX or size == 1:
                return answer
            size = max(1, size // 2)

    async def stream_output(
        self, request: pb.StreamOutputRequest, call: Call
    ) -> AsyncGenerator[bytes, None]:
        """Already serialized: see ``jobworker.api.wire``."""
        job_id = await self._reach(request.job_id, Action.STREAM, call)
        events = self._worker.follow(
            job_id,
            offset=request.offset,
            follow=request.follow,
            stream=stream_from_proto(request.stream),
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            since_us=micros_from_proto(request.since, "since")
            if request.HasField("since")
            else None,
            exact_times=request.timestamps,
            heartbeat_s=self._settings.heartbeat_s,
        )
        async with contextlib.aclosing(events):
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield encode_event(await anext(events))

    async def watch_jobs(
        self, request: pb.WatchJobsRequest, call: Call
    ) -> AsyncGenerator[pb.WatchJobsResponse, None]:
        which = _visible(convert.filter_from_proto(request.filter), Action.WATCH, call)
        jobs = self._worker.watch(which, heartbeat_s=self._settings.heartbeat_s)
        async with contextlib.aclosing(jobs):
            async for job in jobs:
                yield pb.WatchJobsResponse(job=None if job is None else convert.job_to_proto(job))

    async def update_limits(
        self, request: pb.UpdateLimitsRequest, call: Call
    ) -> pb.UpdateLimitsResponse:
        job_id = await self._reach(request.job_id, Action.UPDATE_LIMITS, call)
        refuse_unknown_fields(request.limits, "limits")
        limits = limits_from_proto(request.limits)
        job = await self._worker.update_limits(job_id, limits, changed_by=call.principal.name)
        return pb.UpdateLimitsResponse(job=convert.job_to_proto(job))

    async def delete_job(self, request: pb.DeleteJobRequest, call: Call) -> pb.DeleteJobResponse:
        job_id = await self._reach(request.job_id, Action.DELETE, call)
        await self._worker.delete(job_id)
        return pb.DeleteJobResponse()

    async def who_am_i(self, _request: pb.WhoAmIRequest, call: Call) -> pb.WhoAmIResponse:
        return pb.WhoAmIResponse(
            user=call.principal.name,
            role=call.principal.role.value,
            certificate_serial=call.identity.serial_hex,
            certificate_not_after=time_to_proto(call.identity.not_after),
            server_version=__version__,
        )

    async def _reach(self, job_id: str, action: Action, call: Call) -> JobId:
        """The job's id, if the caller may do this to it.

        Raises JobNotFoundError alike for a job of somebody else and for none: in both cases after
        asking the journal once, so that the time it takes tells nothing either.
        """
        if not is_job_id(job_id):
            raise JobNotFoundError(job_id)
        known = call.job_id = JobId(job_id)
        owner = await self._worker.owner_of(known)
        require_access(call.principal, action, job_id=known, owner=owner)
        call.owner = owner
        return known


def _visible(which: JobFilter, action: Action, call: Call) -> JobFilter:
    """The filter narrowed to the jobs that the caller may see; raises PermissionDeniedError."""
    if require_grant(call.principal, action) is Scope.ANY:
        return which
    if which.owner not in (None, call.principal.name):
        why = f"the role {call.principal.role.value} sees only its own"
        raise PermissionDeniedError(f"{action.value} of {which.owner}", why)
    return dataclasses.replace(which, owner=call.principal.name)


def service_handler(service: JobWorkerService) -> grpc.GenericRpcHandler:
    """The service as gRPC takes it; every method of the contract is in it, or this raises."""
    methods: Mapping[str, Callable[[Any, Call], Any]] = {
        "StartJob": service.start_job,
        "StopJob": service.stop_job,
        "GetJob": service.get_job,
        "ListJobs": service.list_jobs,
        "StreamOutput": service.stream_output,
        "WatchJobs": service.watch_jobs,
        "UpdateLimits": service.update_limits,
        "DeleteJob": service.delete_job,
        "WhoAmI": service.who_am_i,
    }
    handlers = {}
    for descriptor in SERVICE.methods:
        make = (
            grpc.unary_stream_rpc_method_handler
            if descriptor.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        handlers[descriptor.name] = make(
            _with_call(methods[descriptor.name]),
            request_deserializer=GetMessageClass(descriptor.input_type).FromString,
            response_serializer=None
            if descriptor.name == "StreamOutput"
            else GetMessageClass(descriptor.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _with_call(method: Callable[[Any, Call], Any]) -> Callable[[Any, object], Any]:
    return lambda request, _context: method(request, current_call())
