"""A place for one job, as its shim and the process that starts the command know it.

Its directory is made by the worker ahead of a job, beside the jobs' directories, and moved to where
the job's is to be when an order comes.  So what a start needs in it is there before anybody waits,
and no directory is a job's that has no row in the journal.

Source: rename(2).
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from jobworker.cgroup.interface import JobCgroup
from jobworker.shim.refusal import refused


@dataclass(frozen=True, slots=True)
class PlaceDirectory:
    """Of the first two paths, on one file system, one exists."""

    ahead: str
    """Before there is an order."""
    job: str
    """From then on."""
    scratch: str
    """The directory that the job may write to; empty before there is an order."""

    def open(self) -> int:
        """Before there is an order; the caller closes it.  Raises OSError."""
        return os.open(self.ahead, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_job(self) -> int:
        """Once the order was taken; the caller closes it.  Raises OSError: ENOENT before that."""
        return os.open(self.job, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def become_job(self) -> None:
        """An order has come.  Raises RefusedError."""
        try:
            os.rename(self.ahead, self.job)  # noqa: PTH104 - as below
        except OSError as error:
            raise refused("take the place's directory", error) from error

    def remove(self) -> None:
        """No order came; no-op if one did.  What can't be removed the next worker does."""
        with contextlib.suppress(OSError):
            directory = self.open()
            try:
                for name in os.listdir(directory):  # noqa: PTH208 - pathlib is not loaded here
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)
            os.rmdir(self.ahead)  # noqa: PTH106 - as above
            os.rmdir(self.scratch)  # noqa: PTH106


@dataclass(frozen=True, slots=True, kw_only=True)
class ShimPlace:
    """What a shim gets from the launcher.  The descriptors are its own."""

    cgroup: JobCgroup
    members: int | None
    """Where the command is to be born, if it can be."""
    directory: PlaceDirectory
    line: socket.socket
    """To the worker, which orders and is answered over it."""
    settled: int
    """A lock that tells a later worker that a start is not settled yet."""
    ready: int
    """A pipe that is closed once an order can be taken."""
