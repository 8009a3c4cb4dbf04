"""Whose certificate is good, at the handshake and on every call after it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from grpc.experimental import session_cache

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from jobworker.security import pki
from jobworker.security.policy import Role
from jobworker.security.tls import channel_credentials
from support.certificates import (
    ACCEPTED_LEAVES,
    REFUSED_LEAVES,
    ClientFiles,
    Installation,
    Wanted,
    forge,
    make_installation,
    utc_now,
)
from support.service import Service, ServicePlace, refused, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

#: gRPC tells a client nothing but that the connection is gone; on a call we tell why.
REFUSED_CODES = {"UNAVAILABLE", "UNAUTHENTICATED"}


async def who_am_i(service: Service, files: ClientFiles) -> str:
    async with service.client(files) as client:
        answer = await client.WhoAmI(pb.WhoAmIRequest())
        return f"{answer.user} {answer.role}"


async def test_leaves_that_must_be_refused_are(place: ServicePlace) -> None:
    told = {}
    async with place.open() as service:
        for kind, (wanted, _) in REFUSED_LEAVES.items():
            with refused() as refusal:
                await who_am_i(service, place.installation.forged_files(wanted))
            told[kind] = (refusal.code, str(refusal.error))
    for kind, (code, message) in told.items():
        assert code in REFUSED_CODES, kind
        if code == "UNAUTHENTICATED":
            assert REFUSED_LEAVES[kind][1] in message, kind
    # Those that gRPC lets pass are ours to refuse: they must have come that far.
    passed_by_grpc = {kind for kind, (code, _) in told.items() if code == "UNAUTHENTICATED"}
    assert passed_by_grpc >= {"no extended key usage", "RSA 1024", "NUL in the common name"}


async def test_odd_leaves_that_are_in_order_are_accepted(place: ServicePlace) -> None:
    async with place.open() as service:
        for kind, wanted in ACCEPTED_LEAVES.items():
            files = place.installation.forged_files(wanted)
            assert await who_am_i(service, files) == "alice user", kind


@pytest.fixture
def other(tmp_path: Path) -> Installation:
    """An installation with the same users and another CA."""
    return make_installation(tmp_path / "other")


async def test_a_leaf_of_another_ca_is_refused(place: ServicePlace, other: Installation) -> None:
    mine = place.installation.client_files("alice")
    theirs = other.client_files("alice")
    async with place.open() as service:
        with refused() as refusal:
            forged = ClientFiles(ca=mine.ca, certificate=theirs.certificate, key=theirs.key)
            await who_am_i(service, forged)
    assert refusal.code == "UNAVAILABLE"


async def test_a_ca_of_the_same_name_is_not_the_same_ca(place: ServicePlace) -> None:
    ours = place.installation.ca
    # Another key under our CA's name: only the signature tells the leaf apart.
    impostor = pki.KeyPair(certificate=ours.certificate, key=pki.make_ca().key)
    leaf = forge(impostor, Wanted(roles=["admin"]))
    files = ClientFiles(ca=ours.certificate_pem, certificate=leaf.certificate_pem, key=leaf.key_pem)
    async with place.open() as service:
        with refused() as refusal:
            await who_am_i(service, files)
    assert refusal.code == "UNAVAILABLE"


async def test_the_server_is_checked_too(place: ServicePlace, other: Installation) -> None:
    mine = place.installation.client_files("alice")
    trusting_others = ClientFiles(
        ca=other.client_files("alice").ca, certificate=mine.certificate, key=mine.key
    )
    async with place.open() as service:
        with refused() as refusal:
            await who_am_i(service, trusting_others)
    assert refusal.code == "UNAVAILABLE"


async def test_who_am_i_tells_what_the_certificate_says(place: ServicePlace) -> None:
    async with place.open() as service, service.client("admin") as admin:
        answer = await admin.WhoAmI(pb.WhoAmIRequest())
    certificate = place.certificate("admin")
    assert (answer.user, answer.role) == ("admin", Role.ADMIN.value)
    assert answer.certificate_serial == f"{certificate.serial_number:x}"
    assert answer.certificate_not_after.ToDatetime(datetime.UTC) == certificate.not_valid_after_utc


async def test_a_revoked_certificate_is_refused_on_an_open_connection_and_on_a_new_one(
    place: ServicePlace,
) -> None:
    async with (
        place.open() as service,
        service.client("alice") as alice,
        service.client("bob") as bob,
    ):
        watching = alice.WatchJobs(pb.WatchJobsRequest())
        await anext(aiter(watching))
        place.revoke("alice")
        # The end of the open stream is the sign that the list is in force.
        with refused() as refusal:
            await drain(watching)
        assert refusal.code == "UNAUTHENTICATED"
        assert "revoked" in str(refusal.error)
        with refused() as refusal:
            await alice.WhoAmI(pb.WhoAmIRequest())
        assert refusal.code == "UNAUTHENTICATED"
        assert "revoked" in str(refusal.error)
        async with service.client("alice") as again:
            with refused() as refusal:
                await again.WhoAmI(pb.WhoAmIRequest())
        assert refusal.code == "UNAUTHENTICATED"
        assert "revoked" in str(refusal.error)
        await bob.WhoAmI(pb.WhoAmIRequest())


async def test_a_revocation_ends_an_idle_follower_and_nobody_elses(
    place: ServicePlace,
) -> None:
    # Long heartbeats: it must be the revocation that ends the stream, not the next sign of life.
    async with (
        place.open(heartbeat=60) as service,
        service.client("alice") as alice,
        service.client("admin") as admin,
    ):
        job = await start(alice, "echo ready; exec sleep 60")
        streams = [
            client.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True))
            for client in (alice, admin)
        ]
        for stream in streams:
            assert (await anext(aiter(stream))).chunk.data == b"ready\n"
        place.revoke("alice")
        with refused() as refusal:
            await drain(streams[0])
        assert "revoked" in str(refusal.error)
        await admin.StopJob(pb.StopJobRequest(job_id=job.id))
        *_, last = [message async for message in streams[1]]
        assert last.end.ending.stopped_by == "admin"


def short_lived(installation: Installation) -> ClientFiles:
    """Good for the rest of this second and two more: certificates know whole seconds only."""
    return installation.forged_files(Wanted(not_after=utc_now() + datetime.timedelta(seconds=2)))


async def test_a_stream_ends_when_its_certificate_does(place: ServicePlace) -> None:
    async with (
        place.open(heartbeat=60) as service,
        service.client(short_lived(place.installation)) as alice,
    ):
        job = await start(alice, "exec sleep 60")
        with refused() as refusal:
            await drain(alice.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True)))
        assert refusal.code == "UNAUTHENTICATED"
        assert "expired" in str(refusal.error)
        # On the connection that is still open.
        with refused() as refusal:
            await alice.WhoAmI(pb.WhoAmIRequest())
        assert "expired" in str(refusal.error)


async def test_a_resumed_session_does_not_revive_an_expired_certificate(
    place: ServicePlace,
) -> None:
    cache = session_cache.ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]  # it has none
    async with place.open(heartbeat=60) as service:
        files = short_lived(place.installation)
        async with cached_client(service, files, cache) as alice:
            with refused() as refusal:
                await drain(alice.WatchJobs(pb.WatchJobsRequest()))
            assert "expired" in str(refusal.error)
        # A full handshake is refused by gRPC, so being told why proves that this one was short.
        async with cached_client(service, files, cache) as alice:
            with refused() as refusal:
                await alice.WhoAmI(pb.WhoAmIRequest())
        assert refusal.code == "UNAUTHENTICATED"
        assert "expired" in str(refusal.error)
        with refused() as refusal:
            await who_am_i(service, files)
        assert refusal.code == "UNAVAILABLE"


async def test_a_resumed_session_does_not_revive_a_revoked_certificate(
    place: ServicePlace,
) -> None:
    cache = session_cache.ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]  # it has none
    alice_files, bob_files = map(place.installation.client_files, ("alice", "bob"))
    async with place.open(heartbeat=60) as service:
        async with cached_client(service, alice_files, cache) as alice:
            watching = alice.WatchJobs(pb.WatchJobsRequest())
            await anext(aiter(watching))
            place.revoke("alice")
            with refused() as refusal:
                await drain(watching)
            assert "revoked" in str(refusal.error)
        # A full handshake would be bob's, who may start jobs, so being told that it is revoked
        # proves that this one was short.
        async with cached_client(service, bob_files, cache) as alice:
            with refused() as refusal:
                await start(alice, "true")
        assert refusal.code == "UNAUTHENTICATED"
        assert "revoked" in str(refusal.error)
        async with service.client("admin") as admin:
            assert not (await admin.ListJobs(pb.ListJobsRequest())).jobs
        async with service.client(bob_files) as bob:
            await start(bob, "true")


async def test_a_certificate_renewed_on_disk_is_shown_to_the_next_client(
    place: ServicePlace,
) -> None:
    store = place.installation.store
    async with place.open() as service:
        before = await served_certificate(service)
        fresh = pki.issue_server(place.installation.ca, hosts=["127.0.0.1", "localhost"])
        await asyncio.to_thread(store.write_pair, "server", fresh, replace=True)
        assert await served_certificate(service) == fresh.certificate != before


async def served_certificate(service: Service) -> x509.Certificate:
    """What the server shows to whoever knocks."""
    address = (service.running.address.host, service.running.address.port)
    pem = await asyncio.to_thread(ssl.get_server_certificate, address)
    return x509.load_pem_x509_certificate(pem.encode())


async def drain(stream: AsyncIterable[object]) -> None:
    async for _ in stream:
        pass


@contextlib.asynccontextmanager
async def cached_client(
    service: Service, files: ClientFiles, cache: session_cache.SSLSessionCache
) -> AsyncIterator[JobWorkerStub]:
    """A new connection that resumes the TLS session of an earlier one."""
    credentials = channel_credentials(ca=files.ca, certificate=files.certificate, key=files.key)
    options: Any = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_session_cache", cache))
    # By name: sessions are kept by server name, and an address is none (RFC 6066, section 3).
    target = f"localhost:{service.running.address.port}"
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield JobWorkerStub(channel)  # type: ignore[no-untyped-call]  # generated
