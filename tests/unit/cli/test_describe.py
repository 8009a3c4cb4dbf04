"""A job in words and as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import pytest

from jobworker.cli.describe import ending_cell, job_json, limit_rows, state_cell, status_fields
from jobworker.cli.render import Cell
from jobworker.model import (
    EffectiveLimit,
    Ending,
    EndReason,
    Job,
    JobId,
    JobSpec,
    JobState,
    LimitChange,
    Limits,
    OutputTotals,
    Pressure,
    Resource,
    Usage,
    UserName,
)

NOW = datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.UTC)


def job(**fields: Any) -> Job:
    made = Job(
        id=JobId("0123456789abcdefghjk"),
        owner=UserName("alice"),
        state=JobState.RUNNING,
        spec=JobSpec(argv=("ls",)),
        limits=Limits(),
        created_at=NOW,
    )
    return dataclasses.replace(made, **fields)


def test_the_json_has_every_key_and_null_for_what_is_unknown() -> None:
    shown = json.loads(json.dumps(job_json(job())))
    assert set(shown) >= {
        "id", "owner", "state", "name", "argv", "env", "cwd", "timeout_s", "labels", "created_at",
        "started_at", "ended_at", "ending", "limits", "usage", "output", "conditions",
    }  # fmt: skip
    assert shown["state"] == "RUNNING"
    assert shown["created_at"] == "2026-11-24T10:00:00.000000Z"
    unknown = [shown[key] for key in ("started_at", "ended_at", "ending", "cwd", "timeout_s")]
    assert unknown == [None] * 5
    assert set(shown["usage"].values()) == {None}
    assert set(shown["limits"]["requested"].values()) == {None}


def test_an_ended_job_is_told_with_what_its_ending_counted() -> None:
    ending = Ending(
        reason=EndReason.EXITED,
        exit_code=3,
        usage=Usage(cpu_seconds=1.5),
        output=OutputTotals(stdout_bytes=2, stderr_bytes=3, dropped_bytes=4),
    )
    shown = job_json(job(state=JobState.ENDED, ended_at=NOW, ending=ending))
    assert shown["usage"]["cpu_seconds"] == 1.5
    assert shown["output"] == {
        "bytes": 5, "stdout_bytes": 2, "stderr_bytes": 3, "dropped_bytes": 4,
    }  # fmt: skip
    assert (shown["ending"]["reason"], shown["ending"]["stopped_by"]) == ("EXITED", None)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending(reason=EndReason.EXITED, exit_code=3), "EXITED 3"),
        (Ending(reason=EndReason.SIGNALED, signal=11), "SIGNALED SIGSEGV"),
        (Ending(reason=EndReason.SIGNALED, signal=40), "SIGNALED 40"),
        (Ending(reason=EndReason.STOPPED, signal=15), "STOPPED"),
        (Ending(reason=EndReason.OOM_KILLED, signal=9), "OOM_KILLED"),
        (Ending(reason=EndReason.LOST), "LOST"),
    ],
)
def test_an_ending_in_a_word_or_two(ending: Ending, words: str) -> None:
    assert ending_cell(ending) == words
    assert state_cell(job(state=JobState.ENDED, ending=ending)) == words


def test_nothing_of_a_job_reaches_the_terminal_raw() -> None:
    evil = "\x1b[2J\n"
    spec = JobSpec(argv=("ls", evil), env={"A": evil}, labels={"k": "v"}, cwd="/a" + evil)
    ending = Ending(reason=EndReason.LOST, message=evil)
    shown = job(spec=spec, state=JobState.ENDED, ending=ending, conditions=(evil,))
    assert all(text.isprintable() for _, text in status_fields(shown, now=NOW))


def test_limits_that_are_not_kept_are_told_in_red_with_the_reason() -> None:
    limits = Limits(cpu_millis=500, memory_bytes=1 << 30, tasks=9)
    effective = (
        EffectiveLimit(resource=Resource.CPU, requested=500, effective=490),
        EffectiveLimit(resource=Resource.MEMORY, requested=1 << 30, note="no memory controller"),
    )
    cpu, memory, tasks = limit_rows(job(limits=limits, effective=effective))
    assert cpu == ("CPU", "0.5", "0.49", "-", "")
    assert memory == ("memory", "1G", "not enforced", "-", "no memory controller")
    assert isinstance(memory[2], Cell)
    assert memory[2].colour == "red"
    assert tasks == ("processes", "9", "-", "-", "")


def _change(**fields: Any) -> LimitChange:
    made = LimitChange(
        changed_at=NOW - datetime.timedelta(minutes=5),
        changed_by=UserName("root"),
        before=Limits(memory_bytes=256 << 20),
        after=Limits(memory_bytes=128 << 20, tasks=20),
    )
    return dataclasses.replace(made, **fields)


def _told_changes(shown: Job) -> list[str]:
    return [text for name, text in status_fields(shown, now=NOW) if name == "Limit change"]


def test_a_change_of_limits_is_one_line() -> None:
    disk = EffectiveLimit(resource=Resource.IO_READ_BYTES, requested=1 << 20, note="no such file")
    effective = (
        EffectiveLimit(resource=Resource.MEMORY, requested=128 << 20, effective=128 << 20),
        EffectiveLimit(resource=Resource.TASKS, requested=20, effective=19),
        dataclasses.replace(disk, device="8:0 sda"),
        dataclasses.replace(disk, device="8:16 sdb", effective=1 << 20),
    )
    after = Limits(memory_bytes=128 << 20, tasks=20, io_read_bytes_per_s=1 << 20)
    (line,) = _told_changes(job(limit_changes=(_change(after=after, effective=effective),)))
    assert line == (
        "2026-11-24T09:55:00.000000Z (5m ago) by root: memory 256M to 128M, "
        "processes none to 20 (in force 19), "
        "disk read none to 1M/s (not enforced on 8:0 sda: no such file)"
    )


def test_changes_that_are_not_kept_are_counted_and_an_unknown_outcome_is_told() -> None:
    shown = job(limit_changes=(_change(outcome_unknown=True),), limit_changes_dropped=3)
    older, unknown = _told_changes(shown)
    assert older == "3 older ones are not kept"
    assert unknown.endswith("; whether the kernel was told is not known")


def test_the_json_of_a_change_names_what_it_changed_and_no_more() -> None:
    shown = json.loads(json.dumps(job_json(job(limit_changes=(_change(),)))))["limits"]
    (change,) = shown["changes"]
    assert change["before"] == {"memory_bytes": 256 << 20, "tasks": None}
    assert change["after"] == {"memory_bytes": 128 << 20, "tasks": 20}
    assert (change["changed_at"], change["changed_by"]) == ("2026-11-24T09:55:00.000000Z", "root")
    assert (change["effective"], change["outcome_unknown"]) == ([], False)
    assert shown["changes_dropped"] == 0


def test_what_a_job_stood_still_for_is_told_unless_it_is_nothing() -> None:
    usage = Usage(cpu_pressure=Pressure(some_us=1_600_000), io_pressure=Pressure(some_us=999))
    told = dict(status_fields(job(usage=usage), now=NOW))
    assert told["Usage"] == "stood still for CPU 1.6s"
    shown = job_json(job(usage=usage))["usage"]
    assert shown["cpu_pressure"] == {"some_us": 1_600_000, "full_us": None}
    assert (shown["io_pressure"]["some_us"], shown["memory_pressure"]) == (999, None)
