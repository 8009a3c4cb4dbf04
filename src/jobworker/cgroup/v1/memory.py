"""What the v1 memory tree tells of memory that ran out, at a job's cgroup and above it.

Owns: failcnt, max_usage_in_bytes and the limit in force as evidence.  Not its setting (limits.py).
Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from typing import Final

from jobworker.cgroup import directories
from jobworker.cgroup.oom import Level, OutOfMemory, judge
from jobworker.kernel import kernfs
from jobworker.kernel.messages import read_messages

LIMIT: Final = "memory.limit_in_bytes"
LIMIT_AND_SWAP: Final = "memory.memsw.limit_in_bytes"

#: Without a limit the file says the largest multiple of the page size below 2**63 (Linux
#: mm/page_counter.c, PAGE_COUNTER_MAX); no machine has that much.
_UNLIMITED_BYTES: Final = 1 << 62
#: An allocation of several pages that does not fit leaves the most that was used below the limit;
#: those of more than eight call no OOM killer (Linux mm/memcontrol.c, PAGE_ALLOC_COSTLY_ORDER).
_MISSED_BYTES: Final = 8 * os.sysconf("SC_PAGE_SIZE")


def read_limit(cgroup: str, name: str = LIMIT) -> int | None:
    """The limit that the kernel holds; raises OSError."""
    held = int(kernfs.read(cgroup, name))
    return held if held < _UNLIMITED_BYTES else None


def out_of_memory(cgroup: str, kills: int) -> OutOfMemory:
    """Why so many processes were killed."""
    above = directories.above(cgroup)
    return judge(
        _level(cgroup),
        [_level(path) for path in above],
        noted={},
        # The root of a tree has this file, and no other cgroup.
        has_root=bool(above) and kernfs.has(above[-1], "release_agent"),
        messages=read_messages(),
        kills=kills,
    )


def _level(cgroup: str) -> Level:
    """Linux 6.18 counts no failures, Linux 4.19 no use without swap: so both are looked at."""
    limits = [(LIMIT, "memory"), (LIMIT_AND_SWAP, "memory.memsw")]
    held = [
        (read_limit(cgroup, limit), name) for limit, name in limits if kernfs.has(cgroup, limit)
    ]
    return Level(
        path=cgroup,
        limit_bytes=min((limit for limit, _ in held if limit is not None), default=None),
        was_reached=any(_was_reached(cgroup, name, limit) for limit, name in held),
    )


def _was_reached(cgroup: str, name: str, limit: int | None) -> bool:
    if limit is None:
        return False
    most = int(kernfs.read(cgroup, f"{name}.max_usage_in_bytes"))
    return most > limit - _MISSED_BYTES or int(kernfs.read(cgroup, f"{name}.failcnt")) > 0
