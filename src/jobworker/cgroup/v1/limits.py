"""Limits and counters of a job in the v1 trees.

Owns: cpu.cfs_*, cpuacct.usage, memory.*, pids.*, blkio.throttle.*.  Not the directories (tree.py).
Source: Linux Documentation/admin-guide/cgroup-v1/{memory,cpuacct,pids,blkio-controller}.rst,
scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from jobworker.cgroup.interface import CgroupPlan, Verdict
from jobworker.cgroup.oom import LimitHits
from jobworker.cgroup.proof import CPU_PERIOD_US, NO_DEVICE, NO_SWAP_LIMIT, prove, unenforced
from jobworker.cgroup.v1.memory import LIMIT, LIMIT_AND_SWAP, out_of_memory, read_limit
from jobworker.kernel import kernfs
from jobworker.kernel.disks import BlockDevice, is_stacked
from jobworker.model.limits import EffectiveLimit, Limits, Resource
from jobworker.model.usage import Usage

_QUOTA: Final = "cpu.cfs_quota_us"
_PERIOD: Final = "cpu.cfs_period_us"

_FILES: Final[Mapping[Resource, tuple[str, str]]] = {
    Resource.CPU: ("cpu", _QUOTA),
    Resource.MEMORY: ("memory", LIMIT),
    Resource.TASKS: ("pids", "pids.max"),
    Resource.IO_READ_BYTES: ("blkio", "blkio.throttle.read_bps_device"),
    Resource.IO_WRITE_BYTES: ("blkio", "blkio.throttle.write_bps_device"),
    Resource.IO_READ_OPS: ("blkio", "blkio.throttle.read_iops_device"),
    Resource.IO_WRITE_OPS: ("blkio", "blkio.throttle.write_iops_device"),
}

#: "blkio-controller.rst": a page is written back by the kernel, in the root cgroup.
BUFFERED: Final = (
    "cgroup v1 throttles direct and synchronous writes only: buffered writes pass by this limit"
)
_BUFFERED_RESOURCES: Final = frozenset({Resource.IO_WRITE_BYTES, Resource.IO_WRITE_OPS})


def verdicts(
    directories: Mapping[str, str], problems: Mapping[str, str]
) -> dict[Resource, Verdict]:
    """What can be limited in cgroups below the directories: those that have a file for it."""
    found: dict[Resource, Verdict] = {}
    for resource, (controller, name) in _FILES.items():
        if controller in problems:
            found[resource] = Verdict(is_enforced=False, note=problems[controller])
        elif not kernfs.has(directories[controller], name):
            note = f"this kernel has no {name} in {directories[controller]}"
            found[resource] = Verdict(is_enforced=False, note=note)
        else:
            note = _hole(directories[controller], resource)
            found[resource] = Verdict(is_enforced=True, note=note)
    return found


def _hole(cgroup: str, resource: Resource) -> str:
    """What passes by a limit that the kernel keeps."""
    if resource is Resource.MEMORY and not kernfs.has(cgroup, LIMIT_AND_SWAP):
        return NO_SWAP_LIMIT
    return BUFFERED if resource in _BUFFERED_RESOURCES else ""


def parse_device_lines(text: str) -> dict[str, int]:
    """A throttle file (``"8:0 1048576"``) by device number."""
    pairs = (line.split() for line in text.splitlines())
    return {number: int(amount) for number, amount in pairs}


def parse_service(text: str) -> dict[str, dict[str, int]]:
    """A service file (``"8:0 Read 4096"``) by device number, then by operation."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3:  # the last line is "Total" over all devices
            found.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return found


class JobLimits:
    """The limits and counters of one job."""

    def __init__(self, plan: CgroupPlan) -> None:
        self._directories = plan.controllers

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> Iterator[EffectiveLimit]:
        """Set each limit that is asked for, one record each; see ``JobCgroup``."""
        for resource in Resource:
            requested = limits.get(resource)
            if requested is None:
                continue
            directory = self._directories.get(_FILES[resource][0])
            if directory is None:
                why = f"this host has no cgroup v1 controller {_FILES[resource][0]}"
                yield unenforced(resource, requested, why)
            elif resource is Resource.CPU:
                yield _set_cpu(directory, requested)
            elif resource is Resource.MEMORY:
                yield _set_memory(directory, requested)
            elif resource is Resource.TASKS:
                yield _set_tasks(directory, requested)
            elif not devices:
                yield unenforced(resource, requested, NO_DEVICE)
            else:
                yield from (_set_io(directory, resource, requested, disk) for disk in devices)

    def lift_io_limits(self) -> None:
        """The shim is not among those whom they hold."""

    def usage(self) -> Usage:
        """See ``JobCgroup``."""
        throttled_ns = kernfs.parse_flat(self._text("cpu", "cpu.stat") or "").get("throttled_time")
        read_bytes, write_bytes = self._io("blkio.throttle.io_service_bytes")
        read_ops, write_ops = self._io("blkio.throttle.io_serviced")
        out_of_memory = kernfs.parse_flat(self._text("memory", "memory.oom_control") or "")
        refused = kernfs.parse_flat(self._text("pids", "pids.events") or "")
        return Usage(
            cpu_seconds=_seconds(self._amount("cpuacct", "cpuacct.usage")),
            cpu_throttled_seconds=_seconds(throttled_ns),
            memory_bytes=self._amount("memory", "memory.usage_in_bytes"),
            memory_peak_bytes=self._amount("memory", "memory.max_usage_in_bytes"),
            tasks=self._amount("pids", "pids.current"),
            io_read_bytes=read_bytes,
            io_write_bytes=write_bytes,
            io_read_ops=read_ops,
            io_write_ops=write_ops,
            oom_kills=out_of_memory.get("oom_kill"),  # since Linux 4.13
            tasks_refused=refused.get("max"),
        )

    def note_above(self) -> None:
        """v1 counts nothing that would tell."""

    def limit_hits(self, usage: Usage) -> LimitHits:
        """See ``JobCgroup``."""
        memory = None
        if usage.oom_kills:
            memory = out_of_memory(self._directories["memory"], usage.oom_kills)
        held = self._text("pids", "pids.max") if usage.tasks_refused else None
        return LimitHits(memory=memory, tasks=None if held is None else kernfs.parse_amount(held))

    def _text(self, controller: str, name: str) -> str | None:
        directory = self._directories.get(controller)
        return None if directory is None else kernfs.read_if_there(directory, name)

    def _amount(self, controller: str, name: str) -> int | None:
        text = self._text(controller, name)
        return None if text is None else int(text)

    def _io(self, name: str) -> tuple[int | None, int | None]:
        """What was read and written, summed over all disks."""
        text = self._text("blkio", name)
        if text is None:
            return None, None
        # What goes through a stack of devices is counted in each: take the disks at the bottom.
        disks = [
            counters for number, counters in parse_service(text).items() if not is_stacked(number)
        ]
        return sum(disk.get("Read", 0) for disk in disks), sum(
            disk.get("Write", 0) for disk in disks
        )


def _set_cpu(cpu: str, requested: int) -> EffectiveLimit:
    def write() -> None:
        kernfs.write(cpu, _PERIOD, str(CPU_PERIOD_US))
        kernfs.write(cpu, _QUOTA, str(requested * CPU_PERIOD_US // 1000))

    def read() -> int | None:
        quota = kernfs.parse_amount(kernfs.read(cpu, _QUOTA))
        return None if quota is None else quota * 1000 // int(kernfs.read(cpu, _PERIOD))

    return prove(Resource.CPU, requested, write=write, read=read)


def _set_memory(memory: str, requested: int) -> EffectiveLimit:
    has_swap_limit = kernfs.has(memory, LIMIT_AND_SWAP)

    def write() -> None:
        names = [LIMIT]
        if has_swap_limit:
            # Memory with swap may never be less than memory alone ("memory.rst", Swap Extension):
            # when raising, the former goes first, when lowering, the latter.
            is_raised = requested > int(kernfs.read(memory, LIMIT_AND_SWAP))
            names = [LIMIT_AND_SWAP, LIMIT] if is_raised else [LIMIT, LIMIT_AND_SWAP]
        for name in names:
            kernfs.write(memory, name, str(requested))

    def read() -> int | None:
        # Of the two the larger one, always: what this one lets through went to swap.
        return read_limit(memory, LIMIT_AND_SWAP if has_swap_limit else LIMIT)

    note = _hole(memory, Resource.MEMORY)
    return prove(Resource.MEMORY, requested, write=write, read=read, note=note)


def _set_tasks(pids: str, requested: int) -> EffectiveLimit:
    return prove(
        Resource.TASKS,
        requested,
        write=lambda: kernfs.write(pids, "pids.max", str(requested)),
        read=lambda: kernfs.parse_amount(kernfs.read(pids, "pids.max")),
    )


def _set_io(blkio: str, resource: Resource, requested: int, device: BlockDevice) -> EffectiveLimit:
    _, name = _FILES[resource]
    return prove(
        resource,
        requested,
        write=lambda: kernfs.write(blkio, name, f"{device.number} {requested}"),
        read=lambda: parse_device_lines(kernfs.read(blkio, name)).get(device.number),
        device=device,
        note=_hole(blkio, resource),
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1_000_000_000
