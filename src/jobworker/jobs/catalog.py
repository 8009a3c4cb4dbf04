"""What the journal is asked: every SQL statement about jobs.

Plain functions on a connection, each run inside a transaction of ``Journal.run``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from jobworker.errors import InvalidArgumentError
from jobworker.model.ids import JobId, RequestId, UserName
from jobworker.model.job import Job, JobFilter
from jobworker.model.state import JobState

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A job as it is recorded: what everybody may see, and what makes a repeated start safe."""

    job: Job
    request_id: RequestId | None
    fingerprint: bytes
    """Of what was asked for: one request_id must not be used for two things."""


def insert(connection: sqlite3.Connection, entry: Entry) -> Entry:
    """Record a new job, or return the one that has its request_id already."""
    job = entry.job
    if entry.request_id is not None:
        earlier = find_request(connection, job.owner, entry.request_id)
        if earlier is not None:
            return earlier
    put(connection, entry)
    return entry


def put(connection: sqlite3.Connection, entry: Entry) -> None:
    """Record a job; an older record of it is replaced."""
    job = entry.job
    connection.execute(
        "INSERT OR REPLACE INTO jobs"
        " (id, owner, request_id, fingerprint, created_us, ended_us, state, kept_bytes, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job.id,
            job.owner,
            entry.request_id,
            entry.fingerprint,
            created_us(job),
            None if job.ended_at is None else int(job.ended_at.timestamp() * 1e6),
            job.state.value,
            job.output.kept_bytes,
            _encoder.encode(job),
        ),
    )
    labels = [(key, value, job.id) for key, value in job.spec.labels.items()]
    connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", labels)


def update(connection: sqlite3.Connection, job: Job) -> None:
    """Replace the record of a job that is there."""
    connection.execute(
        "UPDATE jobs SET state = ?, ended_us = ?, kept_bytes = ?, record = ? WHERE id = ?",
        (
            job.state.value,
            None if job.ended_at is None else int(job.ended_at.timestamp() * 1e6),
            job.output.kept_bytes,
            _encoder.encode(job),
            job.id,
        ),
    )


def load(connection: sqlite3.Connection, job_id: JobId) -> Job | None:
    row = connection.execute("SELECT record FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else _decoder.decode(row[0])


def owner_of(connection: sqlite3.Connection, job_id: JobId) -> UserName | None:
    """Takes as long for a job that is there as for one that is not."""
    row = connection.execute("SELECT owner FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else UserName(row[0])


def find_request(
    connection: sqlite3.Connection, owner: UserName, request_id: RequestId
) -> Entry | None:
    """The job that an owner's request made."""
    row = connection.execute(
        "SELECT record, fingerprint FROM jobs WHERE owner = ? AND request_id = ?",
        (owner, request_id),
    ).fetchone()
    if row is None:
        return None
    return Entry(job=_decoder.decode(row[0]), request_id=request_id, fingerprint=row[1])


def live_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Jobs that are not recorded as ended."""
    rows = connection.execute("SELECT record FROM jobs WHERE state != 'ENDED'").fetchall()
    return [_decoder.decode(row[0]) for row in rows]


def kept_bytes(connection: sqlite3.Connection) -> dict[UserName, int]:
    """Of ended jobs, by owner."""
    rows = connection.execute(
        "SELECT owner, SUM(kept_bytes) FROM jobs WHERE state = 'ENDED' GROUP BY owner"
    )
    return {UserName(owner): total for owner, total in rows}


def page(
    connection: sqlite3.Connection, which: JobFilter, size: int, token: str
) -> tuple[list[Job], str]:
    """Up to ``size`` jobs, newest first, and the token of the next page ("" if there is none)."""
    conditions, values = _conditions(which)
    if token:
        conditions.append("(created_us, id) < (?, ?)")
        values.extend(_parse_token(token))
    where = " AND ".join(conditions) or "TRUE"
    rows = connection.execute(
        f"SELECT record FROM jobs WHERE {where} ORDER BY created_us DESC, id DESC LIMIT ?",  # noqa: S608 - only our own texts are put in
        (*values, size + 1),
    ).fetchall()
    jobs = [_decoder.decode(row[0]) for row in rows[:size]]
    has_more = len(rows) > size
    return jobs, f"{created_us(jobs[-1])}.{jobs[-1].id}" if has_more else ""


def delete(connection: sqlite3.Connection, job_id: JobId) -> bool:
    """Forget a job, but for the removal of its files; False if there is no such job."""
    if not connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,)).rowcount:
        return False
    connection.execute("INSERT OR REPLACE INTO removals VALUES (?)", (job_id,))
    return True


def removals(connection: sqlite3.Connection) -> list[JobId]:
    """Deleted jobs whose files may still be there."""
    return [JobId(job_id) for (job_id,) in connection.execute("SELECT job_id FROM removals")]


def end_removal(connection: sqlite3.Connection, job_id: JobId) -> None:
    """The files of a deleted job are gone."""
    connection.execute("DELETE FROM removals WHERE job_id = ?", (job_id,))


def oldest_ended(connection: sqlite3.Connection, most: int) -> list[tuple[JobId, int]]:
    """(id, ended_us) of ended jobs, the longest ended first."""
    rows = connection.execute(
        "SELECT id, ended_us FROM jobs WHERE ended_us IS NOT NULL ORDER BY ended_us, id LIMIT ?",
        (most,),
    )
    return [(JobId(job_id), ended_us) for job_id, ended_us in rows]


def count_ended(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT COUNT(*) FROM jobs WHERE ended_us IS NOT NULL").fetchone()
    count: int = row[0]
    return count


def uid_of(connection: sqlite3.Connection, owner: UserName, first: int, count: int) -> int | None:
    """The user id given to an owner for good; None if all are given out."""
    row = connection.execute("SELECT uid FROM accounts WHERE owner = ?", (owner,)).fetchone()
    if row is not None:
        uid: int = row[0]
        return uid
    highest = connection.execute(
        "SELECT MAX(uid) FROM accounts WHERE uid BETWEEN ? AND ?", (first, first + count - 1)
    ).fetchone()[0]
    uid = first if highest is None else highest + 1
    if uid >= first + count:
        return None
    connection.execute("INSERT INTO accounts VALUES (?, ?)", (owner, uid))
    return uid


def keep_uid(connection: sqlite3.Connection, owner: UserName, uid: int) -> None:
    """Record what an owner's jobs run as, if neither has a record yet."""
    connection.execute("INSERT OR IGNORE INTO accounts VALUES (?, ?)", (owner, uid))


def created_us(job: Job) -> int:
    return int(job.created_at.timestamp() * 1e6)


def _conditions(which: JobFilter) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if which.owner is not None:
        conditions.append("owner = ?")
        values.append(which.owner)
    if which.states:
        conditions.append(f"state IN ({', '.join('?' * len(which.states))})")
        values.extend(state.value for state in which.states)
        if JobState.ENDED not in which.states:
            # Said so that the small index of live jobs serves, and not the one of all.
            conditions.append("state != 'ENDED'")
    if which.id_prefix:
        # A range and not LIKE: it uses the primary key.
        conditions.append("id >= ? AND id < ?")
        values.extend((which.id_prefix, which.id_prefix + "\x7f"))
    for key, value in which.labels.items():
        conditions.append(
            "EXISTS (SELECT 1 FROM labels WHERE job_id = jobs.id AND key = ? AND value = ?)"
        )
        values.extend((key, value))
    return conditions, values


#: A microsecond of the next 30,000 years; more digits might be more than SQLite's integers hold.
_TIME_DIGITS_MAX: Final = 18


def _parse_token(token: str) -> tuple[int, str]:
    created, _, job_id = token.partition(".")
    is_time = created.isascii() and created.isdigit() and len(created) <= _TIME_DIGITS_MAX
    if not (is_time and job_id):
        raise InvalidArgumentError("page_token", token, "it is not from an earlier answer")
    return int(created), job_id
