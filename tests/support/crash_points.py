"""SIGKILL at a named step of the code, and what must be left of a job after it.

Owns: launchers with something planted in them, the crash points, and the account that all of them
end with.  Not which steps there are.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from jobworker.model import RequestId
from jobworker.shim.launcher import Launcher
from support.faults import is_writing, job_cgroups, shims_of, wait_dead, witnessed
from support.worker import WorkerPlace

#: Of the start that is interrupted, and of the one that repeats it.
REQUEST: Final = RequestId("once")

_CRASH: Final = """
import importlib, os, signal, sys
def crash(owner, name, when, argument, victim):
    real = getattr(owner, name)
    def wrapped(*arguments, **options):
        is_it = argument is None or argument in arguments
        if is_it and when == "before":
            die()
        result = real(*arguments, **options)
        # Of a fork the parent is meant.
        if is_it and when == "after" and not (name == "fork" and result == 0):
            die()
        return result
    def die():
        if victim == "parent":
            os.kill(os.getppid(), signal.SIGKILL)
            # It takes this process with it.
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, wrapped)
def plant(owner, *rest):
    module, _, attribute = owner.partition(":")
    found = importlib.import_module(module)
    crash(getattr(found, attribute) if attribute else found, *rest)
"""


def launcher_program(planted: str) -> str:
    """A launcher that runs some code first.  planted: Python source."""
    main = "from jobworker.shim.server import main; main()"
    return f"import sys; sys.path.insert(0, sys.argv.pop(1))\n{planted}\n{main}"


@contextlib.contextmanager
def launched_by(program: str) -> Iterator[None]:
    """Workers that are opened meanwhile have this launcher."""
    with pytest.MonkeyPatch.context() as patch:
        launcher = functools.partial(Launcher, program=program)
        patch.setattr("jobworker.jobs.engine.Launcher", launcher)
        yield


@dataclass(frozen=True, kw_only=True)
class CrashPoint:
    """A step of the code, and whom SIGKILL meets there."""

    owner: str
    """``module`` or ``module:Class``."""
    name: str
    """Of the function."""
    when: str
    """``before`` or ``after`` the call."""
    argument: str | bytes | None = None
    """Only calls that have this argument."""
    victim: str = "self"
    """``self`` or ``parent``: the process that makes the call, or the one that made it."""

    @property
    def code(self) -> str:
        """Python source that plants it."""
        values = (self.owner, self.name, self.when, self.argument, self.victim)
        return f"{_CRASH}\nplant{values!r}\n"

    @property
    def launcher_program(self) -> str:
        """A launcher in which, and in whose shims, it stands."""
        return launcher_program(self.code)

    def __str__(self) -> str:
        what = f"{self.name}-{self.argument!s}" if self.argument else self.name
        return f"{self.when}-{what}-{self.victim}"


async def check_nothing_left(
    place: WorkerPlace, name: str, witnesses: Path, cgroup_name: str
) -> list[int]:
    """Once its shims are gone nothing is left of a writing, which ran once at most.

    Returns the pids of the processes that ran it.
    """
    for pid in shims_of(place.state_dir):
        await wait_dead(pid)
    runs = witnessed(witnesses).get(name, [])
    assert len(runs) <= 1
    assert not any(is_writing(pid, witnesses) for pid in runs)
    assert not job_cgroups(cgroup_name)
    assert not list((place.state_dir / "jobs" / "places").iterdir())
    assert not list((place.state_dir / "scratch").iterdir())
    return runs
