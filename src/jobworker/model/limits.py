"""What one job may use: asked for, and what the host made of it."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Final

from jobworker.errors import InvalidLimitError


class Resource(enum.Enum):
    """One limit each; the values are the field names of ``Limits``."""

    CPU = "cpu_millis"
    MEMORY = "memory_bytes"
    TASKS = "tasks"
    IO_READ_BYTES = "io_read_bytes_per_s"
    IO_WRITE_BYTES = "io_write_bytes_per_s"
    IO_READ_OPS = "io_read_ops_per_s"
    IO_WRITE_OPS = "io_write_ops_per_s"


IO_RESOURCES: Final = (
    Resource.IO_READ_BYTES,
    Resource.IO_WRITE_BYTES,
    Resource.IO_READ_OPS,
    Resource.IO_WRITE_OPS,
)

#: The kernel refuses a CPU quota below 1 ms ("sched-bwc.rst", Management); with our 100 ms period
#: that is one hundredth of a CPU.
CPU_MILLIS_MIN: Final = 10
#: More CPUs than Linux can be built for (CONFIG_NR_CPUS, 8192 on x86-64).
CPU_MILLIS_MAX: Final = 8192 * 1000
#: Less than this cannot hold the pages of any program's start.
MEMORY_BYTES_MIN: Final = 1024 * 1024
#: One, or the job could not be.  The most is the kernel's PID_MAX_LIMIT ("threads.h").
TASKS_MIN: Final = 1
TASKS_MAX: Final = 4 * 1024 * 1024
#: One page a second: below that a single request would take longer than its writer's patience.
IO_BYTES_MIN: Final = 4096
IO_OPS_MIN: Final = 2
#: Above 2**62 the kernel's own arithmetic on limits is at its end.
_AMOUNT_MAX: Final = 1 << 62

_RANGES: Final[dict[str, tuple[int, int]]] = {
    "cpu_millis": (CPU_MILLIS_MIN, CPU_MILLIS_MAX),
    "memory_bytes": (MEMORY_BYTES_MIN, _AMOUNT_MAX),
    "tasks": (TASKS_MIN, TASKS_MAX),
    "io_read_bytes_per_s": (IO_BYTES_MIN, _AMOUNT_MAX),
    "io_write_bytes_per_s": (IO_BYTES_MIN, _AMOUNT_MAX),
    # The v2 file refuses 1; the v1 files hold 32 bits, all of them set for "no limit" (block,
    # blk-throttle.c).
    "io_read_ops_per_s": (IO_OPS_MIN, (1 << 32) - 2),
    "io_write_ops_per_s": (IO_OPS_MIN, (1 << 32) - 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one job may use; ``None`` leaves that resource to the policy, or unlimited."""

    cpu_millis: int | None = None
    """CPU time per wall time in thousandths: 1500 is one and a half CPUs."""
    memory_bytes: int | None = None
    """Memory of the job's processes with their page cache, swap included."""
    tasks: int | None = None
    """Processes and threads at one time."""
    io_read_bytes_per_s: int | None = None
    """Per whole block device, as the other three."""
    io_write_bytes_per_s: int | None = None
    io_read_ops_per_s: int | None = None
    io_write_ops_per_s: int | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not least <= value <= most:
                raise InvalidLimitError(f"limits.{name}", value, f"it takes {least} to {most}")

    def get(self, resource: Resource) -> int | None:
        """The limit of one resource."""
        value: int | None = getattr(self, resource.value)
        return value

    def or_else(self, default: Limits) -> Limits:
        """These limits, and where they say nothing those of ``default``."""
        own = {resource.value: self.get(resource) for resource in Resource}
        rest = {resource.value: default.get(resource) for resource in Resource}
        return Limits(
            **{name: rest[name] if value is None else value for name, value in own.items()}
        )

    def only(self, named: Limits) -> Limits:
        """Of these limits those of the resources that ``named`` limits."""
        wanted = [one.value for one in Resource if named.get(one) is not None]
        return Limits(**{name: getattr(self, name) for name in wanted})

    @property
    def is_empty(self) -> bool:
        """Is nothing limited?"""
        return all(value is None for value in dataclasses.astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimit:
    """What the host made of one limit: read back from the kernel, not what was written to it."""

    resource: Resource
    requested: int
    effective: int | None = None
    """In the unit of the request; ``None`` where the host does not keep it."""
    device: str = ""
    """For IO: the disk, ``"8:0 sda"``; one record per device."""
    note: str = ""
    """Why it is not kept, or where it has holes: a sentence for people."""

    @property
    def is_enforced(self) -> bool:
        """Does the kernel hold the job to it?"""
        return self.effective is not None
