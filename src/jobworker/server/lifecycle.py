"""From a configuration to a service that listens, and back in order.

Owns: what is opened before what, and the graceful end: health answers NOT_SERVING, no new calls,
streams are told that the service goes down, calls under way have a moment to finish, the audit log
is written out.  Not the worker, whose jobs outlive all of this.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

# Neither package has type information.
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from jobworker.security.identity import Authenticator
from jobworker.security.server_credentials import ServerFiles, server_credentials
from jobworker.security.trust import TrustStore
from jobworker.security.watch import watch_trust
from jobworker.server.audit import AuditLog, open_audit_log
from jobworker.server.config import Config
from jobworker.server.config_reader import Address
from jobworker.server.health import HealthService
from jobworker.server.interceptors import Gate
from jobworker.server.service import SERVICE, JobWorkerService, ServiceSettings, service_handler
from jobworker.server.streams import OpenStreams, StreamBounds
from jobworker.server.transport import listen, make_server
from jobworker.worker import Worker

#: For calls that are under way when the service goes down; starting a job takes far less.
_GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """A service that listens."""

    address: Address
    """With the real port."""
    metrics_address: Address | None
    """The same of the metrics, if there are any."""
    audit: AuditLog
    look: asyncio.Event
    """Set: the trust files are looked at."""

    def reload(self) -> None:
        """Look at the trust files, and go on in the audit file that has the name now.

        The server's own certificate is looked at before each handshake anyway.
        """
        self.look.set()
        self.audit.reopen()


@contextlib.asynccontextmanager
async def open_service(config: Config, worker: Worker) -> AsyncIterator[RunningService]:
    """Serve a worker until the block is left.

    Raises FailedPreconditionError for files and addresses that cannot be used.
    """
    trust = await asyncio.to_thread(TrustStore, ca_file=config.tls.ca, crl_file=config.tls.crl)
    authenticator = Authenticator(trust)
    bounds = StreamBounds(
        total=config.server.max_streams, per_user=config.server.max_streams_per_user
    )
    streams = OpenStreams(bounds, authenticator)
    look = asyncio.Event()
    async with (
        open_audit_log(config.audit.file) as audit,
        _open_metrics(config.server.metrics, worker, streams) as (on_end, metrics_address),
        asyncio.TaskGroup() as tasks,
    ):
        server = make_server(
            interceptors=[Gate(authenticator, streams, audit, on_end)],
            max_connections=config.server.max_connections,
            max_streams=config.server.max_streams,
        )
        health = _add_services(server, config, worker, streams)
        port = listen(server, config.server.listen, await asyncio.to_thread(_credentials, config))
        watching = tasks.create_task(_end_revoked(trust, streams, look))
        await server.start()
        try:
            address = Address(config.server.listen.host, port)
            yield RunningService(
                address=address, metrics_address=metrics_address, audit=audit, look=look
            )
        finally:
            health.end()
            streams.close()
            await server.stop(_GRACE_S)
            watching.cancel()


@contextlib.asynccontextmanager
async def _open_metrics(
    address: Address | None, worker: Worker, streams: OpenStreams
) -> AsyncIterator[tuple[Callable[[str, str, float], None], Address | None]]:
    """What is to hear of each call that has ended, and where the figures are."""
    if address is None:
        yield lambda _method, _code, _seconds: None, None
        return
    # 2 MB and 30 ms that only those pay who want it.
    from jobworker.server.metrics import Metrics, serving_metrics  # noqa: PLC0415 -- see above

    metrics = Metrics(worker, streams.count)
    async with serving_metrics(metrics, address) as real_address:
        yield metrics.count_call, real_address


def _add_services(
    server: grpc.aio.Server, config: Config, worker: Worker, streams: OpenStreams
) -> HealthService:
    """Ours, health and reflection; all of them pass the gate."""
    settings = ServiceSettings(policies=config.policies, heartbeat_s=float(config.server.heartbeat))
    service = JobWorkerService(worker, settings, streams)
    server.add_generic_rpc_handlers((service_handler(service),))
    health = HealthService(SERVICE.full_name)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (SERVICE.full_name, HEALTH_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return health


async def _end_revoked(trust: TrustStore, streams: OpenStreams, look: asyncio.Event) -> None:
    """After each change of the trust files, end the streams that they no longer allow."""
    async with contextlib.aclosing(watch_trust(trust, changed=look)) as changes:
        async for _ in changes:
            streams.recheck()


def _credentials(config: Config) -> grpc.ServerCredentials:
    return server_credentials(
        ServerFiles(certificate=config.tls.cert, key=config.tls.key, client_ca=config.tls.ca)
    )
