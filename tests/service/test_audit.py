"""The audit log: nothing is lost, nothing waits for the disk, and without it nothing is done."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest

from jobworker.errors import FailedPreconditionError, UnavailableError
from jobworker.server.audit import AuditLog, open_audit_log

pytestmark = pytest.mark.anyio


async def test_every_line_is_there_after_the_end(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    async with open_audit_log(file) as audit:
        for number in range(5000):
            audit.write(number=number, nothing=None)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [line["number"] for line in lines] == list(range(5000))
    assert all(line.keys() == {"time", "number"} for line in lines)


async def test_a_disk_that_hangs_holds_up_nobody_and_then_stops_calls(tmp_path: Path) -> None:
    fifo = tmp_path / "audit"
    os.mkfifo(fifo)
    disk = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # and nobody reads it
    try:
        audit = AuditLog(fifo)
        written = 20_000
        for _ in range(written):
            audit.write(text="x" * 100)
        with pytest.raises(UnavailableError, match="audit log cannot be written fast enough"):
            audit.check_room()
        closing = asyncio.get_running_loop().run_in_executor(None, audit.close)
        os.set_blocking(disk, True)
        data = b""
        while data.count(b"\n") < written:
            data += await asyncio.to_thread(os.read, disk, 1 << 20)
        await closing
        audit.check_room()
    finally:
        os.close(disk)
    assert data.count(b"\n") == written


async def test_a_line_that_cannot_be_written_is_not_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        async with open_audit_log(Path("/dev/full")) as audit:
            audit.write(user="alice")
    [record] = caplog.records
    assert json.loads(record.__dict__["line"])["user"] == "alice"
    assert record.__dict__["why"] == "No space left on device (ENOSPC)"


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=rf"cannot write the audit log {tmp_path}/no"):
        async with open_audit_log(tmp_path / "no" / "audit.log"):
            pass
