"""Who may do what to whose jobs: every method, both roles, every kind of owner."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import grpc.aio
import pytest

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from jobworker.errors import JobNotFoundError
from jobworker.model.ids import JOB_ID_ALPHABET, JOB_ID_CHARS, JobId, new_job_id
from jobworker.model.limits import Limits
from jobworker.model.policy import JobPolicy
from jobworker.security.policy import Role
from jobworker.server.access import ACTIONS, STREAMS
from support.service import SERVICE, ServicePlace, output, refused, sh, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

#: What a caller is told, by role and by whose job it is.
Row = Mapping[tuple[str, str], str]

OWNERS: Final = ("own", "other's", "missing")
ONLY_OWN: Final[Row] = {
    ("user", "own"): "OK",
    ("user", "other's"): "NOT_FOUND",
    ("user", "missing"): "NOT_FOUND",
    ("admin", "own"): "OK",
    ("admin", "other's"): "OK",
    ("admin", "missing"): "NOT_FOUND",
}
ONLY_ADMINS: Final[Row] = {
    **ONLY_OWN,
    ("user", "own"): "PERMISSION_DENIED",
    ("user", "other's"): "PERMISSION_DENIED",
    ("user", "missing"): "PERMISSION_DENIED",
}
#: Methods that are about no job in particular.
EVERYBODY: Final[Row] = {("user", "none"): "OK", ("admin", "none"): "OK"}

#: A method of the contract without a row fails the test below.
MATRIX: Final[Mapping[str, Row]] = {
    "StartJob": EVERYBODY,
    "StopJob": ONLY_OWN,
    "GetJob": ONLY_OWN,
    "ListJobs": EVERYBODY,
    "StreamOutput": ONLY_OWN,
    "WatchJobs": EVERYBODY,
    "UpdateLimits": ONLY_ADMINS,
    "DeleteJob": ONLY_OWN,
    "WhoAmI": EVERYBODY,
}


async def call(client: JobWorkerStub, method: str, job_id: str) -> None:
    """One call of the method; of a stream, its first message."""
    requests: dict[str, Any] = {
        "StartJob": lambda: pb.StartJobRequest(spec=sh("true")),
        "StopJob": lambda: pb.StopJobRequest(job_id=job_id, no_wait=True),
        "GetJob": lambda: pb.GetJobRequest(job_id=job_id),
        "ListJobs": pb.ListJobsRequest,
        "StreamOutput": lambda: pb.StreamOutputRequest(job_id=job_id),
        "WatchJobs": pb.WatchJobsRequest,
        "UpdateLimits": lambda: pb.UpdateLimitsRequest(job_id=job_id, limits=pb.Limits(tasks=50)),
        "DeleteJob": lambda: pb.DeleteJobRequest(job_id=job_id),
        "WhoAmI": pb.WhoAmIRequest,
    }
    answer = getattr(client, method)(requests[method]())
    if SERVICE.methods_by_name[method].server_streaming:
        async for _ in answer:
            answer.cancel()
            return
        return
    await answer


async def code_of(calling: Awaitable[None]) -> str:
    try:
        await calling
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
async def test_every_role_reaches_the_jobs_it_may_and_no_other(
    place: ServicePlace, method: str
) -> None:
    found = {}
    async with place.open() as service, contextlib.AsyncExitStack() as stack:
        clients = {
            role: await stack.enter_async_context(service.client(name))
            for role, name in (("user", "alice"), ("admin", "admin"))
        }
        bob = await stack.enter_async_context(service.client("bob"))
        for role, whose in MATRIX[method]:
            owner = {"own": clients[role], "other's": bob}.get(whose)
            job_id = "0" * JOB_ID_CHARS
            if owner is not None:
                job = await start(owner, "true" if method == "DeleteJob" else "exec sleep 60")
                job_id = job.id
                if method == "DeleteJob":
                    await output(owner, job_id)
            found[role, whose] = await code_of(call(clients[role], method, job_id))
    assert found == MATRIX[method]


def test_every_method_is_in_the_table_of_the_gate() -> None:
    ours = {f"/{SERVICE.full_name}/{method.name}": method for method in SERVICE.methods}
    assert set(ours) == {method for method in ACTIONS if method.startswith("/jobworker.")}
    assert {name for name, method in ours.items() if method.server_streaming} == {
        method for method in STREAMS if method.startswith("/jobworker.")
    }


async def test_a_method_that_is_not_in_the_table_is_refused(
    place: ServicePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(ACTIONS, f"/{SERVICE.full_name}/WhoAmI")
    async with place.open() as service, service.client("admin") as admin:
        with refused() as refusal:
            await admin.WhoAmI(pb.WhoAmIRequest())
    assert refusal.code == "PERMISSION_DENIED"


async def test_a_method_that_nobody_serves_is_unimplemented(place: ServicePlace) -> None:
    async with place.open() as service, service.channel("admin") as channel:
        unknown: Any = channel.unary_unary("/jobworker.v1.JobWorker/Reboot")
        with refused() as refusal:
            await unknown(b"")
    assert "UNIMPLEMENTED" in str(refusal.error)
    assert service.audit.lines[-1]["outcome"] == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", ["GetJob", "StopJob", "StreamOutput", "DeleteJob"])
async def test_anothers_job_is_told_from_none_by_nothing(place: ServicePlace, method: str) -> None:
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("bob") as bob,
    ):
        hidden = (await start(bob, "exec sleep 60")).id
        missing = new_job_id()
        told = []
        for job_id in (hidden, missing):
            with refused() as refusal:
                await call(alice, method, job_id)
            assert refusal.error is not None
            told.append((refusal.code, str(refusal.error).replace(job_id, "ID"), refusal.trailing))
    assert told[0][:2] == told[1][:2] == ("NOT_FOUND", "cannot find job 'ID'")
    assert told[0][2].replace(hidden.encode(), b"") == told[1][2].replace(missing.encode(), b"")


async def test_the_time_that_a_refusal_takes_tells_nothing(place: ServicePlace) -> None:
    # Looking up the owner is all that a refusal waits for.  Measured without the network, whose
    # noise would hide a difference that many tries would show to somebody patient.
    rounds = 200
    async with place.open() as service, service.client("bob") as bob:
        live = (await start(bob, "exec sleep 60")).id
        ended = (await start(bob, "true")).id
        await output(bob, ended)
        times: dict[str, list[float]] = {"live": [], "ended": [], "missing": []}
        for _ in range(rounds):
            for kind, job_id in (("live", live), ("ended", ended), ("missing", new_job_id())):
                began = time.perf_counter()
                with contextlib.suppress(JobNotFoundError):
                    await service.worker.owner_of(JobId(job_id))
                times[kind].append(time.perf_counter() - began)
    for kind in ("live", "ended"):
        # Half would be no difference at all; an answer from memory alone is below 0.05.
        slower = sum(a > b for a in times[kind] for b in times["missing"]) / rounds**2
        medians = {name: statistics.median(values) for name, values in times.items()}
        assert 0.2 < slower < 0.8, (kind, medians)


async def test_what_is_no_job_id_is_not_found(place: ServicePlace) -> None:
    async with place.open() as service, service.client("admin") as admin:
        for text in ("", "../" * 5, "0" * (JOB_ID_CHARS + 1), "U" * JOB_ID_CHARS, "x" * 100_000):
            with refused() as refusal:
                await call(admin, "GetJob", text)
            assert refusal.code == "NOT_FOUND"
    assert "U" not in JOB_ID_ALPHABET
    assert all("job" not in line for line in service.audit.lines)


async def test_lists_and_watches_show_only_what_one_may_see(place: ServicePlace) -> None:
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("bob") as bob,
        service.client("admin") as admin,
    ):
        jobs = {
            owner: (await start(client, "exec sleep 60")).id
            for owner, client in (("alice", alice), ("bob", bob))
        }
        for client, visible in ((alice, {"alice"}), (bob, {"bob"}), (admin, {"alice", "bob"})):
            listed = await client.ListJobs(pb.ListJobsRequest())
            assert {job.id for job in listed.jobs} == {jobs[owner] for owner in visible}
            assert await _watched(client) == {jobs[owner] for owner in visible}
        only_bob = pb.JobFilter(owner="bob")
        assert [job.id for job in (await admin.ListJobs(pb.ListJobsRequest(filter=only_bob))).jobs]
        with refused() as refusal:
            await alice.ListJobs(pb.ListJobsRequest(filter=only_bob))
        assert str(refusal.error) == "cannot list jobs of bob: the role user sees only its own"
        with refused() as refusal:
            async for _ in alice.WatchJobs(pb.WatchJobsRequest(filter=only_bob)):
                pass
        assert refusal.code == "PERMISSION_DENIED"


async def _watched(client: JobWorkerStub) -> set[str]:
    """Jobs before the first sign of life."""
    found: set[str] = set()
    async for message in client.WatchJobs(pb.WatchJobsRequest()):
        if not message.HasField("job"):
            return found
        found.add(message.job.id)
    raise AssertionError


@pytest.mark.parametrize(
    "limits",
    [
        pb.Limits(tasks=10),
        pb.Limits(cpu_millis=0),
        # A limit that only a newer client knows.
        pb.Limits.FromString(b"\x98\x06\x01"),
    ],
    ids=["good", "out of range", "unknown"],
)
async def test_a_standard_user_sets_no_limits(place: ServicePlace, limits: pb.Limits) -> None:
    async with place.open() as service, service.client("alice") as alice:
        with refused() as refusal:
            await alice.StartJob(pb.StartJobRequest(spec=sh("true", limits=limits)))
        assert refusal.code == "PERMISSION_DENIED"
        assert str(refusal.error).startswith("cannot start a job with limits of its own")
        assert not (await alice.ListJobs(pb.ListJobsRequest())).jobs


async def test_each_role_has_its_policy(place: ServicePlace) -> None:
    place = place.with_policy(Role.USER, JobPolicy(limits=Limits(tasks=33), max_running_jobs=1))
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("admin") as admin,
    ):
        job = await start(alice, "exec sleep 60")
        assert job.limits == pb.Limits(tasks=33)
        with refused() as refusal:
            await start(alice, "true")
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert (await start(admin, "true")).limits == pb.Limits()
        assert (await start(admin, "true", limits=pb.Limits(tasks=44))).limits.tasks == 44
