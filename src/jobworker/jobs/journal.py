"""The journal: every job of a state directory, in SQLite.

One thread owns the connection.  What many callers ask for at the same time is done in one
transaction, so that they share one fsync(2); if that can't be done, each once more by itself, so
that nobody fails of what another asked for.  A change that must survive the machine going down is
waited for with ``durable``; others survive the death of the daemon, and the job directories hold
the same facts.

Source: sqlite.org "wal.html" and "pragma.html#pragma_synchronous": in WAL mode NORMAL may lose the
last transactions when the machine goes down, FULL loses none; neither loses any when the process
dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from jobworker.errors import DataLossError, UnavailableError, errno_text

T = TypeVar("T")

_SCHEMA_VERSION: Final = 1
#: In tables without rowid the columns stand in the order of the key: of any other order the
#: quick_check of SQLite 3.40 says that there are NULLs.
_SCHEMA: Final = """
CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  request_id TEXT,
  fingerprint BLOB NOT NULL,
  created_us INTEGER NOT NULL,
  ended_us INTEGER,
  state TEXT NOT NULL,
  kept_bytes INTEGER NOT NULL DEFAULT 0,
  record BLOB NOT NULL
);
CREATE UNIQUE INDEX jobs_request ON jobs (owner, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_us, id);
CREATE INDEX jobs_owner ON jobs (owner, created_us, id);
CREATE INDEX jobs_live ON jobs (state) WHERE state != 'ENDED';
CREATE INDEX jobs_ended ON jobs (ended_us, id) WHERE ended_us IS NOT NULL;
CREATE TABLE labels (
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  PRIMARY KEY (key, value, job_id)
) WITHOUT ROWID;
CREATE INDEX labels_job ON labels (job_id);
CREATE TABLE accounts (
  owner TEXT PRIMARY KEY,
  uid INTEGER NOT NULL UNIQUE
) WITHOUT ROWID;
"""
#: Beside the schema, so that a journal that was made before there was this table gets it too.
_REMOVALS: Final = "CREATE TABLE IF NOT EXISTS removals (job_id TEXT PRIMARY KEY) WITHOUT ROWID"

#: Callers that share one transaction; more would make the first of them wait.
_BATCH_MAX: Final = 256
#: Of write-ahead log before it is moved into the database file, in pages of 4 KiB.
_CHECKPOINT_PAGES: Final = 1000
#: Result codes of SQLite: the low byte is the kind of error, "rescode.html".
_PRIMARY_CODE: Final = 0xFF
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: Read in a tenth of a second.
_CHECKED_BYTES_MAX: Final = 64 * 1024 * 1024


def mark_damaged(file: Path) -> None:
    """Have the journal made anew at the next start, whatever it looks like then."""
    with contextlib.suppress(OSError):  # a disk that fails: the damage shows again
        damage_mark(file).touch(mode=0o600)


def damage_mark(file: Path) -> Path:
    """The file that says so; removed when the new journal is whole."""
    return file.with_name(f"{file.name}.damaged")


@dataclass(slots=True)
class _Wish(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]


class Journal:
    """Runs pieces of work on the database, one after the other, each whole or not at all."""

    def __init__(self, file: Path) -> None:
        """Open or make it.  Raises UnavailableError, sqlite3.DatabaseError if it is damaged."""
        self._file = file
        self._connection = _open(file)
        self._is_closed = False
        self._wishes: queue.SimpleQueue[_Wish[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Do some work in a transaction.  Raises what it raises, UnavailableError for a failing
        disk and once it is closed, DataLossError if the file is damaged; then the next worker makes
        it anew.

        Cancelling stops the waiting, not the work.
        """
        if self._is_closed:
            raise UnavailableError(f"use the journal {self._file}", "the worker is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._wishes.put(_Wish(work, durable, loop, future))
        try:
            return await future
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"use the journal {self._file}", str(error)) from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE not in _DAMAGE:
                raise
            # A file that is too large to be checked at each start would be taken for good again.
            await asyncio.to_thread(mark_damaged, self._file)
            why = f"it is damaged: {error}; started anew, the service makes it from the jobs' files"
            raise DataLossError(f"use the journal {self._file}", why) from error

    def close(self) -> None:
        """Finish what was asked for and close the database."""
        self._is_closed = True
        self._wishes.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.closing(self._connection):
            while True:
                batch, is_last = self._next_batch()
                if batch:
                    _answer(batch, self._run_batch(batch))
                if is_last:
                    return

    def _next_batch(self) -> tuple[list[_Wish[Any]], bool]:
        batch: list[_Wish[Any]] = []
        wish = self._wishes.get()
        while wish is not None:
            batch.append(wish)
            if len(batch) == _BATCH_MAX:
                return batch, False
            try:
                wish = self._wishes.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _run_batch(self, batch: list[_Wish[Any]]) -> list[object]:
        """A result for each wish; an exception is one too."""
        connection = self._connection
        level = "FULL" if any(wish.durable for wish in batch) else "NORMAL"
        try:
            connection.execute(f"PRAGMA synchronous={level}")
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [error] * len(batch)
        try:
            results = [_run_one(connection, wish) for wish in batch]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(batch) == 1:
                return [error]
            # Nothing of it is done.  One that only looks asks for nothing that a full disk refuses.
            return [self._run_batch([wish])[0] for wish in batch]
        return results


def _run_one(connection: sqlite3.Connection, wish: _Wish[Any]) -> object:
    connection.execute("SAVEPOINT one")
    try:
        result = wish.work(connection)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not connection.in_transaction:
            # Rolled back whole, as SQLite may for a full disk: the savepoint is gone with it.
            # Source: "lang_transaction.html", Response To Errors Within A Transaction.
            raise
        connection.execute("ROLLBACK TO one")
        result = error
    connection.execute("RELEASE one")
    return result


def _answer(batch: list[_Wish[Any]], results: list[object]) -> None:
    for wish, result in zip(batch, results, strict=True):
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
            wish.loop.call_soon_threadsafe(_settle, wish.future, result)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _open(file: Path) -> sqlite3.Connection:
    try:
        # Made by us, or everybody could read it; SQLite gives its other files the same mode.
        file.touch(mode=0o600)
    except OSError as error:
        why = errno_text(error.errno or 0)
        raise UnavailableError(f"open the journal {file}", why) from error
    try:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"open the journal {file}", str(error)) from error
    try:
        _prepare(connection, file)
    except sqlite3.OperationalError as error:
        connection.close()
        raise UnavailableError(f"open the journal {file}", str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        script = f"BEGIN; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;"
        connection.executescript(script)
    elif version != _SCHEMA_VERSION:
        why = f"it is of version {version}, this program knows {_SCHEMA_VERSION}"
        raise UnavailableError(f"open the journal {file}", why)
    connection.execute(_REMOVALS)
    # Reads the whole file, so only while that is quick; damage in a larger one shows when it is
    # used.
    if file.stat().st_size <= _CHECKED_BYTES_MAX:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
