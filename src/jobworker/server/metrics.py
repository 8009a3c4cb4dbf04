"""What an operator's Prometheus reads: jobs, calls, streams and this process, in numbers.

Owns: the names of the figures, and the address that gives them.  There is none unless the
configuration names it: it has no TLS, since those who gather figures rarely have certificates of
ours.  Nothing in them tells of a user, a command or a job's id, so whoever reaches the address
learns how many, and never whose or what.

Source: "Metric and label naming" and "Exposition formats" of the Prometheus documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from jobworker import __version__
from jobworker.errors import FailedPreconditionError, errno_text
from jobworker.model.ending import EndReason
from jobworker.model.ids import JobId
from jobworker.model.state import JobState
from jobworker.server.access import ACTIONS, STREAMS
from jobworker.server.config_reader import Address
from jobworker.worker import Worker

#: From a look-up in memory to a stop that waits for its job.
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Callers may make up as many names of methods as they like.
_UNKNOWN: Final = "unknown"
_LIVE: Final = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)

# A second series for each counter, which few look at.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the only one of them


class Metrics:
    """The figures.  Written on the event loop, read by the threads that answer scrapes."""

    def __init__(self, worker: Worker, count_streams: Callable[[], int]) -> None:
        self._worker = worker
        self._live: dict[JobId, JobState] = {}
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "jobworker_calls",
            "Calls that have ended, streams among them, by gRPC status.",
            ["method", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "jobworker_call_seconds",
            "How long calls took that are no streams.",
            ["method"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._ended = Counter(
            "jobworker_jobs_ended",
            "Jobs that have ended since the service began, by how.",
            ["reason"],
            registry=self.registry,
        )
        for reason in EndReason:
            # There from the beginning: a rate needs a zero before the first one.
            self._ended.labels(reason.value.lower())
        self._observe(count_streams)
        ProcessCollector(namespace="jobworker", registry=self.registry)

    def count_call(self, method: str, code: str, seconds: float) -> None:
        """One that has ended."""
        name = method.rpartition("/")[2] if method in ACTIONS else _UNKNOWN
        self._calls.labels(name, code).inc()
        if method not in STREAMS:
            self._seconds.labels(name).observe(seconds)

    async def watch_jobs(self) -> None:
        """Count jobs as they come and end, until cancelled."""
        async with contextlib.aclosing(self._worker.watch()) as changes:
            async for job in changes:
                if job is None:
                    continue
                if job.ending is None:
                    self._live[job.id] = job.state
                else:
                    self._live.pop(job.id, None)
                    self._ended.labels(job.ending.reason.value.lower()).inc()

    def _observe(self, count_streams: Callable[[], int]) -> None:
        """Figures that are looked up when they are asked for."""
        jobs = Gauge("jobworker_jobs", "Jobs now, by state.", ["state"], registry=self.registry)
        for state in _LIVE:
            jobs.labels(state.value.lower()).set_function(functools.partial(self._count, state))
        streams = Gauge(
            "jobworker_streams", "Open streams and waiting stops.", registry=self.registry
        )
        streams.set_function(count_streams)
        kept = Gauge("jobworker_kept_output_bytes", "Output of ended jobs.", registry=self.registry)
        kept.set_function(self._worker.kept_bytes)
        build = Gauge("jobworker_build_info", "Always 1.", ["version"], registry=self.registry)
        build.labels(__version__).set(1)

    def _count(self, state: JobState) -> int:
        # A copy: the event loop goes on meanwhile.
        return list(self._live.values()).count(state)


@contextlib.asynccontextmanager
async def serving_metrics(metrics: Metrics, address: Address) -> AsyncIterator[Address]:
    """Answer scrapes over HTTP until the block is left; gives the address with its real port.

    Raises FailedPreconditionError if it cannot be listened on.
    """
    try:
        server, thread = start_http_server(address.port, address.host, metrics.registry)
    except OSError as error:
        why = errno_text(error.errno) if error.errno else str(error)
        raise FailedPreconditionError(f"give metrics on {address}", why) from error
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(metrics.watch_jobs())
        try:
            yield Address(address.host, server.server_port)
        finally:
            watching.cancel()
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            await asyncio.to_thread(thread.join)
