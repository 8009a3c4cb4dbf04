"""What the records in a job's directory prove.

Plain calls that read and never wait for anything but the disk; run them in a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec

from jobworker.errors import DataLossError, errno_text
from jobworker.jobs.directories import StateDirectory
from jobworker.jobs.shortage import is_shortage
from jobworker.kernel.process import ProcessName
from jobworker.model.ending import Ending
from jobworker.model.ids import JobId
from jobworker.model.job import Job, LimitChange
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.usage import OutputTotals
from jobworker.output.reader import LogReader
from jobworker.shim import records
from jobworker.shim.order import Order
from jobworker.shim.shim import FAULT_FILE

T = TypeVar("T")

#: The kernel gives out no larger ones: proc_sys_kernel(5), pid_max.
_PID_MAX: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """started.json."""

    at: datetime.datetime
    effective: tuple[EffectiveLimit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """exit.json."""

    at: datetime.datetime
    ending: Ending
    refusal: dict[str, Any] | None
    """Why the command was not executed: see ``jobworker.shim.refusal``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedLimits:
    """limits.json: those fields of a ``Job`` that a change of limits changes."""

    limits: Limits
    effective: tuple[EffectiveLimit, ...]
    limit_changes: tuple[LimitChange, ...]
    limit_changes_dropped: int

    @classmethod
    def of(cls, job: Job) -> ChangedLimits:
        return cls(**{name: getattr(job, name) for name in _CHANGED})

    def applied_to(self, job: Job) -> Job:
        return replace(job, **{name: getattr(self, name) for name in _CHANGED})

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


_CHANGED: Final = tuple(field.name for field in dataclasses.fields(ChangedLimits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one job.  ``None``: that record does not exist."""

    order: Order | None = None
    shim: ProcessName | None = None
    started: Started | None = None
    has_stop: bool = False
    limits: ChangedLimits | None = None
    ended: Ended | None = None
    damage: str = ""
    """What of it can't be read."""
    has_directory: bool = True


def read_evidence(directories: StateDirectory, job_id: JobId) -> Evidence:
    """What the records say now.  A damaged one counts as missing and is told.

    Raises OSError for want of descriptors or memory: that is no damage.
    """
    try:
        with directories.open_job(job_id) as directory:
            return _read(directory)
    except FileNotFoundError:
        return Evidence(damage="its directory is gone", has_directory=False)
    except OSError as error:
        if is_shortage(error):
            raise
        why = errno_text(error.errno or 0)
        return Evidence(damage=f"its directory cannot be read: {why}")


def read_started(record: dict[str, Any]) -> Started:
    """From started.json or the shim's answer."""
    limits = msgspec.convert(record["effective"], tuple[EffectiveLimit, ...])
    return Started(at=_time(record["started_at_us"]), effective=limits)


def read_fault(directories: StateDirectory, job_id: JobId) -> str:
    """The last line that a failing shim left; "" if it left none."""
    with contextlib.suppress(OSError):
        text = (directories.job(job_id) / FAULT_FILE).read_text("utf-8", "replace")
        return text.strip().rpartition("\n")[2]
    return ""


def count_output(directories: StateDirectory, job_id: JobId) -> OutputTotals:
    """From the log itself; nothing if there is none that can be read.  As ``read_evidence``."""
    try:
        with directories.open_job(job_id) as directory, LogReader(directory) as log:
            return log.totals()
    except OSError as error:
        if is_shortage(error):
            raise
        return OutputTotals()


def _read(directory: int) -> Evidence:
    damage: list[str] = []

    def take(name: str, parse: Callable[[dict[str, Any]], T]) -> T | None:
        """Each by itself: a damaged one hides none of the others."""
        try:
            record = records.read(directory, name)
            return None if record is None else parse(record)
        except (DataLossError, OSError) as error:
            if is_shortage(error):
                raise
            damage.append(str(error))
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            damage.append(f"{name} is damaged: {error!r}")
        return None

    return Evidence(
        order=take(records.SPEC, lambda record: Order.from_json(record["order"])),
        shim=take(records.SHIM, _process),
        started=take(records.STARTED, read_started),
        has_stop=take(records.STOP, bool) or False,
        limits=take(records.LIMITS, lambda record: msgspec.convert(record, ChangedLimits)),
        ended=take(records.EXIT, _ended),
        damage="; ".join(damage),
    )


def _process(record: dict[str, Any]) -> ProcessName:
    name = msgspec.convert(record, ProcessName)
    if not 0 < name.pid <= _PID_MAX:
        raise ValueError(f"no process has the number {name.pid}")
    return name


def _ended(record: dict[str, Any]) -> Ended:
    return Ended(
        at=_time(record["ended_at_us"]),
        ending=msgspec.convert(record["ending"], Ending),
        refusal=record["refusal"],
    )


def _time(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(microseconds / 1e6, datetime.UTC)
