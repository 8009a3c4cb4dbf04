"""Violence for tests: daemons to kill, disks that fill up, jobs whose every byte can be checked.

Owns: the injectors and the accounts afterwards (what ran, what is left).  Not what must hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from jobworker.cgroup.location import find_locations
from jobworker.client.target import Target
from jobworker.kernel.process import ProcessName, name_process, open_pid, read_boot_id
from jobworker.model import JobSpec
from support.certificates import Installation
from support.worker import python

BIN: Final = Path(sys.executable).parent
_LISTENS = re.compile(rb"listening on (\S+):(\d+) ")

# -- jobs that can be checked ----------------------------------------------------------------------

#: Numbered lines with a checksum, to stdout and stderr in turn.  A file of its own for each process
#: that runs it tells how often that was; told to end, it writes there how many lines it wrote.
_WRITER: Final = """
import os, signal, sys, time, zlib
folder, name, lines, width, period_s, end = sys.argv[1:]
witness = os.open(f"{folder}/{name}.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
written = 0
def finish(*_):
    os.write(witness, str(written).encode())
    os._exit(0)
for number in range(int(lines)):
    text = f"{name} {number:06d}".ljust(int(width), ".")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, finish)
    line = f"{text} {zlib.crc32(text.encode()):08x}\\n".encode()
    while line:
        line = line[os.write(1 + number % 2, line):]
    written += 1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    time.sleep(float(period_s))
if int(end) < 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), -int(end))
os._exit(int(end))
"""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A job that writes what can be foretold."""

    name: str
    """Also that of its witness file."""
    lines: int
    width: int = 40
    period_s: float = 0.0
    """Between two lines."""
    end: int = 0
    """Exit code, or the negative number of the signal by which it ends."""

    def spec(self, witnesses: Path) -> JobSpec:
        """witnesses: a directory that every user may write to."""
        numbers = (self.lines, self.width, self.period_s, self.end)
        arguments = (str(witnesses), self.name, *map(str, numbers))
        return python(_WRITER, *arguments, labels={"writing": self.name})

    def expected(self, lines: int | None = None) -> tuple[bytes, bytes]:
        """stdout and stderr of the whole, or of the first so many lines."""
        streams = (bytearray(), bytearray())
        for number in range(self.lines if lines is None else lines):
            text = f"{self.name} {number:06d}".ljust(self.width, ".")
            streams[number % 2].extend(f"{text} {zlib.crc32(text.encode()):08x}\n".encode())
        return bytes(streams[0]), bytes(streams[1])


def witnessed(witnesses: Path) -> dict[str, list[int]]:
    """By name of a writing: the pids of the processes that ran it."""
    found: dict[str, list[int]] = {}
    for file in witnesses.iterdir():
        name, _, pid = file.name.rpartition(".")
        found.setdefault(name, []).append(int(pid))
    return found


@contextlib.contextmanager
def witness_directory(parent: Path) -> Iterator[Path]:
    """Where processes of any user leave their witness."""
    path = parent / "witnesses"
    path.mkdir()
    path.chmod(0o777)
    yield path


# -- processes -------------------------------------------------------------------------------------


def kill(pid: int) -> None:
    """SIGKILL, at once; no-op if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """A process that is there and not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_writing(pid: int, witnesses: Path) -> bool:
    """Does this process, and none that has its number now, still run a writing?"""
    try:
        return str(witnesses) in psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return False


async def wait_dead(pid: int) -> None:
    """Return once a process that is not our child is gone."""
    pidfd = open_pid(pid)
    if pidfd is None:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def launcher_of(pid: int) -> int | None:
    """The launcher among the children of a worker's process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            if child.name() == "jobworker-launc":
                return int(child.pid)
    return None


def shims_of(state_dir: Path) -> list[int]:
    """Shims of this state directory that live; none that only has the number of one."""
    pids = []
    for record in (state_dir / "jobs").glob("*/shim.json"):
        name = ProcessName(**json.loads(record.read_bytes()))
        with contextlib.suppress(ProcessLookupError):
            if name_process(name.pid) == name:
                pids.append(name.pid)
    return pids


@functools.cache
def cgroup_parents(name: str) -> list[Path]:
    """Where a worker of this process's kin makes the parent ``name``, in every tree.

    Reads files of the kernel, so call it first where there is no event loop.
    """
    read_boot_id()  # It is remembered too.
    locations = find_locations()
    found = (locations.unified, *locations.legacy.values())
    return [Path(location.base(name)) for location in found if location is not None]


def job_cgroups(name: str) -> list[Path]:
    """Cgroups of jobs below the parent ``name``."""
    return [path for parent in cgroup_parents(name) for path in parent.glob("*/*/")]


def wait_settled(state_dir: Path) -> None:
    """Return once no start of a dead worker is under way, and no place of it waits for a job."""
    with (
        contextlib.suppress(FileNotFoundError),  # no worker came as far as making it
        (state_dir / "starting.lock").open("rb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)


async def kill_jobs(state_dir: Path, cgroup_name: str) -> None:
    """All that is left of a dead worker's jobs: the shims, then the members of the cgroups."""
    await asyncio.to_thread(wait_settled, state_dir)
    for pid in shims_of(state_dir):
        kill(pid)
        await wait_dead(pid)
    # Only now: a shim that came to its end would remove cgroups while they are looked at.
    for path in job_cgroups(cgroup_name):
        for member in map(int, (path / "cgroup.procs").read_text().split()):
            kill(member)
            await wait_dead(member)


def remove_cgroups(name: str) -> None:
    """The parent ``name`` and what is below; a killed worker leaves them."""
    for parent in cgroup_parents(name):
        for folder, _, _ in os.walk(parent, topdown=False):
            Path(folder).rmdir()


# -- trouble that passes ---------------------------------------------------------------------------


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing: EMFILE.  What is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def told_by(logger_name: str) -> Iterator[asyncio.Event]:
    """Set once this part of the worker has met trouble, and says so."""
    event = asyncio.Event()

    def notice(record: logging.LogRecord) -> bool:
        del record
        event.set()
        return True

    logger = logging.getLogger(logger_name)
    logger.addFilter(notice)
    try:
        yield event
    finally:
        logger.removeFilter(notice)


# -- the daemon ------------------------------------------------------------------------------------


class Daemon:
    """``jobworker serve`` as a process of its own, always on the same port and state directory."""

    def __init__(self, config_file: Path, log_file: Path) -> None:
        self._config_file = config_file
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._is_ready = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def target(self, installation: Installation, user: str) -> Target:
        store = installation.store
        return Target(
            server=f"127.0.0.1:{self._port}",
            ca=installation.ca_file,
            cert=store.certificate_file(user),
            key=store.key_file(user),
        )

    async def spawn(self) -> None:
        """Start it; it is not ready yet."""
        self._is_ready = False
        self._process = await asyncio.create_subprocess_exec(
            *(BIN / "jobworker", "serve", "--config", self._config_file),
            *("--listen", f"127.0.0.1:{self._port}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    async def wait_ready(self) -> bool:
        """Once it listens; False if it ended before."""
        assert self._process is not None
        assert self._process.stderr is not None
        while not self._is_ready and (line := await self._process.stderr.readline()):
            self._log(line)
            listens = _LISTENS.search(line)
            if listens is not None:
                self._port = int(listens[2])
                self._is_ready = True
        return self._is_ready

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            kill(self._process.pid)
            await self._end()

    async def terminate(self) -> int:
        """SIGTERM, as an operator does; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self._end()

    async def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        self._log(await process.stderr.read())
        return await process.wait()

    def _log(self, data: bytes) -> None:
        with self._log_file.open("ab") as file:
            file.write(data)


@contextlib.asynccontextmanager
async def open_daemon(
    state_dir: Path, installation: Installation, cgroup_name: str
) -> AsyncIterator[Daemon]:
    """A daemon that is ready; what it and its kin left is removed at the end."""
    store = installation.store
    config_file = state_dir / "jobworker.toml"
    config_file.write_text(
        f"""
        [server]
        state_dir = "{state_dir}/state"
        heartbeat = "1s"
        [tls]
        ca = "{installation.ca_file}"
        cert = "{store.certificate_file("server")}"
        key = "{store.key_file("server")}"
        crl = "{store.crl_file}"
        [worker]
        cgroup_parent = "{cgroup_name}"
        """
    )
    daemon = Daemon(config_file, state_dir / "daemon.log")
    await daemon.spawn()
    try:
        assert await daemon.wait_ready(), (state_dir / "daemon.log").read_text()
        yield daemon
    finally:
        await daemon.kill()
        await kill_jobs(state_dir / "state", cgroup_name)
        remove_cgroups(cgroup_name)


# -- disks -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(mount_point: Path, size_bytes: int, *, kind: str) -> Iterator[Path]:
    """A file system of its own: ``tmpfs``, or ``ext4`` on a loop device."""
    mount_point.mkdir()
    image = mount_point.with_suffix(".image")
    if kind == "tmpfs":
        options = ["-t", "tmpfs", "-o", f"size={size_bytes},mode=0711", "tmpfs"]
    else:
        with image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        options = ["-o", "loop", str(image)]
    subprocess.run(["mount", *options, mount_point], check=True)
    try:
        mount_point.chmod(0o711)
        yield mount_point
    finally:
        _unmount(mount_point)
        image.unlink(missing_ok=True)


def _unmount(mount_point: Path) -> None:
    """Once the last process of the test is gone that has a file open there."""
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", mount_point], check=False).returncode:
        assert time.monotonic() < deadline, f"{mount_point} stays in use"
        time.sleep(0.05)  # noqa: TID251 - nothing announces that a file system is free


def fill(folder: Path) -> Path:
    """Leave no free block on a disk; remove the returned file to have them back."""
    ballast = folder / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size_bytes in (1 << 20, 1 << 16, 1 << 12):
            _fill_by(fd, bytes(size_bytes))
        # Delayed allocation may have promised less than was there: what is free is known now.
        os.fsync(fd)
        _fill_by(fd, bytes(1 << 12))
    finally:
        os.close(fd)
    return ballast


def _fill_by(fd: int, block: bytes) -> None:
    try:
        while True:
            os.write(fd, block)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
