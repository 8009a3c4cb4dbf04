"""The worker's side of the launcher: keeps one alive and sends it orders.

The launcher inherits a lock, as do the shims until their start is settled; so whoever gets the lock
knows that no start of an earlier worker or launcher is still under way, and that the records in the
state directory are complete.

Source: flock(2): the lock is that of the open file, shared by every process that inherited it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from jobworker.errors import UnavailableError
from jobworker.shim.shim import ORDER

#: Starts are settled in milliseconds; a file system that hangs can make them slow.
_SETTLE_TIMEOUT_S: Final = 30.0
#: The answer to an order is some 100 bytes, with limits on many disks some KiB.
_REPORT_BYTES: Final = 65536

#: The directory that holds the package: the launcher gets no site directories and no PYTHONPATH.
_IMPORT_ROOT: Final = str(Path(__file__).resolve().parents[2])
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from jobworker.shim.server import main; main()"
)


class Launcher:
    """One launcher process at a time; made anew when it is found dead."""

    def __init__(self, lock_file: Path, program: str = _PROGRAM) -> None:
        """program: Python source that runs the launcher; tests give one that has faults."""
        self._lock_file = lock_file
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starting = asyncio.Lock()

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
            lock = await self._lock_settled()
            try:
                return self._spawn(lock)
            finally:
                os.close(lock)

    async def order(self, directory: int) -> dict[str, Any] | None:
        """Have a shim carry out the order in a job's directory; its answer to the start.

        None: launcher or shim died before it answered; the records tell how far it came.
        Cancelling stops the waiting, not the start.
        """
        report, line = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(report, False)
            try:
                await self._send(directory, line)
            finally:
                os.close(line)
            return await _read_report(report)
        finally:
            os.close(report)

    def close(self) -> None:
        """Let the launcher end; what it was sent is still carried out, and shims go on."""
        process = self._process
        self._forget()
        if process is not None:
            process.wait()

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._process = None

    async def _send(self, directory: int, line: int) -> None:
        orders = await self.ensure()
        # A launcher that died since we looked has taken nothing of this order: there is no answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not _try_send(orders, [directory, line]):
                await _wait_writable(orders)

    def _spawn(self, lock: int) -> socket.socket:
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

    async def _lock_settled(self) -> int:
        """The lock, once every earlier start is settled; the caller closes it."""
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        # A thread of its own, which nobody waits for at exit: the call can't be interrupted.
        threading.Thread(target=_lock_in_thread, args=(fd, loop, done), daemon=True).start()
        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                await done
        except TimeoutError as error:
            why = f"starts of an earlier run still hold {self._lock_file}"
            raise UnavailableError("start jobs", why) from error
        return fd


def _lock_in_thread(fd: int, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_finish, done)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _try_send(orders: socket.socket, fds: list[int]) -> bool:
    try:
        socket.send_fds(orders, [ORDER], fds)
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


async def _read_report(pipe: int) -> dict[str, Any] | None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe, ready.set)
    data = b""
    try:
        while True:
            await ready.wait()
            ready.clear()
            try:
                part = os.read(pipe, _REPORT_BYTES)
            except BlockingIOError:
                continue
            if not part:
                break
            data += part
    finally:
        loop.remove_reader(pipe)
    if not data:
        return None
    report: dict[str, Any] = json.loads(data)
    return report
