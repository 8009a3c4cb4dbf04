"""What each RPC does, from the client's side of the wire."""

from __future__ import annotations

import contextlib

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]  # it has none
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has none

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidLimitError,
    RequestReusedError,
    StartFailedError,
)
from support.service import ServicePlace, output, refused, sh, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

#: Shows when it gets SIGTERM, and stays.
STUBBORN = "trap 'echo asked' TERM; echo ready; while :; do sleep 60 & wait; done"


async def test_a_job_is_started_followed_and_told_about(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "echo out; exit 7", labels={"a": "b"}, name="hello")
        assert (job.owner, job.spec.name, dict(job.spec.labels)) == ("alice", "hello", {"a": "b"})
        assert await output(alice, job.id) == b"out\n"
        job = (await alice.GetJob(pb.GetJobRequest(job_id=job.id))).job
        assert job.state == pb.JOB_STATE_ENDED
        assert (job.ending.reason, job.ending.exit_code) == (pb.END_REASON_EXITED, 7)
        assert job.ending.output.stdout_bytes == 4


async def test_a_repeated_start_returns_the_same_job(place: ServicePlace) -> None:
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("bob") as bob,
    ):
        request = pb.StartJobRequest(spec=sh("true"), request_id="once")
        first = (await alice.StartJob(request)).job
        assert (await alice.StartJob(request)).job.id == first.id
        # A request id is its user's own.
        assert (await bob.StartJob(request)).job.id != first.id
        with refused() as refusal:
            await alice.StartJob(pb.StartJobRequest(spec=sh("false"), request_id="once"))
        assert type(refusal.error) is RequestReusedError


async def test_a_command_that_cannot_start_names_file_errno_and_job(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        with refused() as refusal:
            await alice.StartJob(pb.StartJobRequest(spec=pb.JobSpec(argv=["/no/such/program"])))
        error = refusal.error
        assert isinstance(error, StartFailedError)
        assert (error.reason, error.details["errno"]) == ("COMMAND_NOT_FOUND", "ENOENT")
        assert error.path == "/no/such/program"
        job = (await alice.GetJob(pb.GetJobRequest(job_id=error.job_id))).job
        assert job.ending.reason == pb.END_REASON_START_FAILED
        [line] = await service.audit.wait(1, reason="COMMAND_NOT_FOUND")
        assert line["job"] == error.job_id


@pytest.mark.parametrize(
    ("spec", "field", "kind"),
    [
        (pb.JobSpec(), "argv", InvalidArgumentError),
        (pb.JobSpec(argv=["a"], env={"A=B": ""}), "env", InvalidArgumentError),
        (pb.JobSpec(argv=["a"], timeout=Duration(seconds=-1)), "timeout", InvalidArgumentError),
        (pb.JobSpec(argv=["a"], on_output_limit=9), "on_output_limit", InvalidArgumentError),  # type: ignore[arg-type]  # wrong on purpose
        (pb.JobSpec(argv=["a"], limits=pb.Limits(tasks=0)), "limits.tasks", InvalidLimitError),
        (pb.JobSpec.FromString(b"\x98\x06\x01"), "spec field", InvalidArgumentError),
    ],
    ids=["argv", "env", "timeout", "enum", "limit", "unknown field"],
)
async def test_a_wrong_field_is_named(
    place: ServicePlace, spec: pb.JobSpec, field: str, kind: type[InvalidArgumentError]
) -> None:
    async with place.open() as service, service.client("admin") as admin:
        with refused() as refusal:
            await admin.StartJob(pb.StartJobRequest(spec=spec))
    assert type(refusal.error) is kind
    # As a client of another make reads it.
    status = Status.FromString(refusal.trailing)
    info, request = ErrorInfo(), BadRequest()
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.domain, info.reason) == ("jobworker", refusal.error.reason)
    assert [violation.field for violation in request.field_violations] == [field]


async def test_a_stop_waits_for_the_end_and_tells_who_asked(place: ServicePlace) -> None:
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("admin") as admin,
    ):
        job = await start(alice, "exec sleep 60")
        stopped = (await admin.StopJob(pb.StopJobRequest(job_id=job.id))).job
        assert stopped.state == pb.JOB_STATE_ENDED
        assert stopped.ending.reason == pb.END_REASON_STOPPED
        assert stopped.ending.stopped_by == "admin"
        again = (await alice.StopJob(pb.StopJobRequest(job_id=job.id))).job
        assert again.ending == stopped.ending
        [line] = await service.audit.wait(1, user="admin", outcome="OK")
        assert (line["job"], line["owner"]) == (job.id, "alice")


async def test_a_stop_goes_on_after_the_deadline_of_who_asked(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, STUBBORN)
        events = aiter(alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True)))
        assert (await anext(events)).chunk.data == b"ready\n"
        # Time for the call to arrive before its deadline, and for that to come before the end.
        grace = Duration(seconds=2)
        with refused() as refusal:
            await alice.StopJob(pb.StopJobRequest(job_id=job.id, grace=grace), timeout=1)
        assert type(refusal.error) is DeadlineExceededError
        *_, last = [event async for event in events]
        assert last.end.ending.reason == pb.END_REASON_STOPPED
        assert last.end.ending.signal == 9
        (line,) = await service.audit.wait(1, method="/jobworker.v1.JobWorker/StopJob", job=job.id)
        # The client may tell that it is gone before the server's clock says that time is up.
        assert line["outcome"] in {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_a_stop_need_not_wait(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, STUBBORN)
        events = aiter(alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True)))
        await anext(events)
        request = pb.StopJobRequest(job_id=job.id, grace=Duration(seconds=3600), no_wait=True)
        assert (await alice.StopJob(request)).job.state == pb.JOB_STATE_STOPPING
        assert (await anext(events)).chunk.data == b"asked\n"
        # A second stop shortens the grace of the first.
        await alice.StopJob(pb.StopJobRequest(job_id=job.id, grace=Duration()))


@pytest.mark.parametrize(
    "grace", [Duration(seconds=-1), Duration(seconds=10**9)], ids=["-1", "1e9"]
)
async def test_a_grace_out_of_range_is_refused(place: ServicePlace, grace: Duration) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "exec sleep 60")
        with refused() as refusal:
            await alice.StopJob(pb.StopJobRequest(job_id=job.id, grace=grace))
        assert refusal.code == "INVALID_ARGUMENT"


async def test_limits_change_on_a_running_job(place: ServicePlace) -> None:
    async with place.open() as service, service.client("admin") as admin:
        job = await start(admin, "exec sleep 60", limits=pb.Limits(tasks=20))
        request = pb.UpdateLimitsRequest(job_id=job.id, limits=pb.Limits(tasks=30))
        changed = (await admin.UpdateLimits(request)).job
        assert changed.limits == pb.Limits(tasks=30)
        assert [limit.effective for limit in changed.effective_limits] == [30]
        with refused() as refusal:
            await admin.UpdateLimits(pb.UpdateLimitsRequest(job_id=job.id))
        assert refusal.code == "INVALID_ARGUMENT"


async def test_an_owner_sees_who_changed_the_limits_of_a_job(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "exec sleep 60")
        async with service.client("admin") as admin:
            limits = pb.Limits(tasks=30, memory_bytes=64 << 20)
            await admin.UpdateLimits(pb.UpdateLimitsRequest(job_id=job.id, limits=limits))
            request = pb.UpdateLimitsRequest(job_id=job.id, limits=pb.Limits(tasks=20))
            answered = (await admin.UpdateLimits(request)).job
        told = (await alice.GetJob(pb.GetJobRequest(job_id=job.id))).job
        assert told.limit_changes == answered.limit_changes
        first, second = told.limit_changes
        assert (first.changed_by, first.before, first.after) == ("admin", pb.Limits(), limits)
        assert (second.before, second.after) == (pb.Limits(tasks=30), pb.Limits(tasks=20))
        assert [limit.effective for limit in second.effective_limits] == [20]
        assert job.created_at.ToNanoseconds() < first.changed_at.ToNanoseconds()
        (listed,) = (await alice.ListJobs(pb.ListJobsRequest())).jobs
        assert listed.limit_changes == told.limit_changes
        assert told.limit_changes_dropped == 0
        async with service.client("bob") as bob:
            with refused() as refusal:
                await bob.GetJob(pb.GetJobRequest(job_id=job.id))
            assert refusal.code == "NOT_FOUND"


async def test_an_ended_job_can_be_deleted_and_a_running_one_not(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        job = await start(alice, "exec sleep 60")
        with refused() as refusal:
            await alice.DeleteJob(pb.DeleteJobRequest(job_id=job.id))
        assert type(refusal.error) is FailedPreconditionError
        await alice.StopJob(pb.StopJobRequest(job_id=job.id))
        await alice.DeleteJob(pb.DeleteJobRequest(job_id=job.id))
        with refused() as refusal:
            await alice.GetJob(pb.GetJobRequest(job_id=job.id))
        assert refusal.code == "NOT_FOUND"


async def test_lists_come_in_pages_newest_first(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        ids = [(await start(alice, "true", name=str(number))).id for number in range(5)]
        first = await alice.ListJobs(pb.ListJobsRequest(page_size=3))
        token = first.next_page_token
        rest = await alice.ListJobs(pb.ListJobsRequest(page_size=3, page_token=token))
        assert [job.id for job in [*first.jobs, *rest.jobs]] == ids[::-1]
        assert not rest.next_page_token
        with refused() as refusal:
            await alice.ListJobs(pb.ListJobsRequest(page_token="no such page"))
        assert refusal.code == "INVALID_ARGUMENT"


async def test_the_audit_log_tells_each_decision_and_no_secret(place: ServicePlace) -> None:
    secret = "hunter2"
    async with place.open() as service, service.client("alice") as alice:
        request = pb.StartJobRequest(
            spec=pb.JobSpec(
                argv=["/bin/echo", secret], env={"TOKEN": secret}, name=secret, labels={"a": secret}
            )
        )
        job = (await alice.StartJob(request)).job
        await output(alice, job.id)
        for spec in (pb.JobSpec(argv=["\0" + secret]), pb.JobSpec(argv=[f"/{secret}"])):
            with refused():
                await alice.StartJob(pb.StartJobRequest(spec=spec))
        with refused():
            await alice.UpdateLimits(pb.UpdateLimitsRequest(job_id=job.id))
        lines = await service.audit.wait(6)
    assert not [line for line in lines if secret in str(line)]
    serial = f"{place.certificate('alice').serial_number:x}"
    assert {(line["user"], line["role"], line["serial"]) for line in lines} == {
        ("alice", "user", serial)
    }
    assert [(line["event"], line["method"].rpartition("/")[2]) for line in lines] == [
        ("end", "StartJob"),
        ("open", "StreamOutput"),
        ("end", "StreamOutput"),
        ("end", "StartJob"),
        ("end", "StartJob"),
        ("end", "UpdateLimits"),
    ]
    assert [line.get("outcome") for line in lines] == [
        "OK", None, "OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED",
    ]  # fmt: skip
    assert lines[-1]["why"] == "cannot change the limits of the job: the role user may not"
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines)


async def test_a_client_that_breaks_off_a_start_finds_the_job(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        for number in range(10):
            starting = alice.StartJob(
                pb.StartJobRequest(spec=sh("true"), request_id=f"n{number}"), timeout=0.002
            )
            with contextlib.suppress(grpc.aio.AioRpcError):
                await starting
        # Whatever became of the first tries, the same request leads to one job each.
        jobs = [
            (await alice.StartJob(pb.StartJobRequest(spec=sh("true"), request_id=f"n{number}"))).job
            for number in range(10)
        ]
        listed = await alice.ListJobs(pb.ListJobsRequest())
        assert {job.id for job in listed.jobs} == {job.id for job in jobs}
        for job in jobs:
            await output(alice, job.id)
