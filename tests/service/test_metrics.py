"""What Prometheus reads: the figures are those of what was done, and tell of nobody."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobworker import __version__
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import FailedPreconditionError
from jobworker.server.config_reader import Address
from support.service import LOOPBACK, Service, ServicePlace, output, refused, start

pytestmark = pytest.mark.anyio

ANY_PORT = Address(LOOPBACK, 0)


def _get(service: Service) -> str:
    with urllib.request.urlopen(f"http://{service.running.metrics_address}/metrics") as answer:
        text: str = answer.read().decode()
        return text


async def scrape(service: Service) -> dict[str, float]:
    """Each figure by its name and its labels, as Prometheus writes them."""
    found = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(_get, service)):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def until(service: Service, name: str, value: float) -> dict[str, float]:
    """Figures of jobs come a moment after the job's clients are told."""
    async with asyncio.timeout(10):
        while (figures := await scrape(service)).get(name) != value:
            pass
    return figures


async def test_figures_are_those_of_what_was_done(place: ServicePlace) -> None:
    async with place.open(metrics=ANY_PORT) as service, service.client("alice") as client:
        figures = await scrape(service)
        assert figures["jobworker_jobs{state=running}"] == 0
        assert figures["jobworker_jobs_ended_total{reason=exited}"] == 0
        assert figures[f"jobworker_build_info{{version={__version__}}}"] == 1
        assert figures["jobworker_process_open_fds{}"] > 0

        job = await start(client, "exec sleep 60")
        figures = await until(service, "jobworker_jobs{state=running}", 1)
        assert figures["jobworker_calls_total{code=OK,method=StartJob}"] == 1
        assert figures["jobworker_call_seconds_count{method=StartJob}"] == 1
        watching = client.WatchJobs(pb.WatchJobsRequest())
        await watching.read()
        assert (await scrape(service))["jobworker_streams{}"] == 1
        watching.cancel()
        await until(service, "jobworker_calls_total{code=CANCELLED,method=WatchJobs}", 1)

        await client.StopJob(pb.StopJobRequest(job_id=job.id))
        figures = await until(service, "jobworker_jobs_ended_total{reason=stopped}", 1)
        assert figures["jobworker_jobs{state=running}"] == 0
        job = await start(client, "printf %0100d 0")
        await output(client, job.id)
        figures = await until(service, "jobworker_jobs_ended_total{reason=exited}", 1)
        assert figures["jobworker_kept_output_bytes{}"] == 100
        assert figures["jobworker_streams{}"] == 0
        # A stream lasts as long as its client likes, which is no measure of anything.
        assert "jobworker_call_seconds_count{method=StreamOutput}" not in figures


async def test_a_service_that_comes_back_knows_its_jobs(place: ServicePlace) -> None:
    async with place.open(stop_jobs=False) as service, service.client("alice") as client:
        await start(client, "exec sleep 60")
        assert service.running.metrics_address is None
    async with place.open(metrics=ANY_PORT) as service:
        await until(service, "jobworker_jobs{state=running}", 1)


async def test_they_tell_of_nobody_and_do_not_grow_with_what_callers_make_up(
    place: ServicePlace,
) -> None:
    async with place.open(metrics=ANY_PORT) as service, service.channel("alice") as channel:
        for number in range(3):
            unknown: Any = channel.unary_unary(f"/made.up/Method{number}")
            with refused():
                await unknown(b"")
        assert (await scrape(service))[
            "jobworker_calls_total{code=UNIMPLEMENTED,method=unknown}"
        ] == 3
        text = await asyncio.to_thread(_get, service)
        assert "alice" not in text
        assert "Method" not in text


async def test_an_address_that_is_taken_is_named(place: ServicePlace) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = Address(LOOPBACK, taken.getsockname()[1])
        with pytest.raises(FailedPreconditionError, match=f"give metrics on {address}: Address"):
            async with place.open(metrics=address):
                pass
