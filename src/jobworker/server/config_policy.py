"""``[policy.user]`` and ``[policy.admin]`` of the configuration: what the jobs of a role may use.

Owns: the keys, the predefined policies, and what of them the worker is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobworker.errors import InvalidLimitError
from jobworker.model.limits import CPU_MILLIS_MAX, CPU_MILLIS_MIN, Limits
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.model.units import format_cpus
from jobworker.security.policy import Role
from jobworker.server.config_reader import Bytes, Count, CpuMillis, Seconds, SectionReader

#: Our keys, and the fields of ``Limits`` that they set.
_LIMIT_NAMES: Final[Mapping[str, str]] = {
    "cpu": "cpu_millis",
    "memory": "memory_bytes",
    "tasks": "tasks",
    "io_read": "io_read_bytes_per_s",
    "io_write": "io_write_bytes_per_s",
    "io_read_iops": "io_read_ops_per_s",
    "io_write_iops": "io_write_ops_per_s",
}

_CPU_RANGE: Final = f"it takes {format_cpus(CPU_MILLIS_MIN)} to {format_cpus(CPU_MILLIS_MAX)} CPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """``[policy.user]`` and ``[policy.admin]``.  None is no limit."""

    cpu: CpuMillis | None = None
    memory: Bytes | None = None
    tasks: int | None = None
    io_read: Bytes | None = None
    io_write: Bytes | None = None
    io_read_iops: int | None = None
    io_write_iops: int | None = None
    timeout: Seconds | None = None
    max_output: Bytes | None = None
    on_output_limit: OnOutputLimit = OnOutputLimit.STOP
    isolation: Isolation = Isolation.NONE
    may_loosen_isolation: bool = False
    max_running_jobs: Count | None = None
    max_kept: Bytes | None = None

    def to_policy(self) -> JobPolicy:
        """What the worker applies; raises InvalidLimitError."""
        return JobPolicy(
            limits=Limits(
                **{name: _plain(getattr(self, key)) for key, name in _LIMIT_NAMES.items()}
            ),
            timeout_s=None if self.timeout is None else float(self.timeout),
            max_output_bytes=_plain(self.max_output),
            on_output_limit=self.on_output_limit,
            isolation=self.isolation,
            may_loosen_isolation=self.may_loosen_isolation,
            max_running_jobs=self.max_running_jobs,
            max_kept_bytes=_plain(self.max_kept),
        )


def _plain(amount: int | None) -> int | None:
    """The number without the type that says how it is written here: others store it."""
    return None if amount is None else int(amount)


#: The predefined policy of standard users: half a CPU and what a script or a build step needs, so
#: that one user cannot take a small machine from the others.
USER_POLICY: Final = PolicySection(
    cpu=CpuMillis(500),
    memory=Bytes(256 << 20),
    tasks=128,
    io_read=Bytes(20 << 20),
    io_write=Bytes(20 << 20),
    max_output=Bytes(1 << 30),
    max_running_jobs=50,
    max_kept=Bytes(10 << 30),
)
#: An admin's jobs are not limited by default; only their output is, which ends up on this disk.
ADMIN_POLICY: Final = PolicySection(max_output=Bytes(10 << 30), may_loosen_isolation=True)
_POLICIES: Final = {Role.USER: USER_POLICY, Role.ADMIN: ADMIN_POLICY}


def read_policy(reader: SectionReader, table: dict[str, object], role: Role) -> JobPolicy:
    """The policy of one role; what is wrong in it is among the reader's problems."""
    path = f"$.policy.{role.value}"
    section = reader.section(table, path, _POLICIES[role])
    for key, name in _LIMIT_NAMES.items():
        try:
            Limits(**{name: getattr(section, key)})
        except InvalidLimitError as error:
            # The range is told in thousandths of a CPU, which nobody wrote.
            why = _CPU_RANGE if key == "cpu" else error.why
            reader.problems.append(f"{path}.{key}: {why}")
    return JobPolicy() if reader.problems else section.to_policy()
