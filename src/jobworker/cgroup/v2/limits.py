"""Limits and counters of a job in the cgroup2 tree.

Owns: cpu.max, memory.*, pids.*, io.max, io.stat.  Not the directories (tree.py).
Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Controllers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from jobworker.cgroup.interface import CgroupPlan, Verdict
from jobworker.cgroup.oom import LimitHits
from jobworker.cgroup.proof import CPU_PERIOD_US, NO_DEVICE, NO_SWAP_LIMIT, prove, unenforced
from jobworker.cgroup.v2.memory import Memory
from jobworker.kernel import kernfs
from jobworker.kernel.disks import BlockDevice, is_stacked
from jobworker.model.limits import IO_RESOURCES, EffectiveLimit, Limits, Resource
from jobworker.model.usage import Usage

_FILES: Final[Mapping[Resource, tuple[str, str]]] = {
    Resource.CPU: ("cpu", "cpu.max"),
    Resource.MEMORY: ("memory", "memory.max"),
    Resource.TASKS: ("pids", "pids.max"),
    **dict.fromkeys(IO_RESOURCES, ("io", "io.max")),
}
_SWAP: Final = "memory.swap.max"
_IO_KEYS: Final[Mapping[Resource, str]] = {
    Resource.IO_READ_BYTES: "rbps",
    Resource.IO_WRITE_BYTES: "wbps",
    Resource.IO_READ_OPS: "riops",
    Resource.IO_WRITE_OPS: "wiops",
}


def verdicts(directory: str, problems: Mapping[str, str]) -> dict[Resource, Verdict]:
    """What can be limited in cgroups below ``directory``: those that have a file for it."""
    handed_down = kernfs.read(directory, "cgroup.subtree_control").split()
    found: dict[Resource, Verdict] = {}
    for resource, (controller, name) in _FILES.items():
        if controller in problems:
            found[resource] = Verdict(is_enforced=False, note=problems[controller])
        elif controller not in handed_down or not kernfs.has(directory, name):
            note = f"this kernel has no {name} in {directory}"
            found[resource] = Verdict(is_enforced=False, note=note)
        else:
            found[resource] = Verdict(is_enforced=True, note=_hole(directory, resource))
    return found


def _hole(cgroup: str, resource: Resource) -> str:
    """What passes by a limit that the kernel keeps."""
    if resource is Resource.MEMORY and not kernfs.has(cgroup, _SWAP):
        return NO_SWAP_LIMIT
    return ""


def cpu_max(cpu_millis: int) -> str:
    """Text for ``cpu.max``: quota and period in microseconds."""
    return f"{cpu_millis * CPU_PERIOD_US // 1000} {CPU_PERIOD_US}"


def parse_cpu_max(text: str) -> int | None:
    """The opposite of ``cpu_max``; ``None`` for no limit."""
    quota, period = text.split()
    amount = kernfs.parse_amount(quota)
    return None if amount is None else amount * 1000 // int(period)


class JobLimits:
    """The limits and counters of one job."""

    def __init__(self, plan: CgroupPlan) -> None:
        self._job = plan.job
        self._leaf = plan.members
        self._memory = Memory(plan.members)

    def set_limits(
        self, limits: Limits, devices: Sequence[BlockDevice]
    ) -> Iterator[EffectiveLimit]:
        """Set each limit that is asked for, one record each; see ``JobCgroup``."""
        if limits.cpu_millis is not None:
            yield self._set_cpu(limits.cpu_millis)
        if limits.memory_bytes is not None:
            yield self._set_memory(limits.memory_bytes)
        if limits.tasks is not None:
            yield self._set_tasks(limits.tasks)
        for resource in IO_RESOURCES:
            requested = limits.get(resource)
            if requested is None:
                continue
            for device in devices:
                yield self._set_io(resource, requested, device)
            if not devices:
                yield unenforced(resource, requested, NO_DEVICE)

    def _set_cpu(self, requested: int) -> EffectiveLimit:
        return prove(
            Resource.CPU,
            requested,
            write=lambda: kernfs.write(self._leaf, "cpu.max", cpu_max(requested)),
            read=lambda: parse_cpu_max(kernfs.read(self._leaf, "cpu.max")),
        )

    def _set_memory(self, requested: int) -> EffectiveLimit:
        def write() -> None:
            kernfs.write(self._leaf, "memory.max", str(requested))
            if kernfs.has(self._leaf, _SWAP):
                kernfs.write(self._leaf, _SWAP, "0")
            if kernfs.has(self._leaf, "memory.oom.group"):  # since Linux 4.19
                # A job is one thing: half of its processes gone is not a job that goes on.
                kernfs.write(self._leaf, "memory.oom.group", "1")

        note = _hole(self._leaf, Resource.MEMORY)
        return prove(Resource.MEMORY, requested, write=write, read=self._held_memory, note=note)

    def _held_memory(self) -> int | None:
        """With swap, where the kernel counts it: what may not be in memory may be there."""
        memory = kernfs.parse_amount(kernfs.read(self._leaf, "memory.max"))
        has_swap_limit = kernfs.has(self._leaf, _SWAP)
        swap = kernfs.parse_amount(kernfs.read(self._leaf, _SWAP)) if has_swap_limit else 0
        return None if memory is None or swap is None else memory + swap

    def _set_tasks(self, requested: int) -> EffectiveLimit:
        return prove(
            Resource.TASKS,
            requested,
            write=lambda: kernfs.write(self._leaf, "pids.max", str(requested)),
            read=lambda: kernfs.parse_amount(kernfs.read(self._leaf, "pids.max")),
        )

    def _set_io(self, resource: Resource, requested: int, device: BlockDevice) -> EffectiveLimit:
        key = _IO_KEYS[resource]

        def read() -> int | None:
            held = kernfs.parse_nested(kernfs.read(self._job, "io.max"))
            return kernfs.parse_amount(held.get(device.number, {}).get(key, "max"))

        return prove(
            resource,
            requested,
            write=lambda: kernfs.write(self._job, "io.max", f"{device.number} {key}={requested}"),
            read=read,
            device=device,
        )

    def lift_io_limits(self) -> None:
        """See ``JobCgroup``."""
        everything = " ".join(f"{key}=max" for key in _IO_KEYS.values())
        for number in kernfs.parse_nested(kernfs.read_if_there(self._job, "io.max") or ""):
            kernfs.write(self._job, "io.max", f"{number} {everything}")

    def usage(self) -> Usage:
        """See ``JobCgroup``."""
        cpu = self._flat("cpu.stat")
        io = self._io()
        return Usage(
            cpu_seconds=_seconds(cpu.get("usage_usec")),
            cpu_throttled_seconds=_seconds(cpu.get("throttled_usec")),
            memory_bytes=self._amount("memory.current"),
            memory_peak_bytes=self._amount("memory.peak"),  # since Linux 5.19
            tasks=self._amount("pids.current"),
            io_read_bytes=io.get("rbytes"),
            io_write_bytes=io.get("wbytes"),
            io_read_ops=io.get("rios"),
            io_write_ops=io.get("wios"),
            # The victim of a group kill is counted twice (Linux mm/oom_kill.c, oom_kill_process).
            oom_kills=self._flat("memory.events").get("oom_kill"),
            tasks_refused=self._flat("pids.events").get("max"),
        )

    def note_above(self) -> None:
        """See ``JobCgroup``."""
        self._memory.note_above()

    def limit_hits(self, usage: Usage) -> LimitHits:
        """See ``JobCgroup``."""
        kills = usage.oom_kills
        return LimitHits(
            memory=self._memory.out_of_memory(kills) if kills else None,
            tasks=self._amount("pids.max") if usage.tasks_refused else None,
        )

    def _flat(self, name: str) -> dict[str, int]:
        return kernfs.parse_flat(kernfs.read_if_there(self._leaf, name) or "")

    def _amount(self, name: str) -> int | None:
        text = kernfs.read_if_there(self._leaf, name)
        return None if text is None else kernfs.parse_amount(text)

    def _io(self) -> dict[str, int]:
        """The sums over all disks; nothing where there is no such controller."""
        text = kernfs.read_if_there(self._job, "io.stat")
        if text is None:
            return {}
        sums = dict.fromkeys(("rbytes", "wbytes", "rios", "wios"), 0)
        for number, counters in kernfs.parse_nested(text).items():
            # What goes through a stack of devices is counted in each: take the disks at the bottom.
            if not is_stacked(number):
                for key in sums:
                    sums[key] += int(counters.get(key, "0"))
        return sums


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000_000
