"""What a job has used, and what it has written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """For how long processes of a job stood still for want of one resource, in microseconds.

    Source: Linux Documentation/accounting/psi.rst.
    """

    some_us: int
    """At least one waited."""
    full_us: int | None = None
    """All that were not idle waited at once; of the CPU only since Linux 5.13."""


class Pressures(TypedDict, total=False):
    """Those fields of ``Usage``; left out where they are not kept."""

    cpu_pressure: Pressure
    memory_pressure: Pressure
    io_pressure: Pressure


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Read from the job's cgroup; ``None`` where this host does not count it."""

    cpu_seconds: float | None = None
    cpu_throttled_seconds: float | None = None
    memory_bytes: int | None = None
    """At the time of reading."""
    memory_peak_bytes: int | None = None
    tasks: int | None = None
    """Processes and threads at the time of reading."""
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    io_read_ops: int | None = None
    io_write_ops: int | None = None
    oom_kills: int | None = None
    """Processes of the job that the kernel killed for want of memory."""
    tasks_refused: int | None = None
    """Forks that the task limit refused."""
    cpu_pressure: Pressure | None = None
    """A CPU limit that holds the job back counts as well as a busy host."""
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTotals:
    """Bytes of output: kept ones by stream, and what the output limit discarded."""

    stdout_bytes: int = 0
    stderr_bytes: int = 0
    dropped_bytes: int = 0
    """Written by the job after its output limit was reached, and not kept."""

    @property
    def kept_bytes(self) -> int:
        """The size of the output log: where a reader's offsets end."""
        return self.stdout_bytes + self.stderr_bytes
