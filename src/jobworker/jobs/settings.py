"""How a worker is set up."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jobworker.errors import InvalidArgumentError
from jobworker.model.ids import UserName
from jobworker.shim.order import ID_MAX

#: Above what distributions, systemd and container engines give out (systemd's "UIDS-GIDS.md").
UID_FIRST: Final = 1_900_000_000
UID_COUNT: Final = 65_536


class RequireLimits(enum.Enum):
    """What becomes of a job with a limit that this host does not keep."""

    STRICT = "strict"
    """It is refused."""
    WARN = "warn"
    """It runs, and its status says what is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long ended jobs are kept: beyond any of these the oldest go.  ``None`` is for ever."""

    max_jobs: int | None = None
    max_age_s: float | None = None
    max_bytes: int | None = None
    """Of kept output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything that a worker can be told besides its state directory."""

    cgroup_parent: str | None = None
    """Where the jobs' cgroups go; ``None``: below the worker's own cgroup."""
    require_limits: RequireLimits = RequireLimits.STRICT
    uid_first: int | None = UID_FIRST
    """A user id is given to each owner from here on; ``None``: jobs run as the worker's own user.

    Without root it is as if it were ``None``."""
    uid_count: int = UID_COUNT
    accounts: Mapping[UserName, str] = field(default_factory=dict)
    """Owners whose jobs run as an account of this machine, by its name."""
    scratch_dir: Path | None = None
    """Below it each job gets a directory, which its user must be able to reach.

    ``None``: ``scratch`` in the state directory, or below ``/var/tmp`` if they can't reach that."""
    default_grace_s: float = 10.0
    """From SIGTERM to SIGKILL where a stop does not say."""
    min_free_bytes: int = 16 * 1024 * 1024
    """No job starts while the state directory's file system has less."""
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if self.uid_first is None:
            return
        if self.uid_first < 1:
            raise InvalidArgumentError("uid_first", self.uid_first, "the least is 1: 0 is root")
        if self.uid_count < 1:
            raise InvalidArgumentError("uid_count", self.uid_count, "the least is 1")
        last = self.uid_first + self.uid_count - 1
        if last > ID_MAX:
            why = f"the last id would be {last}, the most is {ID_MAX}"
            raise InvalidArgumentError("uid_count", self.uid_count, why)

    @property
    def uids(self) -> range:
        """Those that are given to owners."""
        return (
            range(0)
            if self.uid_first is None
            else range(self.uid_first, self.uid_first + self.uid_count)
        )
