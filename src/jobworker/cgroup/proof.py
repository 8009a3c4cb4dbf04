"""A limit is written and read back: the record of it says what the kernel holds.

Owns: how the attempt becomes an ``EffectiveLimit``, and what both versions say alike.  Not the
files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import EffectiveLimit, Resource

#: The kernel's default; long enough that a quota of a hundredth of a CPU is still the least it
#: takes, 1 ms ("sched-bwc.rst", Management).
CPU_PERIOD_US: Final = 100_000

NO_DEVICE: Final = "no block device is behind the mounted file systems"
NO_SWAP_LIMIT: Final = "swap is not limited: this kernel does not count it"


def prove(
    resource: Resource,
    requested: int,
    *,
    write: Callable[[], None],
    read: Callable[[], int | None],
    device: BlockDevice | None = None,
    note: str = "",
) -> EffectiveLimit:
    """Write a limit and read it back.

    read: the value in the unit of the request, ``None`` where the kernel holds no limit.
    note: a hole that this kind of limit has even where the kernel keeps it.
    """
    label = "" if device is None else f"{device.number} {device.name}"
    failure = ""
    try:
        write()
    except OSError as error:
        failure = str(error)
    try:
        effective = read()
    except OSError as error:
        effective = None
        failure = failure or str(error)
    if effective is not None and effective > requested:
        # An earlier limit that could not be lowered does not hold what is asked for now.
        failure = failure or "the kernel did not take the value"
        failure = f"{failure}; it still holds {effective}"
        effective = None
    elif effective is None:
        failure = failure or "the kernel did not take the value"
    return EffectiveLimit(
        resource=resource,
        requested=requested,
        effective=effective,
        device=label,
        note="; ".join(filter(None, (failure, note))),
    )


def unenforced(resource: Resource, requested: int, why: str) -> EffectiveLimit:
    """The record of a limit for which there is nothing to write to."""
    return EffectiveLimit(resource=resource, requested=requested, note=why)
