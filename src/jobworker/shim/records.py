"""The records in a job's directory: small JSON files, each written by one process only.

=============  =========  =========================================================================
file           written by
=============  =========  =========================================================================
spec.json      worker     the job as asked for, and the order that the shim carries out
shim.json      shim       its name as a process; from here on there may be cgroups and processes
started.json   shim       the command was executed: when, and the limits that the kernel accepted
stop.json      worker     the intent to stop: who, when, how long the grace is
limits.json    worker     limits changed since the start, who changed them, and what is in force;
                          replaced before each change and after it
exit.json      shim       the ending; written last, put onto the disk before it has its name
=============  =========  =========================================================================

A record appears whole or not at all: it is written under another name and renamed.  Room for those
that must be written on a full disk is reserved when the job starts.

Source: rename(2), fsync(2).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from jobworker.errors import DataLossError
from jobworker.kernel import space
from jobworker.model.ending import Ending

SPEC: Final = "spec.json"
SHIM: Final = "shim.json"
STARTED: Final = "started.json"
STOP: Final = "stop.json"
LIMITS: Final = "limits.json"
EXIT: Final = "exit.json"

#: One block: an ending takes about 1 KiB.
_RESERVED_BYTES: Final = 4096
#: Far more than a spec at its bounds; a larger file is not one of ours.
_RECORD_BYTES_MAX: Final = 64 * 1024 * 1024


def make_draft(directory: int, name: str, *, reserved_bytes: int = 0) -> None:
    """Make a record's file ahead, which takes most of the time that it takes to write one."""
    fd = os.open(_draft(name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        if reserved_bytes:
            space.reserve(fd, 0, reserved_bytes)
    finally:
        os.close(fd)


def reserve(directory: int, name: str) -> None:
    """Take the space that a record will need.  Raises OSError (ENOSPC) while that is harmless."""
    make_draft(directory, name, reserved_bytes=_RESERVED_BYTES)


def write(directory: int, name: str, record: Mapping[str, object], *, durable: bool) -> None:
    """Make a record appear; with ``durable`` it is on the disk when this returns.

    directory: of the job; borrowed.  Raises OSError.
    """
    draft(directory, name, record, durable=durable)
    publish(directory, name)
    if durable:
        os.fsync(directory)


def draft(directory: int, name: str, record: Mapping[str, object], *, durable: bool) -> None:
    """Write a record that nobody sees yet; as ``write``."""
    data = encode(record)
    # Not truncated when opened: that would give the reserved space away.
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    fd = os.open(_draft(name), flags, 0o600, dir_fd=directory)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
        os.ftruncate(fd, len(data))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def publish(directory: int, name: str) -> None:
    """Let a drafted record appear."""
    os.rename(_draft(name), name, src_dir_fd=directory, dst_dir_fd=directory)


def read(directory: int, name: str) -> dict[str, Any] | None:
    """A record, or None if there is none.  Raises DataLossError if it is damaged."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        data = _read_all(fd)
    finally:
        os.close(fd)
    try:
        record = json.loads(data)
    except ValueError as error:
        raise DataLossError(f"read {name}", f"it is damaged: {error}") from error
    if not isinstance(record, dict):
        raise DataLossError(f"read {name}", "it is damaged: not an object")
    return record


def write_ending(
    directory: int, ending: Ending, *, refusal: Mapping[str, object] | None = None
) -> None:
    """exit.json, on the disk when this returns.  refusal: why the command was not executed."""
    record = {
        "ended_at_us": time.time_ns() // 1000,
        "ending": {**dataclasses.asdict(ending), "reason": ending.reason.value},
        "refusal": refusal,
    }
    write(directory, EXIT, record, durable=True)


def encode(record: Mapping[str, object]) -> bytes:
    """As the records are written: JSON, ASCII only."""
    return _encoder.encode(record).encode("ascii")


_encoder = json.JSONEncoder(separators=(",", ":"))


def _read_all(fd: int) -> bytes:
    most = min(os.fstat(fd).st_size, _RECORD_BYTES_MAX)
    data = b""
    while len(data) < most and (part := os.read(fd, most - len(data))):
        data += part
    return data


def forget_drafts(directory: int) -> None:
    """Give back space that was reserved and not used, and what was drafted in vain."""
    for name in (STARTED, STOP, EXIT):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_draft(name), dir_fd=directory)


def _draft(name: str) -> str:
    return f"{name}.new"
