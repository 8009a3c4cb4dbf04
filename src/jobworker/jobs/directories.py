"""The state directory: one directory for each job, and what the jobs themselves may enter.

::

    state/                0711, ours           daemon.lock, starting.lock, boot, launcher.log
    ├── journal.sqlite    0600
    ├── jobs/             0700                 nobody else may even pass
    │   ├── <id>/         0700                 spec.json, output, index, exit.json, …
    │   └── places/       0700
    │       └── <id>/     0700                 made ahead; moved to jobs/ when the job starts
    └── scratch/          0711                 or elsewhere, see below
        └── <id>/         0700, the job's user: working directory and HOME of the job

The jobs' users must be able to reach their scratch by its path.  Where a directory above the state
directory is closed to them and the settings name no other place, it is below ``/var/tmp``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from jobworker.errors import FailedPreconditionError, UnavailableError, errno_text
from jobworker.model.ids import JobId
from jobworker.shim import records
from jobworker.shim.order import Account
from jobworker.shim.place import PlaceDirectory

#: Everybody may pass, and it outlives a restart of the machine: file-hierarchy(7).
_OPEN_PLACE: Final = Path("/var/tmp")  # noqa: S108 - a directory of ours in it, checked to be ours
_LOCK_FILE: Final = "daemon.lock"


class StateDirectory:
    """Owns the layout and the lock that keeps a second worker away."""

    def __init__(self, path: Path, scratch: Path | None) -> None:
        """Makes what is missing and takes the lock.

        Raises UnavailableError if it can't be used, FailedPreconditionError if another worker uses
        it.
        """
        self.path = path.absolute()
        self.jobs = self.path / "jobs"
        # On the file system of the jobs, whatever is mounted there: see ``place``.
        self.places = self.jobs / "places"
        self.scratch = self._place_scratch() if scratch is None else scratch.absolute()
        self.journal_file = self.path / "journal.sqlite"
        self.starting_lock = self.path / "starting.lock"
        self._boot_file = self.path / "boot"
        try:
            for folder in (self.path, self.scratch):
                _make(folder, 0o711)
            for folder in (self.jobs, self.places):
                _make(folder, 0o700)
            _check_ours(self.scratch)
            self._lock = self._take_lock()
        except OSError as error:
            raise UnavailableError(
                f"use the state directory {self.path}", errno_text(error.errno or 0)
            ) from error

    def close(self) -> None:
        """Give the lock back, and a place elsewhere if no job is in it."""
        if self.scratch.parent == _OPEN_PLACE:
            with contextlib.suppress(OSError):
                self.scratch.rmdir()
        os.close(self._lock)

    def job(self, job_id: JobId) -> Path:
        return self.jobs / job_id

    def open_job(self, job_id: JobId) -> AbstractContextManager[int]:
        """A descriptor of a job's directory.  Raises FileNotFoundError."""
        return _opened(self.job(job_id))

    def open_place(self, job_id: JobId) -> AbstractContextManager[int]:
        """The same of its place, before it starts."""
        return _opened(self.place(job_id))

    def job_scratch(self, job_id: JobId) -> Path:
        return self.scratch / job_id

    def place(self, job_id: JobId) -> Path:
        """What will be the job's directory, until it starts and this is moved."""
        return self.places / job_id

    def make_place(self, job_id: JobId) -> PlaceDirectory:
        """That directory and the job's scratch, new.  Raises OSError."""
        place, scratch = self.place(job_id), self.job_scratch(job_id)
        for directory in (place, scratch):
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                # A shim that was killed has left it.
                shutil.rmtree(directory)
                directory.mkdir(mode=0o700)
        with _opened(place) as opened:
            records.make_draft(opened, records.SPEC)
        return PlaceDirectory(str(place), str(self.job(job_id)), str(scratch))

    def remove_place(self, job_id: JobId) -> None:
        """What of it is left; nobody is there."""
        shutil.rmtree(self.place(job_id), ignore_errors=True)

    def clear_places(self) -> None:
        """Remove those that are left of an earlier worker."""
        for place in self.places.iterdir():
            self.remove_place(JobId(place.name))

    def give_scratch(self, job_id: JobId, account: Account | None) -> None:
        """Let the job's user have it.  Raises OSError."""
        if account is not None:
            os.chown(self.job_scratch(job_id), account.uid, account.gid)

    def remove_scratch(self, job_id: JobId) -> None:
        """No process of the job is left; rmtree follows no symbolic link that it planted."""
        shutil.rmtree(self.job_scratch(job_id), ignore_errors=True)

    def remove_job(self, job_id: JobId) -> None:
        """With its output.  Readers that have it open read on."""
        shutil.rmtree(self.job(job_id), ignore_errors=True)
        self.remove_scratch(job_id)

    def free_bytes(self) -> int:
        """Of the file system, for us."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def _place_scratch(self) -> Path:
        if os.geteuid() != 0 or all(_may_pass(folder) for folder in self.path.parents):
            return self.path / "scratch"
        # The name is the same at every start, and no other state directory has it.
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return _OPEN_PLACE / f"jobworker-scratch-{name}"

    def is_of_boot(self, boot_id: str) -> bool:
        """Did an earlier worker use this directory since the machine was started?"""
        try:
            return self._boot_file.read_text("ascii", "replace") == boot_id
        except OSError:
            return False

    def note_boot(self, boot_id: str) -> None:
        """Have ``is_of_boot`` say so from now on; on a failing disk it says less."""
        with contextlib.suppress(OSError):
            self._boot_file.write_text(boot_id, "ascii")

    def _take_lock(self) -> int:
        fd = os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            why = f"another jobworker uses it (pid {holder})"
            raise FailedPreconditionError(f"use the state directory {self.path}", why) from error
        except BaseException:
            os.close(fd)
            raise
        return fd


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _may_pass(folder: Path) -> bool:
    """May others enter it?  One that is to be made, they may."""
    try:
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    except FileNotFoundError:
        return True


def _check_ours(scratch: Path) -> None:
    """Somebody else may have made it first, where everybody may write.  Raises PermissionError."""
    status = scratch.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "not a directory of ours", str(scratch))


def _make(folder: Path, mode: int) -> None:
    """One that is there keeps the mode that its owner gave it."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(mode)
