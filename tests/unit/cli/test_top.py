"""The picture of running jobs."""

from __future__ import annotations

import datetime

from jobworker.cli import top
from jobworker.model import Job, JobId, JobSpec, JobState, Limits, Pressure, Usage, UserName

ID = JobId("0123456789abcdefghjk")


def picture(usage: Usage, before: Usage | None = None) -> dict[str, str]:
    """One job's cells by the names of the columns, four seconds after the last look."""
    now = datetime.datetime.now(datetime.UTC)
    job = Job(
        id=ID,
        owner=UserName("alice"),
        state=JobState.RUNNING,
        spec=JobSpec(argv=("ls",)),
        limits=Limits(),
        created_at=now,
        started_at=now - datetime.timedelta(seconds=1000),
        usage=usage,
    )
    looked_at = {} if before is None else {ID: before}
    header, row = top._picture([job], looked_at, elapsed_s=4.0).splitlines()
    return dict(zip(header.split(), row.split(), strict=True))


def _usage(cpu_us: int, memory_us: int, io_us: int) -> Usage:
    return Usage(
        cpu_pressure=Pressure(some_us=cpu_us),
        memory_pressure=Pressure(some_us=memory_us),
        io_pressure=Pressure(some_us=io_us),
    )


def test_pressure_is_the_share_of_the_time_since_the_last_look() -> None:
    now, before = _usage(5_200_000, 0, 1_080_000), _usage(2_000_000, 0, 1_000_000)
    assert picture(now, before)["STALL%"] == "80/0/2"


def test_pressure_of_a_job_that_is_new_is_that_of_its_life() -> None:
    assert picture(_usage(500_000_000, 0, 0))["STALL%"] == "50/0/0"


def test_what_no_kernel_keeps_is_a_dash() -> None:
    assert picture(Usage())["STALL%"] == "-"
