"""The worker's side of the launcher: keeps one alive, and a place ready for the next job.

The launcher is told where a job's cgroup and directory are to be and given one end of a line; what
it makes there waits for an order on that line, and answers over it.  A job has its id from its
place.

It inherits the lock of starts; see settling.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import marshal
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from jobworker.cgroup.interface import CgroupPlan
from jobworker.errors import UnavailableError
from jobworker.model.ids import JobId, new_job_id
from jobworker.shim.place import PlaceDirectory
from jobworker.shim.settling import lock_settled
from jobworker.shim.shim import ORDER

#: The answer to an order is some 100 bytes, with limits on many disks some KiB.
_ANSWER_BYTES: Final = 128 * 1024

#: The directory that holds the package: the launcher gets no site directories and no PYTHONPATH.
_IMPORT_ROOT: Final = str(Path(__file__).resolve().parents[2])
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from jobworker.shim.server import main; main()"
)


class Directories(Protocol):
    """Where the jobs' directories are."""

    def make_place(self, job_id: JobId) -> PlaceDirectory:
        """A new one.  Raises OSError."""


class Place:
    """Where one job can start: its cgroup, its directory, a process in both, and that one's shim.

    Given up by closing it: what stands there ends, and cgroup and directory are removed.
    """

    def __init__(self, job_id: JobId, line: socket.socket) -> None:
        """line: to the shim and its child; taken, not blocking."""
        self.job_id = job_id
        self.line = line

    def close(self) -> None:
        """No-op if it is closed."""
        self.line.close()

    def is_waiting(self) -> bool:
        """Has nothing been heard from it?  Whatever it says without an order is bad news."""
        try:
            self.line.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            pass
        return False

    async def withdraw(self) -> dict[str, Any] | None:
        """Give it up, and return once nothing of it is left.

        Returns what it said without an order: why it could not be made.
        """
        try:
            with contextlib.suppress(OSError):
                self.line.shutdown(socket.SHUT_WR)
            return _decode(await _receive(self.line))
        finally:
            self.close()


class Launcher:
    """One launcher process at a time; made anew when it is found dead."""

    def __init__(
        self,
        lock_file: Path,
        plan: Callable[[str], CgroupPlan],
        directories: Directories,
        program: str = _PROGRAM,
    ) -> None:
        """plan: where a job of this id has its cgroups.

        program: Python source that runs the launcher; tests give one that has faults.
        """
        self._lock_file = lock_file
        self._plan = plan
        self._directories = directories
        self._program = program
        self._is_closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._wishing = asyncio.Lock()
        """Held while a place is asked for: one at a time can wait until its socket takes more."""
        self._spare: Place | None = None

    @property
    def pid(self) -> int | None:
        """Of the launcher process; None before the first order."""
        return None if self._process is None else self._process.pid

    async def ensure(self) -> socket.socket:
        """Its socket; starts a launcher if none lives.  Raises UnavailableError."""
        async with self._starting:
            if self._socket is not None and self._process is not None:
                if self._process.poll() is None:
                    return self._socket
                self._forget()
            lock = await lock_settled(self._lock_file)
            try:
                return self._spawn(lock)
            finally:
                os.close(lock)

    async def take(self) -> Place:
        """A place for the next job: the one that is ready, or a new one.  The caller owns it.

        Raises UnavailableError, and OSError if the disk does not take a new directory.
        """
        spare, self._spare = self._spare, None
        if spare is None:
            return await self._make_place(new_job_id())
        return spare if spare.is_waiting() else await self.make_again(spare)

    async def make_again(self, place: Place) -> Place:
        """A new one of the same id, for one in which all are dead that stood there.  Takes place.

        Raises as ``take``.
        """
        place.close()
        # A shim that was killed has left its cgroup, which is so made use of.
        return await self._make_place(place.job_id)

    def give_back(self, place: Place) -> None:
        """A place that was not used, nor its id recorded: the next job's."""
        if self._spare is None and not self._is_closed:
            self._spare = place
        else:
            place.close()

    async def prepare(self) -> None:
        """Have a place ready for the next ``take``; no-op if there is one, or no launcher."""
        if self._spare is None:
            # Whoever takes the next place meets the same, and tells it.
            with contextlib.suppress(UnavailableError, OSError):
                self.give_back(await self._make_place(new_job_id()))

    async def order(self, place: Place) -> dict[str, Any] | None:
        """Have the order in a place's directory carried out; the answer to the start.

        From here on the directory is the job's.  Takes place.

        None: all who could answer died before they did, and none of them will take the order any
        more; the records tell how far they came.  Cancelling stops the waiting, not the start.
        """
        with contextlib.closing(place):
            # Who died since has taken nothing of this order: there is no answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await _send(place.line, ORDER)
            answer = await _receive(place.line)
        return _decode(answer)

    async def close(self) -> None:
        """Let the launcher end; what was ordered is still carried out, and shims go on."""
        self._is_closed = True
        process, spare, self._spare = self._process, self._spare, None
        self._forget()
        if spare is not None:
            await spare.withdraw()
        if process is not None:
            process.wait()

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._spare is not None:
            # It has the lock that a next launcher has to wait for.
            self._spare.close()
        self._socket = self._process = self._spare = None

    async def _make_place(self, job_id: JobId) -> Place:
        wishes = await self.ensure()
        directory = await asyncio.to_thread(self._directories.make_place, job_id)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003 - its only signature
        message = marshal.dumps((self._plan(job_id).to_json(), *dataclasses.astuple(directory)))
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            # A launcher that died since we looked makes no place, and the line is at its end.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                async with self._wishing:
                    await _send(wishes, message, theirs.fileno())
            undo.pop_all()
        return Place(job_id, ours)

    def _spawn(self, lock: int) -> socket.socket:
        if self._is_closed:
            raise UnavailableError("start jobs", "the worker is closed")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Not the worker's own: a shim that outlives it would hold whatever pipe that is.
        faults_file = self._lock_file.with_name("launcher.log")
        faults_file.touch(mode=0o600)
        with theirs, faults_file.open("ab") as faults:
            command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", self._program]
            arguments = [_IMPORT_ROOT, str(theirs.fileno()), str(lock)]
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=faults,
                pass_fds=(theirs.fileno(), lock),
                start_new_session=True,
                cwd="/",
                env={},
            )
        ours.setblocking(False)  # noqa: FBT003 - its only signature
        self._socket = ours
        return ours


async def _send(sock: socket.socket, message: bytes, *fds: int) -> None:
    while not _try_send(sock, message, fds):
        await _wait_writable(sock)


def _try_send(sock: socket.socket, message: bytes, fds: Sequence[int]) -> bool:
    try:
        socket.send_fds(sock, [message], fds)
    except BlockingIOError:
        return False
    return True


async def _wait_writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def _decode(answer: bytes | None) -> dict[str, Any] | None:
    return None if answer is None else json.loads(answer)


async def _receive(line: socket.socket) -> bytes | None:
    """One message, or None if all who have the other end closed it without one."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.get_running_loop().sock_recv(line, _ANSWER_BYTES) or None
    return None
