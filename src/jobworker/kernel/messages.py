"""The kernel's log: at whose limit it killed a process for want of memory.

A host may keep its log from us (kernel.dmesg_restrict without CAP_SYSLOG, systemd's
ProtectKernelLogs=), and the kernel writes of at most ten such kills in five seconds: what is not
found here may still have been.

Standard library only: the shims import it.
Source: syslog(2); Linux mm/oom_kill.c, dump_oom_victim, and mm/memcontrol.c,
mem_cgroup_print_oom_context (since Linux 5.0).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Final

_SYSLOG_ACTION_READ_ALL: Final = 3
#: The last of it: the line we look for is one of the last of the report of a kill.
_LOG_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OomKill:
    """One kill.  Paths of cgroups begin at the root of their tree, as the kernel sees it."""

    victim: str
    """The cgroup of the process that was killed."""
    limit: str | None
    """The cgroup whose limit was reached; None: there was no memory left on the whole host."""


def read_messages() -> str:
    """The end of the kernel's log; "" where it is not ours to read."""
    buffer = ctypes.create_string_buffer(_LOG_BYTES)
    # Opened here: kept open, it would cost every shim 44 KiB of its own, and few jobs end so.
    libc = ctypes.PyDLL(None)
    size: int = libc.klogctl(_SYSLOG_ACTION_READ_ALL, buffer, _LOG_BYTES)
    return os.fsdecode(buffer.raw[: max(size, 0)])


def last_oom_kill(messages: str, below: str) -> OomKill | None:
    """The last kill in a cgroup whose path ends with ``below``, or in one inside it."""
    for line in reversed(messages.splitlines()):
        # The name of the process comes last: nobody can write such a line into its own.
        context, is_kill, rest = line.partition(",task_memcg=")
        victim = rest.partition(",task=")[0]
        if is_kill and "oom-kill:constraint=" in context and f"{below}/" in f"{victim}/":
            _, is_limit, limit = context.partition(",oom_memcg=")
            return OomKill(victim=victim, limit=limit if is_limit else None)
    return None
