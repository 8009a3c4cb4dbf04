"""Guards around every test: nothing stays open, no process stays behind, no cgroup is left.

Owns: what counts as a leak, what may block the event loop, and ``need``.  Not the fixtures that
apply them (conftest.py).
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest
from blockbuster import blockbuster_ctx

from jobworker.model.ids import is_job_id

STRICT_VARIABLE: Final = "JOBWORKER_TESTS_STRICT"

#: Descriptors that a library closes from its own thread (gRPC's poller) are gone a moment after the
#: call that closed them returned; so long a guard waits before it calls one a leak.
SETTLE_S: Final = 3.0
_LOOK_EVERY_S: Final = 0.02

#: Functions of ours that call the kernel from the event loop, and why each may.
MAY_BLOCK: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "opening and closing a worker: nothing else of it runs yet, or any more": (
        "jobworker/jobs/engine.py",
        frozenset({"open_engine", "_prepare_ground"}),
    ),
    "starting the launcher, once and after each of its deaths: 1 ms until it is executed": (
        "jobworker/shim/launcher.py",
        frozenset({"_spawn"}),
    ),
    "reading a file of procfs, which is in memory": (
        "jobworker/kernel/process.py",
        frozenset({"_read"}),
    ),
    "sysfs, which is in memory, when the mounts have changed since the last start": (
        "jobworker/kernel/disks.py",
        frozenset({"now"}),
    ),
    "statvfs between looking at the bounds and taking a place, where nothing may wait": (
        "jobworker/jobs/directories.py",
        frozenset({"free_bytes"}),
    ),
    "the pool of asyncio.to_thread, when it adds a thread": (
        "concurrent/futures/thread.py",
        frozenset({"_adjust_thread_count"}),
    ),
    "certificates that a test reads and makes, in its own event loop": (
        "tests/support/certificates.py",
        frozenset({"ca", "client_files", "forged_files", "revoke"}),
    ),
    "the same, by the name of a user": (
        "tests/support/service.py",
        frozenset({"certificate"}),
    ),
    "a line of the log, to wherever the program that embeds the worker sends it": (
        "logging/__init__.py",
        frozenset({"emit"}),
    ),
}

#: Cgroup parents that tests and long runs make carry the number of their process.
_OUR_CGROUP = re.compile(r"jobworker(?:-[a-z]+-(?P<pid>\d+))?")

#: A daemon that outlives the test has these two ready for its next job, others after each job; they
#: end with its launcher, which does count.
_READY_AHEAD: Final = frozenset({"jobworker-spare", "jobworker-start"})


def is_strict() -> bool:
    """Is this a run in which a skipped test counts as a failed one?"""
    return bool(os.environ.get(STRICT_VARIABLE))


def need(condition: object, what: str) -> None:
    """Skip the test aloud where the host lacks ``what``; in a strict run fail it."""
    if condition:
        return
    if is_strict():
        pytest.fail(f"strict run, and this host has no {what}")
    pytest.skip(f"needs {what}")


def only_on(condition: object, kind: str) -> None:
    """Skip the test aloud unless the host is of the ``kind`` it is about, strict run or not.

    For what no single host can have, such as v1 and v2 controllers: the gate runs the suites on one
    host of each kind (``script/test --guest``).
    """
    if not condition:
        pytest.skip(f"is about {kind}")


def in_guest() -> bool:
    """Is this a guest kernel (tests/guest/run-in-guest), with one CPU and slow system calls?"""
    return "RUN_IN_GUEST" in os.environ


def too_much_for_a_guest(why: str) -> pytest.MarkDecorator:
    """Skip the test aloud where its amount of work, which is its subject, would take minutes."""
    return pytest.mark.skipif(in_guest(), reason=f"too much for a guest kernel: {why}")


def open_descriptors() -> Counter[str]:
    """What the open descriptors of this process stand for, and how many of each.

    The listing sees its own descriptor, which is closed by the time it is looked at: such entries
    are dropped, or a real leak of that number would hide behind it.
    """
    found: Counter[str] = Counter()
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found[str(entry.readlink())] += 1
    return found


def children() -> Counter[str]:
    """Processes below this one, the dead and not yet awaited ones too."""
    found: Counter[str] = Counter()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = child.name()
            if name not in _READY_AHEAD:
                # Whether it runs or sleeps just now makes it no other process.
                found[f"{child.pid} {name}"] += 1
    return found


def cgroup_mounts() -> tuple[Path, ...]:
    """Where this host mounts cgroup trees, of either version.  Source: proc(5), mounts."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounts = (line.split(" ") for line in lines)
    return tuple(Path(mount[1]) for mount in mounts if mount[2] in {"cgroup", "cgroup2"})


def our_cgroups() -> Counter[str]:
    """Every cgroup at or below one that has our name, in every tree.

    Those of another run on the same machine are none of our business: of one that says so in its
    name, and in a run that is not strict also those that say nothing.
    """
    mine = {str(os.getpid()), None} if is_strict() else {str(os.getpid())}
    ready_ahead = _places_ready_ahead()
    found: Counter[str] = Counter()
    for mount in cgroup_mounts():
        for path, names, _ in os.walk(mount):
            ours = _OUR_CGROUP.search(path, len(str(mount)))
            if ours is not None and ours["pid"] not in mine:
                names.clear()
            elif ours is not None:
                names[:] = [name for name in names if name not in ready_ahead]
                found[path] += 1
    return found


def _places_ready_ahead() -> frozenset[str]:
    """Names of the cgroups in which a daemon below this process has a place for its next job."""
    found: set[str] = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            if child.name() == "jobworker-start":
                cgroups = Path(f"/proc/{child.pid}/cgroup").read_text(encoding="utf-8")
                found.update(name for name in re.split(r"[/\n]", cgroups) if is_job_id(name))
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One kind of thing of which a test must leave as many as it found."""

    what: str
    count: Callable[[], Counter[str]]


GUARDS: Final = (
    Guard(what="descriptors", count=open_descriptors),
    Guard(what="child processes", count=children),
    Guard(what="cgroups", count=our_cgroups),
)


@contextlib.contextmanager
def no_leak(guard: Guard) -> Iterator[None]:
    """Fail unless the block leaves no more of the guarded things than it found."""
    before = guard.count()
    yield
    deadline = time.monotonic() + SETTLE_S
    leaked = guard.count() - before
    if leaked:
        gc.collect()  # an object in a reference cycle closes its descriptor only now
    while leaked and time.monotonic() < deadline:
        # Nothing announces that another thread has closed a descriptor.
        time.sleep(_LOOK_EVERY_S)  # noqa: TID251 - see above
        leaked = guard.count() - before
    if leaked:
        lines = "\n".join(f"  {count} × {thing}" for thing, count in sorted(leaked.items()))
        pytest.fail(f"the test leaked {guard.what}:\n{lines}")


@contextlib.contextmanager
def no_blocking() -> Iterator[None]:
    """Make a blocking call from our code raise while an event loop runs in this thread.

    Only calls from ``jobworker`` count: a test may read a file.  Not seen: os.pread, os.pwrite and
    os.fsync, which are left to review.
    """
    with blockbuster_ctx("jobworker") as buster:
        for file_name, functions in MAY_BLOCK.values():
            for wrapped in buster.functions.values():
                wrapped.can_block_in(file_name, functions)
        yield
