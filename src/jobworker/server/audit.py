"""The audit log: one JSON line for each decision, allow or deny.

Owns: what a line says, and that it gets to the file.  Lines are handed to a thread, so that a slow
disk never holds the event loop.  When it holds the thread for so long that the lines in between
would be too many, calls are refused: nothing is done that is not on record.

Never in a line: arguments, environment, labels, names, keys.  A reason is only told where it is
made of the certificate and the method alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from jobworker.errors import FailedPreconditionError, UnavailableError, errno_text

logger = logging.getLogger(__name__)

#: Lines that wait for the disk: some seconds' worth at full speed, about 4 MB.
_WAITING_MAX: Final = 10_000
_MODE: Final = 0o600
_STDERR_FD: Final = 2


class AuditLog:
    """Takes lines at once and writes them in order.  Made by ``open_audit_log``."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._fd = _open(file)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reopen = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    def check_room(self) -> None:
        """Raises UnavailableError while more lines wait for the disk than may."""
        if self._lines.qsize() >= _WAITING_MAX:
            raise UnavailableError("answer", "the audit log cannot be written fast enough")

    def write(self, **entries: str | float | None) -> None:
        """Add a line with the time and these entries, those that are None left out."""
        line = {"time": datetime.datetime.now(datetime.UTC).isoformat()} | {
            name: value for name, value in entries.items() if value is not None
        }
        self._lines.put(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def reopen(self) -> None:
        """Go on in the file that has the name now: somebody moved the old one away."""
        self._reopen.set()

    def close(self) -> None:
        """Waits until every line is written."""
        self._lines.put(None)
        self._thread.join()
        os.close(self._fd)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._reopen.is_set():
                self._reopen.clear()
                self._exchange_file()
            try:
                _write(self._fd, line)
            except OSError as error:
                # Not lost: it goes where the daemon's other messages go.
                logger.error(  # noqa: TRY400 -- the traceback says nothing
                    "audit line not written to its file",
                    extra={"why": errno_text(error.errno or 0), "line": line.decode().rstrip()},
                )

    def _exchange_file(self) -> None:
        try:
            fd = _open(self._file)
        except FailedPreconditionError as error:
            logger.error("audit log not reopened", extra={"why": str(error)})  # noqa: TRY400
            return
        os.close(self._fd)
        self._fd = fd


@contextlib.asynccontextmanager
async def open_audit_log(file: Path | None) -> AsyncIterator[AuditLog]:
    """Append to a file, which only its owner may read; ``None`` is standard error.

    Leaving the block waits until every line is written.  Raises FailedPreconditionError.
    """
    audit = await asyncio.to_thread(AuditLog, file)
    try:
        yield audit
    finally:
        await asyncio.to_thread(audit.close)


def _open(file: Path | None) -> int:
    if file is None:
        return os.dup(_STDERR_FD)
    try:
        return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        reason = errno_text(error.errno or 0)
        raise FailedPreconditionError(f"write the audit log {file}", reason) from error


def _write(fd: int, line: bytes) -> None:
    """All of it; a full disk may take a part only."""
    while line:
        line = line[os.write(fd, line) :]
