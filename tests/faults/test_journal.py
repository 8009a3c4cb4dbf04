"""The disk takes nothing more of the journal: each caller is told of its own wish, and truly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from jobworker.errors import UnavailableError
from jobworker.jobs import catalog
from jobworker.jobs.journal import Journal
from support.faults import fill, small_disk
from support.guards import need

pytestmark = pytest.mark.anyio

_BLOB_BYTES: Final = 100_000


@contextlib.asynccontextmanager
async def open_journal(folder: Path) -> AsyncIterator[Journal]:
    journal = await asyncio.to_thread(Journal, folder / "journal.sqlite")
    try:
        yield journal
    finally:
        await asyncio.to_thread(journal.close)


def put(name: str, size_bytes: int) -> Callable[[sqlite3.Connection], None]:
    """A row for an ended job; one statement that SQLite may roll back with all before it."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO jobs (id, owner, fingerprint, created_us, ended_us, state, record)"
            " VALUES (?, 'alice', x'', 1, 1, 'ENDED', zeroblob(?))",
            (name, size_bytes),
        )

    return work


async def run_together(
    journal: Journal, *works: Callable[[sqlite3.Connection], object]
) -> list[object]:
    """In one transaction; an exception is a result too."""
    is_busy, is_enough = threading.Event(), threading.Event()
    results: list[object] = [None] * len(works)

    def keep_busy(_: sqlite3.Connection) -> None:
        is_busy.set()
        is_enough.wait()

    async def run(number: int) -> None:
        try:
            results[number] = await journal.run(works[number])
        except UnavailableError as error:
            results[number] = error

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(journal.run(keep_busy))
        await asyncio.to_thread(is_busy.wait)
        for number in range(len(works)):
            tasks.create_task(run(number))
        await asyncio.sleep(0)  # noqa: TID251 - they begin, and wait behind it
        is_enough.set()
    return results


async def test_a_statement_that_finds_the_disk_full_fails_alone_and_says_so(
    tmp_path: Path,
) -> None:
    async with open_journal(tmp_path) as journal:

        def leave_little(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages + 4}")

        await journal.run(leave_little)
        results = await run_together(
            journal, put("small", 10), put("large", _BLOB_BYTES), catalog.count_ended
        )
        assert results[0] is None
        assert isinstance(results[1], UnavailableError)
        assert "database or disk is full" in str(results[1])
        assert results[2] == 1
        assert await journal.run(catalog.count_ended) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need(os.geteuid() == 0, "root")
    with small_disk(tmp_path / "disk", 4 << 20, kind="tmpfs") as disk:
        yield disk


async def test_a_look_succeeds_beside_a_change_that_the_disk_refuses(disk: Path) -> None:
    async with open_journal(disk) as journal:
        await journal.run(put("earlier", 10))
        ballast = fill(disk)
        results = await run_together(journal, catalog.count_ended, put("large", _BLOB_BYTES))
        assert results[0] == 1
        assert "database or disk is full" in str(results[1])
        ballast.unlink()
        results = await run_together(journal, put("large", _BLOB_BYTES), catalog.count_ended)
        assert results == [None, 2]
