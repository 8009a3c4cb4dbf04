"""Health, reflection, and clients that have nothing of ours but the contract."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # it has none
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # it has none
    reflection_pb2,
    reflection_pb2_grpc,
)

from support.certificates import Wanted
from support.service import SERVICE, ServicePlace, refused

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

ROOT: Final = Path(__file__).parents[2]
SERVING: Final = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("who", ["alice", "admin"])
@pytest.mark.parametrize("name", ["", SERVICE.full_name])
async def test_every_role_may_ask_for_health(place: ServicePlace, who: str, name: str) -> None:
    async with place.open() as service, service.channel(who) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == SERVING
        with refused() as refusal:
            await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
        assert refusal.code == "NOT_FOUND"


async def test_health_is_watched_until_the_shutdown(place: ServicePlace) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with place.open() as service:
            channel = await clients.enter_async_context(service.channel("alice"))
            health = health_pb2_grpc.HealthStub(channel)
            changes = aiter(health.Watch(health_pb2.HealthCheckRequest()))
            assert (await anext(changes)).status == SERVING
        assert (await anext(changes)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with refused() as refusal:
            await anext(changes)
        assert refusal.code == "UNAVAILABLE"


async def test_standard_services_take_a_good_certificate_too(place: ServicePlace) -> None:
    files = place.installation.forged_files(Wanted(usages=None))
    async with place.open() as service, service.channel(files) as channel:
        with refused() as refusal:
            health = health_pb2_grpc.HealthStub(channel)
            await health.Check(health_pb2.HealthCheckRequest())
        assert refusal.code == "UNAUTHENTICATED"
        with refused() as refusal:
            await reflected_services(channel)
        assert refusal.code == "UNAUTHENTICATED"


async def test_reflection_lists_the_services(place: ServicePlace) -> None:
    async with place.open() as service, service.channel("alice") as channel:
        assert await reflected_services(channel) == {
            SERVICE.full_name,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


async def reflected_services(channel: object) -> set[str]:
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = reflection.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await anext(aiter(call))
    await call.done_writing()
    return {service.name for service in answer.list_services_response.service}


#: A client as a stranger would write it.
STRANGER: Final = """
import sys
import grpc
import job_worker_pb2 as pb, job_worker_pb2_grpc as rpc

target, ca, certificate, key = sys.argv[1:]
read = lambda name: open(name, "rb").read()
credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
with grpc.secure_channel(target, credentials) as channel:
    stub = rpc.JobWorkerStub(channel)
    spec = pb.JobSpec(argv=["/bin/sh", "-c", "echo hello; echo oops >&2; exit 3"])
    job = stub.StartJob(pb.StartJobRequest(spec=spec)).job
    texts = {pb.OUTPUT_STREAM_STDOUT: b"", pb.OUTPUT_STREAM_STDERR: b""}
    for event in stub.StreamOutput(pb.StreamOutputRequest(job_id=job.id, follow=True)):
        if event.HasField("chunk"):
            texts[event.chunk.stream] += event.chunk.data
    assert event.HasField("end")
    print(*texts.values(), event.end.ending.exit_code)
assert not any(name.split(".")[0] == "jobworker" for name in sys.modules)
"""


async def test_a_client_made_from_the_contract_alone_works(
    place: ServicePlace, tmp_path: Path
) -> None:
    store = place.installation.store
    async with place.open() as service:
        said = await asyncio.to_thread(
            run_stranger,
            tmp_path,
            service.target,
            str(place.installation.ca_file),
            str(store.certificate_file("alice")),
            str(store.key_file("alice")),
        )
    assert said == "b'hello\\n' b'oops\\n' 3\n"


def run_stranger(folder: Path, *arguments: str) -> str:
    contract = ROOT / "proto/jobworker/v1"
    compiler = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(contract)]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([*compiler, *outputs, "job_worker.proto"], check=True, timeout=60)
    (folder / "stranger.py").write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, "stranger.py", *arguments],
        check=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.stdout
