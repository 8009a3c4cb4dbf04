"""What comes in at the port: old protocols, no protocol, too much of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from sslyze import (  # type: ignore[attr-defined]  # re-exported, without saying so
    ClientAuthenticationCredentials,
    ScanCommand,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
)

from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.security.tls import HANDSHAKE_TIMEOUT_MS
from jobworker.server import transport
from jobworker.server.config_reader import Address
from support.service import LOOPBACK, Service, ServicePlace, refused, sh, start

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


def client_context(place: ServicePlace, *, newest: ssl.TLSVersion) -> ssl.SSLContext:
    """Python's own TLS client with alice's certificate."""
    store = place.installation.store
    context = ssl.create_default_context(cafile=place.installation.ca_file)
    context.load_cert_chain(store.certificate_file("alice"), store.key_file("alice"))
    context.maximum_version = newest
    context.set_alpn_protocols(["h2"])
    return context


def shake_hands(service: Service, context: ssl.SSLContext) -> str | None:
    """The TLS version that came about."""
    address = (LOOPBACK, service.running.address.port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.version()


async def test_tls_1_3_is_spoken_and_1_2_is_not(place: ServicePlace) -> None:
    newest = client_context(place, newest=ssl.TLSVersion.TLSv1_3)
    older = client_context(place, newest=ssl.TLSVersion.TLSv1_2)
    async with place.open() as service:
        assert await asyncio.to_thread(shake_hands, service, newest) == "TLSv1.3"
        with pytest.raises(ssl.SSLError, match="EOF"):
            await asyncio.to_thread(shake_hands, service, older)


async def test_a_scanner_finds_tls_1_3_and_its_suites_alone(place: ServicePlace) -> None:
    async with place.open() as service:
        result = await asyncio.to_thread(scan, service)
    found = result.scan_result
    assert found is not None
    versions = {
        name: {suite.cipher_suite.name for suite in attempt.result.accepted_cipher_suites}
        for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
        if (attempt := getattr(found, f"{name}_cipher_suites")).result is not None
    }
    assert versions == {
        "ssl_2_0": set(),
        "ssl_3_0": set(),
        "tls_1_0": set(),
        "tls_1_1": set(),
        "tls_1_2": set(),
        "tls_1_3": {
            "TLS_AES_128_GCM_SHA256",
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
        },
    }


def scan(service: Service) -> ServerScanResult:
    """By somebody who has a certificate: without one nothing is answered."""
    store = service.place.installation.store
    credentials = ClientAuthenticationCredentials(
        certificate_chain_path=store.certificate_file("alice"),
        key_path=store.key_file("alice"),
    )
    request = ServerScanRequest(
        server_location=ServerNetworkLocation(
            hostname="localhost", port=service.running.address.port, ip_address=LOOPBACK
        ),
        network_configuration=ServerNetworkConfiguration(
            tls_server_name_indication="localhost", tls_client_auth_credentials=credentials
        ),
        scan_commands={
            ScanCommand.SSL_2_0_CIPHER_SUITES,
            ScanCommand.SSL_3_0_CIPHER_SUITES,
            ScanCommand.TLS_1_0_CIPHER_SUITES,
            ScanCommand.TLS_1_1_CIPHER_SUITES,
            ScanCommand.TLS_1_2_CIPHER_SUITES,
            ScanCommand.TLS_1_3_CIPHER_SUITES,
        },
    )
    scanner = Scanner(per_server_concurrent_connections_limit=2)
    scanner.queue_scans([request])
    [result] = scanner.get_results()
    return result


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),  # gRPC without TLS
        bytes(4096),
        # A handshake record that announces more than ever comes.
        struct.pack("!BHH", 22, 0x0301, 16384) + b"\x01",
        b"",
    ],
    ids=["HTTP", "plaintext gRPC", "zeros", "half a record", "nothing"],
)
async def test_garbage_at_the_port_costs_nobody_else_anything(
    place: ServicePlace, data: bytes
) -> None:
    async with place.open() as service, service.client("alice") as alice:
        reader, writer = await asyncio.open_connection(LOOPBACK, service.running.address.port)
        writer.write(data)
        await writer.drain()
        await alice.WhoAmI(pb.WhoAmIRequest())
        # It is shown the door by the end of the time for a handshake.
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000 + 5):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(4096):
                    pass
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
        assert [line["user"] for line in await service.audit.wait(1)] == ["alice"]


async def test_requests_may_be_as_large_as_arguments_and_no_larger(place: ServicePlace) -> None:
    argument = "x" * (128 * 1024 - 1 - 8)
    # The kernel counts pointers too, so that this many fit and no more.
    fitting = pb.JobSpec(argv=["/bin/true", *[argument] * 14], env={"A": argument})
    async with place.open() as service, service.client("alice") as alice:
        job = (await alice.StartJob(pb.StartJobRequest(spec=fitting))).job
        assert job.spec == fitting
        too_much = pb.JobSpec(argv=["/bin/true", *[argument] * 20])
        with refused() as refusal:
            await alice.StartJob(pb.StartJobRequest(spec=too_much))
        assert refusal.code == "INVALID_ARGUMENT"
        with refused() as refusal:
            await alice.StartJob(pb.StartJobRequest(spec=sh("x" * 5_000_000)))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in str(refusal.error)
        await alice.WhoAmI(pb.WhoAmIRequest())


async def test_a_damaged_request_is_a_wrong_argument(place: ServicePlace) -> None:
    async with place.open() as service, service.channel("alice") as channel:
        for kind, method in (("unary_unary", "GetJob"), ("unary_stream", "StreamOutput")):
            call = getattr(channel, kind)(f"/jobworker.v1.JobWorker/{method}")
            with refused() as refusal:
                if kind == "unary_unary":
                    await call(b"\xff\xff\xff")
                else:
                    await anext(aiter(call(b"\xff\xff\xff")))
            assert refusal.code == "INVALID_ARGUMENT"


async def test_a_page_of_jobs_fits_into_a_message(place: ServicePlace) -> None:
    async with place.open() as service, service.client("alice") as alice:
        ids = {(await start(alice, "true #" + "x" * 120_000)).id for _ in range(40)}
        found, token = set(), ""
        while True:
            request = pb.ListJobsRequest(page_size=2000, page_token=token)
            page = await alice.ListJobs(request)
            assert page.ByteSize() < 4 * 1024 * 1024
            found |= {job.id for job in page.jobs}
            token = page.next_page_token
            if not token:
                break
        assert found == ids


async def test_connections_are_bounded(place: ServicePlace) -> None:
    async with place.open(max_connections=2) as service, contextlib.AsyncExitStack() as stack:
        for name in ("alice", "bob"):
            client = await stack.enter_async_context(service.client(name))
            await client.WhoAmI(pb.WhoAmIRequest())
        one_more = await stack.enter_async_context(service.client("admin"))
        with refused() as refusal:
            await one_more.WhoAmI(pb.WhoAmIRequest())
        assert refusal.code == "UNAVAILABLE"


async def test_the_streams_of_a_client_that_fell_silent_end_and_no_longer_count(
    place: ServicePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client that is stopped, or one behind a gateway that lost it: nothing says goodbye."""
    monkeypatch.setattr(transport, "KEEPALIVE_TIME_MS", 1000)
    monkeypatch.setattr(transport, "KEEPALIVE_TIMEOUT_MS", 2000)
    watch = "/jobworker.v1.JobWorker/WatchJobs"
    # Long heartbeats: nothing is sent that could fail.
    async with (
        place.open(heartbeat=60, max_streams_per_user=1) as service,
        open_relay(service) as relay,
        relay.service.client("alice") as silent,
        service.client("alice") as alice,
    ):
        await anext(aiter(silent.WatchJobs(pb.WatchJobsRequest())))
        with refused() as refusal:
            await anext(aiter(alice.WatchJobs(pb.WatchJobsRequest())))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        relay.fall_silent()
        async with asyncio.timeout(30):
            await service.audit.wait(1, event="end", method=watch, outcome="CANCELLED")
        await anext(aiter(alice.WatchJobs(pb.WatchJobsRequest())))


@dataclass
class Relay:
    """What lies between a client and a service."""

    service: Service
    """As the client sees it."""
    passing: list[asyncio.Task[None]] = field(default_factory=list)

    def fall_silent(self) -> None:
        """Nothing gets through any more; both connections stay open."""
        for task in self.passing:
            task.cancel()


@contextlib.asynccontextmanager
async def open_relay(service: Service) -> AsyncIterator[Relay]:
    """For one connection."""
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:

        async def connect(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            address = service.running.address
            far_in, far_out = await asyncio.open_connection(address.host, address.port)
            for source, sink in ((near_in, far_out), (far_in, near_out)):
                stack.callback(sink.close)
                relay.passing.append(tasks.create_task(_pass_on(source, sink)))

        server = await asyncio.start_server(connect, LOOPBACK, 0)
        stack.callback(server.close)
        address = Address(LOOPBACK, server.sockets[0].getsockname()[1])
        running = dataclasses.replace(service.running, address=address)
        relay = Relay(dataclasses.replace(service, running=running))
        yield relay
        relay.fall_silent()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()


async def test_two_services_do_not_share_a_port(place: ServicePlace) -> None:
    # With SO_REUSEPORT, which is gRPC's default, the kernel would deal out connections to both.
    async with place.open() as service:
        with socket.socket() as second:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                second.bind((LOOPBACK, service.running.address.port))
