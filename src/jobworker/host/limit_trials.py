"""Each limit, tried with a job that asks for more than it may have.

Owns: what each job does, what it would come to without the limit, and what counts as held.  The
loads are made with the shell, dd and sync, which every user of a job can reach.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Final

from jobworker.host.trial import Bench, Ended, Finding, NotTriedError, found, judge
from jobworker.model.ending import EndReason
from jobworker.model.limits import EffectiveLimit, Limits, Resource
from jobworker.model.units import format_bytes, format_cpus

_CPU_MILLIS: Final = 100
_CPU_S: Final = 1.5
#: Periods of 100 ms begin and end somewhere, and kernels that count in ticks of 10 ms let a job
#: have one too many in each.
_CPU_MILLIS_SEEN_MAX: Final = 250
_MEMORY_BYTES: Final = 32 << 20
_ALLOCATED_BYTES: Final = 4 * _MEMORY_BYTES
_TASKS: Final = 8
_FORKS: Final = 20

_IO_BYTES_PER_S: Final = 4 << 20
_BLOCK_BYTES: Final = 256 << 10
_BLOCKS: Final = 24
_IO_OPS_PER_S: Final = 40
_OPERATION_BYTES: Final = 4096
_OPERATIONS: Final = 60
#: How long each disk trial should take where its limit is kept: that many bytes, that many
#: operations.
_IO_S: Final = 1.5
#: The kernel lets the first slice of time, at most 100 ms, pass in one go (Linux
#: block/blk-throttle.c, throtl_slice), and clocks and files have edges.
_IO_S_HELD: Final = 0.75 * _IO_S
#: Without a limit the disk must be at least so much faster, or the trial says nothing.
_FASTER: Final = 2.0

_SPIN: Final = "while :; do :; done"
_ALLOCATE: Final = f"exec dd if=/dev/zero of=/dev/null bs={_ALLOCATED_BYTES} count=1"
#: Some shells give up at the first fork that is refused, others go on.
_FORK: Final = f"i=0; while [ $i -lt {_FORKS} ]; do sleep 9 & i=$((i+1)); done"

_BYTES: Final = f"bs={_BLOCK_BYTES} count={_BLOCKS}"
_OPS: Final = f"bs={_OPERATION_BYTES} count={_OPERATIONS}"
_WRITE: Final = "exec dd if=/dev/zero of=file {amount} oflag=direct"
#: "nocache" with nothing to copy drops the file from the page cache: dd(1).
_READ: Final = (
    "dd if=/dev/zero of=file {amount} conv=fdatasync 2>/dev/null && "
    "dd if=file iflag=nocache count=0 2>/dev/null && exec dd if=file of=/dev/null {amount} {how}"
)
#: What is left to the kernel to write back, and the wait until it has.
_WRITE_BACK: Final = "dd if=/dev/zero of=file {amount} && sync -f file"
_DIRECT: Final = "direct"
_BUFFERED: Final = "buffered"
_COPIED: Final = re.compile(r"copied, ([0-9.e+-]+) s")


async def _try_cpu(bench: Bench) -> Finding:
    """Spin for a while with a tenth of a CPU."""
    limits = Limits(cpu_millis=_CPU_MILLIS)
    ended = await bench.run(_SPIN, limits=limits, timeout_s=_CPU_S)
    used_s = ended.ending.usage.cpu_seconds or 0.0
    millis = round(1000 * used_s / ended.wall_s)
    throttled_s = ended.ending.usage.cpu_throttled_seconds
    throttled = "" if throttled_s is None else f", throttled for {throttled_s:.2f} s"
    measured = (
        f"{format_cpus(millis)} CPUs of {format_cpus(_CPU_MILLIS)} over {ended.wall_s:.1f} s"
        f"{throttled}"
    )
    is_held = millis <= _CPU_MILLIS_SEEN_MAX
    is_claimed = any(limit.is_enforced for limit in ended.job.effective)
    if is_claimed and is_held and throttled_s == 0:
        raise NotTriedError(f"the host is too busy: it gave the job {measured}")
    return judge(Resource.CPU.value, ended.job.effective, is_held=is_held, measured=measured)


async def _try_memory(bench: Bench) -> Finding:
    """Fill four times as much memory as allowed."""
    ended = await bench.run(_ALLOCATE, limits=Limits(memory_bytes=_MEMORY_BYTES))
    asked = f"{format_bytes(_ALLOCATED_BYTES)} with {format_bytes(_MEMORY_BYTES)} allowed"
    is_held = ended.ending.reason is EndReason.OOM_KILLED
    if not is_held:
        ended.require_success()
    what = "was killed for want of memory" if is_held else "had them all"
    measured = f"a job that filled {asked} {what}"
    return judge(Resource.MEMORY.value, ended.job.effective, is_held=is_held, measured=measured)


async def _try_tasks(bench: Bench) -> Finding:
    """Start more processes than allowed."""
    ended = await bench.run(_FORK, limits=Limits(tasks=_TASKS))
    refused = ended.ending.usage.tasks_refused
    measured = f"{_FORKS} forks with {_TASKS} tasks allowed: {refused or 0} refused"
    return judge(
        Resource.TASKS.value, ended.job.effective, is_held=bool(refused), measured=measured
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _DiskTrial:
    """One way to use a disk, in which a limit of ours makes it take ``_IO_S``."""

    script: str
    how: str
    """In words."""
    is_write_back: bool = False
    """The kernel writes after the command that wrote has gone on: the whole job is timed."""

    def seconds(self, ended: Ended) -> float:
        """How long it took.  Raises NotTriedError if it failed."""
        if self.how == _DIRECT and os.strerror(errno.EINVAL) in ended.stderr:
            # open(2), O_DIRECT: the file system does not support it.
            raise NotTriedError("the file system of the directory takes no direct IO")
        ended.require_success()
        if self.is_write_back:
            return ended.wall_s
        copied = _COPIED.search(ended.stderr)
        if copied is None:
            raise NotTriedError(f"dd does not tell its time: {ended.stderr.strip()!r}")
        return float(copied[1])

    def is_held(self, ended: Ended) -> bool:
        """Was it the limit that took the time?"""
        written = ended.ending.usage.io_write_bytes
        if self.is_write_back and written is not None and written < _BLOCKS * _BLOCK_BYTES:
            # On nobody's account: it was something else that it had to wait for.
            return False
        return self.seconds(ended) >= _IO_S_HELD


#: Direct ones first.  Operations only so: what goes through the page cache is joined to operations
#: of the kernel's choice.
_DISK_TRIALS: Final[Mapping[Resource, tuple[_DiskTrial, ...]]] = {
    Resource.IO_READ_BYTES: (
        _DiskTrial(script=_READ.format(amount=_BYTES, how="iflag=direct"), how=_DIRECT),
        _DiskTrial(script=_READ.format(amount=_BYTES, how=""), how=_BUFFERED),
    ),
    Resource.IO_WRITE_BYTES: (
        _DiskTrial(script=_WRITE.format(amount=_BYTES), how=_DIRECT),
        _DiskTrial(script=_WRITE_BACK.format(amount=_BYTES), how=_BUFFERED, is_write_back=True),
    ),
    Resource.IO_READ_OPS: (
        _DiskTrial(script=_READ.format(amount=_OPS, how="iflag=direct"), how=_DIRECT),
    ),
    Resource.IO_WRITE_OPS: (_DiskTrial(script=_WRITE.format(amount=_OPS), how=_DIRECT),),
}
_OPERATION_LIMITS: Final = frozenset({Resource.IO_READ_OPS, Resource.IO_WRITE_OPS})


async def _try_disk(bench: Bench, resource: Resource, free: Ended) -> Finding:
    """free: the first trial without a limit."""
    amount = _IO_OPS_PER_S if resource in _OPERATION_LIMITS else _IO_BYTES_PER_S
    limits = Limits(**{resource.value: amount})
    took: dict[_DiskTrial, float] = {}
    passing: list[str] = []
    effective: tuple[EffectiveLimit, ...] = ()
    for trial in _DISK_TRIALS[resource]:
        ended = await bench.run(trial.script, limits=limits)
        effective = ended.job.effective
        if not any(limit.is_enforced for limit in effective):
            return judge(resource.value, effective, is_held=False, measured="")
        took[trial] = trial.seconds(ended)
        if not trial.is_held(ended):
            passing.append(trial.how)
    free_s = _DISK_TRIALS[resource][0].seconds(free)
    if free_s * _FASTER > _IO_S:
        why = f"the disk itself takes {free_s:.1f} s for what a limit should make take {_IO_S} s"
        raise NotTriedError(why)
    return judge(
        resource.value,
        effective,
        is_held=_DIRECT not in passing,
        measured=", ".join(_rate(resource, *each) for each in took.items()),
        hole=f"{', '.join(passing)} IO passes by this limit" if passing else "",
    )


def _rate(resource: Resource, trial: _DiskTrial, seconds: float) -> str:
    if resource in _OPERATION_LIMITS:
        return f"{trial.how} {_OPERATIONS / seconds:.0f}/s of {_IO_OPS_PER_S}/s"
    rate = format_bytes(int(_BLOCKS * _BLOCK_BYTES / seconds))
    return f"{trial.how} {rate}/s of {format_bytes(_IO_BYTES_PER_S)}/s"


async def _try_disks(bench: Bench) -> tuple[Finding, ...]:
    # First of all, while no limit makes anything else on the disk wait.
    free = {
        resource: await bench.run(trial.script) for resource, (trial, *_) in _DISK_TRIALS.items()
    }

    def finding(resource: Resource) -> Coroutine[None, None, Finding]:
        return found(resource.value, _try_disk(bench, resource, free[resource]))

    # Beside each other, since they mostly wait, each for its own limit; but what the kernel writes
    # back may have to wait for others' writes in the same file system, so that it comes alone.
    alone = Resource.IO_WRITE_BYTES
    async with asyncio.TaskGroup() as group:
        others = {
            resource: group.create_task(finding(resource))
            for resource in _DISK_TRIALS
            if resource is not alone
        }
    last = await finding(alone)
    return tuple(
        last if resource is alone else others[resource].result() for resource in _DISK_TRIALS
    )


async def try_limits(bench: Bench) -> tuple[Finding, ...]:
    """A finding for each resource, in their order."""
    return (
        await found(Resource.CPU.value, _try_cpu(bench)),
        await found(Resource.MEMORY.value, _try_memory(bench)),
        await found(Resource.TASKS.value, _try_tasks(bench)),
        *await _try_disks(bench),
    )
