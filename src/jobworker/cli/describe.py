"""A job in words and as JSON.

The JSON is a promise to scripts: keys are added but never renamed or removed; what is unknown is
null; states, reasons and resources are the names of the API's enums; times are RFC 3339 in UTC.
"""

from __future__ import annotations

import dataclasses
import datetime
import signal
from collections.abc import Iterator
from typing import Any

from jobworker.cli.render import Cell, command_line, one_line, rfc3339
from jobworker.model.ending import Ending, EndReason
from jobworker.model.job import Job, LimitChange
from jobworker.model.limits import EffectiveLimit, Resource
from jobworker.model.state import JobState
from jobworker.model.units import format_bytes, format_cpus, format_duration
from jobworker.model.usage import OutputTotals, Usage

_LABELS = {
    Resource.CPU: "CPU",
    Resource.MEMORY: "memory",
    Resource.TASKS: "processes",
    Resource.IO_READ_BYTES: "disk read",
    Resource.IO_WRITE_BYTES: "disk write",
    Resource.IO_READ_OPS: "disk read operations",
    Resource.IO_WRITE_OPS: "disk write operations",
}

#: Less is what every start costs and tells nobody anything; the JSON has it.
_STALL_SHOWN_US = 1000


def job_json(job: Job) -> dict[str, Any]:
    """The whole job."""
    return {
        "id": job.id,
        "owner": job.owner,
        "state": job.state.value,
        "name": job.spec.name,
        "argv": list(job.spec.argv),
        "env": dict(job.spec.env),
        "isolation": job.isolation.value,
        "cwd": job.spec.cwd,
        "timeout_s": job.spec.timeout_s,
        "labels": dict(job.spec.labels),
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "ended_at": rfc3339(job.ended_at),
        "ending": None if job.ending is None else _ending_json(job.ending),
        "limits": {
            "requested": dataclasses.asdict(job.limits),
            "effective": [_effective_json(limit) for limit in job.effective],
            "changes": [_change_json(change) for change in job.limit_changes],
            "changes_dropped": job.limit_changes_dropped,
        },
        "usage": dataclasses.asdict(usage_of(job)),
        "output": _output_json(output_of(job)),
        "conditions": list(job.conditions),
    }


def usage_of(job: Job) -> Usage:
    """What the job uses, or has used."""
    return job.usage if job.ending is None else job.ending.usage


def output_of(job: Job) -> OutputTotals:
    """What the job has written."""
    return job.output if job.ending is None else job.ending.output


def _ending_json(ending: Ending) -> dict[str, Any]:
    return {
        "reason": ending.reason.value,
        "exit_code": ending.exit_code,
        "signal": ending.signal,
        "stopped_by": ending.stopped_by or None,
        "message": ending.message,
    }


def _effective_json(limit: EffectiveLimit) -> dict[str, Any]:
    return {
        "resource": limit.resource.name,
        "requested": limit.requested,
        "effective": limit.effective,
        "device": limit.device or None,
        "note": limit.note or None,
    }


def _change_json(change: LimitChange) -> dict[str, Any]:
    named = [one for one in Resource if change.after.get(one) is not None]
    return {
        "changed_at": rfc3339(change.changed_at),
        "changed_by": change.changed_by,
        "before": {one.value: change.before.get(one) for one in named},
        "after": {one.value: change.after.get(one) for one in named},
        "effective": [_effective_json(limit) for limit in change.effective],
        "outcome_unknown": change.outcome_unknown,
    }


def _output_json(totals: OutputTotals) -> dict[str, Any]:
    return {"bytes": totals.kept_bytes, **dataclasses.asdict(totals)}


def state_cell(job: Job) -> Cell:
    """The state, of an ended job how it ended, in one or two words."""
    if job.ending is None:
        colour = "green" if job.state is JobState.RUNNING else "yellow"
        return Cell(job.state.value, colour)
    return ending_cell(job.ending)


def ending_cell(ending: Ending) -> Cell:
    """``EXITED 3``, ``SIGNALED SIGSEGV``, ``OOM_KILLED``."""
    match ending.reason:
        case EndReason.EXITED:
            return Cell(f"EXITED {ending.exit_code}", "red" if ending.exit_code else None)
        case EndReason.SIGNALED:
            return Cell(f"SIGNALED {signal_name(ending.signal)}", "red")
        case EndReason.STOPPED:
            return Cell("STOPPED", "yellow")
        case reason:
            return Cell(reason.value, "red")


def signal_name(number: int | None) -> str:
    """``SIGKILL``; the number of one that has no name here."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return str(number)


def status_fields(job: Job, *, now: datetime.datetime) -> Iterator[tuple[str, str]]:
    """The lines of ``status``, what is empty included."""
    yield "Job", job.id
    yield "Name", one_line(job.spec.name)
    yield "Owner", one_line(job.owner)
    yield "State", _state_sentence(job)
    yield "Command", command_line(job.spec.argv)
    yield "Directory", one_line(job.spec.cwd or "")
    yield "Environment", command_line(f"{name}={text}" for name, text in job.spec.env.items())
    yield "Labels", command_line(f"{key}={text}" for key, text in job.spec.labels.items())
    yield "Created", _moment(job.created_at, now)
    yield "Started", _moment(job.started_at, now)
    yield "Ended", _moment(job.ended_at, now)
    yield "Ran for", format_duration(duration_s(job, now=now)) if job.started_at else ""
    yield "Time limit", format_duration(job.spec.timeout_s) if job.spec.timeout_s else ""
    yield "Usage", _usage_sentence(usage_of(job))
    yield "Output", _output_sentence(output_of(job))
    for condition in job.conditions:
        yield "Condition", Cell(one_line(condition), "yellow")
    if job.limit_changes_dropped:
        yield "Limit change", f"{job.limit_changes_dropped} older ones are not kept"
    for change in job.limit_changes:
        yield "Limit change", _change_sentence(change, now)


def limit_rows(job: Job) -> Iterator[tuple[str, ...]]:
    """Of each limit: what, asked for, in force, device, note."""
    told = {limit.resource for limit in job.effective}
    for limit in job.effective:
        effective = Cell("not enforced", "red")
        if limit.effective is not None:
            effective = Cell(_amount(limit.resource, limit.effective))
        yield (
            _LABELS[limit.resource],
            _amount(limit.resource, limit.requested),
            effective,
            one_line(limit.device) or "-",
            one_line(limit.note),
        )
    for resource in Resource:
        requested = job.limits.get(resource)
        if requested is not None and resource not in told:
            yield _LABELS[resource], _amount(resource, requested), "-", "-", ""


def duration_s(job: Job, *, now: datetime.datetime) -> float:
    """Seconds for which the command has run; by the clock of the service where it has ended."""
    if job.started_at is None:
        return 0.0
    return max(0.0, ((job.ended_at or now) - job.started_at).total_seconds())


def bytes_or_dash(size: int | None) -> str:
    """For a column: ``-`` for what this host does not count."""
    return "-" if size is None else format_bytes(size)


def _state_sentence(job: Job) -> Cell:
    cell = state_cell(job)
    if job.ending is None or not job.ending.message:
        return cell
    return Cell(f"{cell}: {one_line(job.ending.message)}", cell.colour)


def _moment(moment: datetime.datetime | None, now: datetime.datetime) -> str:
    if moment is None:
        return ""
    ago = max(0.0, (now - moment).total_seconds())
    return f"{rfc3339(moment)} ({format_duration(round(ago))} ago)"


def _change_sentence(change: LimitChange, now: datetime.datetime) -> str:
    """``… by root: memory 256M to 128M, processes none to 20 (not enforced: …)``."""
    parts = [_one_change(change, one) for one in Resource if change.after.get(one) is not None]
    unknown = "; whether the kernel was told is not known" if change.outcome_unknown else ""
    who = f"{_moment(change.changed_at, now)} by {one_line(change.changed_by)}"
    return f"{who}: {', '.join(parts)}{unknown}"


def _one_change(change: LimitChange, resource: Resource) -> str:
    before, after = (
        "none" if amount is None else _amount(resource, amount)
        for amount in (change.before.get(resource), change.after.get(resource))
    )
    # The note where it holds stands in the table of the limits.
    found = [limit for limit in change.effective if limit.resource is resource]
    remarks = dict.fromkeys(_outcome(limit) for limit in found)
    shown = "; ".join(filter(None, remarks))
    return f"{_LABELS[resource]} {before} to {after}{f' ({shown})' if shown else ''}"


def _outcome(limit: EffectiveLimit) -> str:
    """What differs from the request; "" if nothing does."""
    on = f" on {one_line(limit.device)}" if limit.device else ""
    if limit.effective is None:
        return f"not enforced{on}: {one_line(limit.note)}"
    if limit.effective != limit.requested:
        return f"in force {_amount(limit.resource, limit.effective)}{on}"
    return ""


def _amount(resource: Resource, amount: int) -> str:
    match resource:
        case Resource.CPU:
            return format_cpus(amount)
        case Resource.MEMORY:
            return format_bytes(amount)
        case Resource.IO_READ_BYTES | Resource.IO_WRITE_BYTES:
            return f"{format_bytes(amount)}/s"
        case Resource.IO_READ_OPS | Resource.IO_WRITE_OPS:
            return f"{amount}/s"
        case Resource.TASKS:
            return str(amount)


def _usage_sentence(usage: Usage) -> str:
    parts = []
    if usage.cpu_seconds is not None:
        parts.append(f"CPU {format_duration(usage.cpu_seconds)}")
    if usage.cpu_throttled_seconds:
        parts.append(f"held back {format_duration(usage.cpu_throttled_seconds)}")
    if usage.memory_bytes is not None:
        parts.append(f"memory {format_bytes(usage.memory_bytes)}")
    if usage.memory_peak_bytes is not None:
        parts.append(f"memory peak {format_bytes(usage.memory_peak_bytes)}")
    if usage.tasks is not None:
        parts.append(f"{usage.tasks} processes and threads")
    if usage.io_read_bytes is not None or usage.io_write_bytes is not None:
        read, written = bytes_or_dash(usage.io_read_bytes), bytes_or_dash(usage.io_write_bytes)
        parts.append(f"disk read {read}, written {written}")
    if stalls := ", ".join(_stalls(usage)):
        parts.append(f"stood still for {stalls}")
    if usage.oom_kills:
        parts.append(f"{usage.oom_kills} processes killed for want of memory")
    if usage.tasks_refused:
        parts.append(f"{usage.tasks_refused} forks refused")
    return ", ".join(parts)


def _stalls(usage: Usage) -> Iterator[str]:
    """For what some of its processes had to wait, and how long; what was no wait is left out."""
    stalls = {"CPU": usage.cpu_pressure, "memory": usage.memory_pressure, "disk": usage.io_pressure}
    for name, pressure in stalls.items():
        if pressure is not None and pressure.some_us >= _STALL_SHOWN_US:
            yield f"{name} {format_duration(pressure.some_us / 1_000_000)}"


def _output_sentence(totals: OutputTotals) -> str:
    text = f"{totals.kept_bytes} bytes ({totals.stdout_bytes} stdout, {totals.stderr_bytes} stderr)"
    return f"{text}, {totals.dropped_bytes} not kept" if totals.dropped_bytes else text
