"""The configuration file ``jobworker.toml``: what it may say, what holds where it is silent.

Owns: the schema (the dataclasses are it) and its defaults.  Not that of the policies
(config_policy.py), not the notation (config_reader.py), not what the values bring about.

Every problem of a file is named at once, each with the path of its key.  Unknown keys are refused:
a misspelt limit would otherwise be no limit.  ``"none"`` takes a default away where that is
possible.  Relative paths start at the directory of the file.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Final

import msgspec

from jobworker.errors import FailedPreconditionError, InvalidArgumentError
from jobworker.jobs.settings import (
    UID_COUNT,
    UID_FIRST,
    RequireLimits,
    Retention,
    WorkerSettings,
)
from jobworker.model.ids import UserName, parse_user_name
from jobworker.model.policy import JobPolicy
from jobworker.model.units import format_duration
from jobworker.security.policy import Role
from jobworker.server.config_policy import read_policy
from jobworker.server.config_reader import Address, Bytes, Count, Seconds, SectionReader
from jobworker.shim.order import ID_MAX

_FILE_BYTES_MAX: Final = 1024 * 1024


class Shutdown(enum.Enum):
    """What becomes of running jobs when the daemon is told to end."""

    LEAVE = "leave"
    """They run on, and the next daemon finds them."""
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSection:
    """``[server]``."""

    listen: Address = field(default=Address("127.0.0.1", 50051))
    metrics: Address | None = None
    """Where Prometheus may read figures, without TLS; None: nowhere."""
    state_dir: Path = Path("state")
    """Jobs, their output, the journal."""
    shutdown: Shutdown = Shutdown.LEAVE
    max_connections: Count = 1000
    max_streams: Count = 1000
    """Output and watch streams and waiting stops at one time, of everybody together."""
    max_streams_per_user: Count = 200
    heartbeat: Seconds = field(default=Seconds(5))
    """A stream that has nothing to say for so long gives a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSection:
    """``[tls]``: PEM files, taken up anew when they change."""

    ca: Path = Path("pki/ca.pem")
    """Whose client certificates are trusted."""
    cert: Path = Path("pki/server.pem")
    key: Path = Path("pki/server.key")
    crl: Path = Path("pki/ca.crl")


#: Clients give a stream up after 15 s of silence (client/backoff.py, ``Patience.silence_s``): one
#: sign of life that is late, on a slow line or a busy machine, must not break it.
_HEARTBEAT_S_MAX: Final = 5.0
#: More often than this, idle streams would keep the service busy.
_HEARTBEAT_S_MIN: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSection:
    """``[worker.retention]``: which ended jobs are kept; beyond any of these the oldest go."""

    max_jobs: Count | None = 10_000
    max_age: Seconds | None = field(default=Seconds(30 * 86400))
    max_bytes: Bytes | None = field(default=Bytes(50 << 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSection:
    """``[worker]``."""

    require_limits: RequireLimits = RequireLimits.STRICT
    cgroup_parent: str | None = None
    """The cgroup below which jobs get theirs; None is the daemon's own."""
    uid_first: Annotated[int, msgspec.Meta(ge=1, le=ID_MAX)] | None = UID_FIRST
    """Each identity runs its jobs under a uid of its own from here on; None: under the daemon's."""
    uid_count: Count = UID_COUNT
    accounts: Mapping[UserName, str] = field(default_factory=dict)
    """Identities whose jobs run as a local account instead."""
    scratch_dir: Path | None = None
    default_grace: Seconds = field(default=Seconds(10))
    min_free: Bytes = field(default=Bytes(16 << 20))
    """No job starts while the file system of the state directory has less."""
    retention: RetentionSection = field(default_factory=RetentionSection)

    def to_settings(self) -> WorkerSettings:
        """What the worker is opened with; raises InvalidArgumentError."""
        return WorkerSettings(
            cgroup_parent=self.cgroup_parent,
            require_limits=self.require_limits,
            uid_first=self.uid_first,
            uid_count=self.uid_count,
            accounts=self.accounts,
            scratch_dir=self.scratch_dir,
            default_grace_s=float(self.default_grace),
            min_free_bytes=self.min_free,
            retention=Retention(
                max_jobs=self.retention.max_jobs,
                max_age_s=self.retention.max_age,
                max_bytes=self.retention.max_bytes,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSection:
    """``[audit]``."""

    file: Path | None = Path("audit.log")
    """None: with the other messages of the daemon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole file; all paths are absolute."""

    server: ServerSection
    tls: TlsSection
    policies: Mapping[Role, JobPolicy]
    """Of every role."""
    worker: WorkerSection
    audit: AuditSection


def load_config(path: Path) -> Config:
    """Read a file; raises FailedPreconditionError that names every problem in it."""
    action = f"use config {path}"
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise FailedPreconditionError(action, error.strerror or str(error)) from error
    if len(text) > _FILE_BYTES_MAX:
        raise FailedPreconditionError(action, f"it has more than {_FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(text.decode())
    except ValueError as error:  # also what is not TOML or not UTF-8
        raise FailedPreconditionError(action, str(error)) from error
    reader = SectionReader(path.absolute().parent)
    config = _read_sections(reader, table)
    if reader.problems:
        several = len(reader.problems) > 1
        why = "".join(f"\n  {problem}" for problem in reader.problems) if several else ""
        raise FailedPreconditionError(action, why or reader.problems[0])
    return config


def _read_sections(reader: SectionReader, table: dict[str, object]) -> Config:
    policy = reader.take_table(table, "policy", "$")
    worker = reader.take_table(table, "worker", "$")
    retention = reader.take_table(worker, "retention", "$.worker")
    accounts = reader.take_table(worker, "accounts", "$.worker")
    config = Config(
        server=reader.section(reader.take_table(table, "server", "$"), "$.server", ServerSection()),
        tls=reader.section(reader.take_table(table, "tls", "$"), "$.tls", TlsSection()),
        policies={
            role: read_policy(reader, reader.take_table(policy, role.value, "$.policy"), role)
            for role in Role
        },
        worker=reader.section(
            worker,
            "$.worker",
            WorkerSection(
                accounts=_read_accounts(reader, accounts),
                retention=reader.section(retention, "$.worker.retention", RetentionSection()),
            ),
        ),
        audit=reader.section(reader.take_table(table, "audit", "$"), "$.audit", AuditSection()),
    )
    _check_ranges(reader, config)
    reader.refuse_rest(policy, "$.policy", [role.value for role in Role])
    reader.refuse_rest(table, "$", [*(each.name for each in fields(Config)), "policy"])
    return config


def _check_ranges(reader: SectionReader, config: Config) -> None:
    """What the type of a single value does not tell."""
    if not _HEARTBEAT_S_MIN <= config.server.heartbeat <= _HEARTBEAT_S_MAX:
        least, most = format_duration(_HEARTBEAT_S_MIN), format_duration(_HEARTBEAT_S_MAX)
        reader.problems.append(f"$.server.heartbeat: it takes {least} to {most}")
    try:
        config.worker.to_settings()
    except InvalidArgumentError as error:
        reader.problems.append(f"$.worker.{error.field}: {error.why}")


def _read_accounts(reader: SectionReader, table: dict[str, object]) -> Mapping[UserName, str]:
    accounts = {}
    for name, account in table.items():
        path = f"$.worker.accounts.{name}"
        try:
            user = parse_user_name(name)
        except InvalidArgumentError as error:
            reader.problems.append(f"{path}: {error.why}")
            continue
        if not isinstance(account, str) or not account:
            reader.problems.append(f"{path}: it takes the name of a local account")
            continue
        accounts[user] = account
    return accounts
