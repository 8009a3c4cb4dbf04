"""Making an end of what is left of a job: kill, wait until nobody is there, remove.

For jobs whose shim can't do it any more.

Source: cgroup-v2.rst, "[Un]populated Notification"; pidfd_open(2).
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from jobworker.cgroup.interface import JobCgroup
from jobworker.kernel.process import open_pid
from jobworker.kernel.readiness import open_priority_poll
from jobworker.model.usage import Usage


async def clear_cgroup(cgroup: JobCgroup) -> Usage:
    """Kill the members, wait for their end, remove the directories; what the job had used.

    Raises OSError if a directory can't be removed.
    """
    while (usage := await asyncio.to_thread(_kill_or_remove, cgroup)) is None:
        await _wait_empty(cgroup)
    return usage


async def wait_readable(fd: int) -> None:
    """Until a descriptor has something to say; borrowed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _kill_or_remove(cgroup: JobCgroup) -> Usage | None:
    """In a thread.  None: it had members, which are killed; call again when they are gone."""
    if cgroup.is_populated():
        cgroup.kill()
        return None
    usage = replace(cgroup.usage(), memory_bytes=None, tasks=None)
    cgroup.remove()
    return usage


async def _wait_empty(cgroup: JobCgroup) -> None:
    """Until no process of a killed cgroup is left."""
    events = cgroup.open_events()
    if events is None:
        await _wait_for_each(cgroup)
        return
    try:
        epoll = open_priority_poll(events)
        try:
            while cgroup.is_populated():
                await wait_readable(epoll.fileno())
                # Reading the file is what takes the event back.
                os.pread(events, 256, 0)
                epoll.poll(0)
        finally:
            epoll.close()
    finally:
        os.close(events)


async def _wait_for_each(cgroup: JobCgroup) -> None:
    """Where the kernel does not tell emptiness: wait for every process there is."""
    while pids := cgroup.pids():
        cgroup.kill()
        for pid in pids:
            pidfd = open_pid(pid)
            if pidfd is None:
                continue
            try:
                await wait_readable(pidfd)
            finally:
                os.close(pidfd)
