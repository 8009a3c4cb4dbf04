"""What a job has used, and what it has written."""

from __future__ import annotations

from dataclasses import dataclass


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
