"""The whole service for tests: a real worker, a real server, real clients over mutual TLS.

Owns: how a test opens them and how it reads the audit log.  Open the service in the test's body
(``async with``): tasks of an asynchronous fixture would not be those of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from cryptography import x509

from jobworker.api.status import DETAILS_KEY, from_rpc_error
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.api.v1.job_worker_pb2_grpc import JobWorkerStub
from jobworker.errors import JobWorkerError
from jobworker.model.ids import UserName
from jobworker.model.policy import JobPolicy
from jobworker.security.policy import Role
from jobworker.security.tls import channel_credentials
from jobworker.server.config import (
    AuditSection,
    Config,
    ServerSection,
    TlsSection,
    WorkerSection,
)
from jobworker.server.config_reader import Address, Seconds
from jobworker.server.lifecycle import RunningService, open_service
from jobworker.worker import Worker, open_worker
from support.certificates import ClientFiles, Installation

LOOPBACK: Final = "127.0.0.1"
SERVICE: Final = pb.DESCRIPTOR.services_by_name["JobWorker"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that listens on loopback."""

    running: RunningService
    worker: Worker
    place: ServicePlace
    audit: AuditTail

    @property
    def target(self) -> str:
        return f"{LOOPBACK}:{self.running.address.port}"

    @contextlib.asynccontextmanager
    async def channel(self, who: str | ClientFiles) -> AsyncIterator[grpc.aio.Channel]:
        """A connection as a user of the installation, or with any other certificate."""
        files = self.place.installation.client_files(who) if isinstance(who, str) else who
        credentials = channel_credentials(ca=files.ca, certificate=files.certificate, key=files.key)
        # Each client of a test is one of its own, with its own connection.
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(self.target, credentials, options=options) as channel:
            yield channel

    @contextlib.asynccontextmanager
    async def client(self, who: str | ClientFiles) -> AsyncIterator[JobWorkerStub]:
        async with self.channel(who) as channel:
            yield JobWorkerStub(channel)  # type: ignore[no-untyped-call]  # generated


class AuditTail:
    """Reads the audit log as it is written: the service has a named pipe for its file."""

    def __init__(self, fifo: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._rest = b""
        self._changed = asyncio.Event()
        os.mkfifo(fifo)
        # Also for writing, so that it does not end before there is a service.
        self._fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self.read)

    def close(self) -> None:
        self.read()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
                self.lines += map(json.loads, lines)
                self._changed.set()

    async def wait(self, count: int, **entries: str) -> list[dict[str, Any]]:
        """The lines with these entries, as soon as there are so many."""
        while True:
            self._changed.clear()
            found = [line for line in self.lines if entries.items() <= line.items()]
            if len(found) >= count:
                return found
            await self._changed.wait()


@dataclass(frozen=True, kw_only=True)
class ServicePlace:
    """Where one test has its services: one after the other on the same state directory."""

    state_dir: Path
    installation: Installation
    cgroup_name: str
    audit_fifo: Path
    policies: Mapping[Role, JobPolicy] = field(
        default_factory=lambda: dict.fromkeys(Role, JobPolicy())
    )

    def config(self, **server: Any) -> Config:
        store = self.installation.store
        return Config(
            server=ServerSection(
                **{
                    "listen": Address(LOOPBACK, 0),
                    "state_dir": self.state_dir,
                    "heartbeat": Seconds(0.2),
                    **server,
                }
            ),
            tls=TlsSection(
                ca=self.installation.ca_file,
                cert=store.certificate_file("server"),
                key=store.key_file("server"),
                crl=store.crl_file,
            ),
            policies=self.policies,
            worker=WorkerSection(cgroup_parent=self.cgroup_name),
            audit=AuditSection(file=self.audit_fifo),
        )

    def certificate(self, name: str) -> x509.Certificate:
        return self.installation.store.read_pair(name).certificate

    def revoke(self, name: str) -> None:
        self.installation.revoke(self.certificate(name))

    @contextlib.asynccontextmanager
    async def open(self, *, stop_jobs: bool = True, **server: Any) -> AsyncIterator[Service]:
        """server: values of the configuration's section."""
        config = self.config(**server)
        self.audit_fifo.unlink(missing_ok=True)
        with contextlib.closing(AuditTail(self.audit_fifo)) as audit:
            async with open_worker(self.state_dir, config.worker.to_settings()) as worker:
                try:
                    async with open_service(config, worker) as running:
                        yield Service(running=running, worker=worker, place=self, audit=audit)
                finally:
                    if stop_jobs:
                        await worker.stop_all(stopped_by=UserName("the.test"), grace_s=0)

    def with_policy(self, role: Role, policy: JobPolicy) -> ServicePlace:
        return dataclasses.replace(self, policies={**self.policies, role: policy})


def sh(script: str, **spec: Any) -> pb.JobSpec:
    return pb.JobSpec(argv=["/bin/sh", "-c", script], **spec)


async def start(client: JobWorkerStub, script: str, **spec: Any) -> pb.Job:
    answer = await client.StartJob(pb.StartJobRequest(spec=sh(script, **spec)))
    job: pb.Job = answer.job
    return job


async def output(client: JobWorkerStub, job_id: str, **request: Any) -> bytes:
    """All of it, to the end message."""
    request.setdefault("follow", True)
    data, is_ended = b"", False
    async for message in client.StreamOutput(pb.StreamOutputRequest(job_id=job_id, **request)):
        assert not is_ended, "something came after the end"
        data += message.chunk.data
        is_ended = message.HasField("end")
    assert is_ended, "the stream broke"
    return data


@dataclass
class Refusal:
    """What a client was told."""

    error: JobWorkerError | None = None
    trailing: bytes = b""
    """The serialized details."""

    @property
    def code(self) -> str:
        assert self.error is not None
        return self.error.code.value


@contextlib.contextmanager
def refused() -> Iterator[Refusal]:
    """The block must end with an RPC that fails."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.aio.AioRpcError as error:
        refusal.error = from_rpc_error(error)
        refusal.trailing = dict(error.trailing_metadata()).get(DETAILS_KEY, b"")
        return
    pytest.fail("the call was not refused")
