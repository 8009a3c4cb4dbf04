"""What the worker orders a shim to do: plain data, part of ``spec.json``.

The order is complete: paths, ids and limits are decided; the shim looks nothing up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobworker.cgroup.interface import CgroupPlan
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import Limits
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.shim import records

#: The next one is the -1 of setresuid(2) and chown(2): "leave it as it is", which is root here.
ID_MAX: Final = (1 << 32) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that a job runs as; no supplementary groups.  ValueError for what is no id."""

    uid: int
    gid: int

    def __post_init__(self) -> None:
        for number in (self.uid, self.gid):
            if not 0 <= number <= ID_MAX:
                raise ValueError(f"cannot run a job as user or group {number}: it is no id")


def read_order(directory: int) -> Order:
    """From the job's directory.  Raises FileNotFoundError, DataLossError, ValueError."""
    spec = records.read(directory, records.SPEC)
    if spec is None:
        raise FileNotFoundError(records.SPEC)
    return Order.from_json(spec["order"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One command to run, with everything around it."""

    job_id: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment."""
    cwd: str
    scratch: str
    """The job's own directory; entered before privileges are dropped if it is the ``cwd``."""
    account: Account | None
    """None: the user that the worker runs as."""
    cgroup: CgroupPlan
    limits: Limits
    devices: tuple[BlockDevice, ...]
    """The disks that IO limits are set on."""
    require_limits: bool
    """Refuse the command if the kernel does not accept a limit."""
    timeout_s: float | None
    grace_s: float
    """Between SIGTERM and SIGKILL where a stop does not say; also after the time limit."""
    max_output_bytes: int | None
    on_output_limit: OnOutputLimit
    isolation: Isolation

    def to_json(self) -> dict[str, object]:
        return {
            **dataclasses.asdict(self),
            "cgroup": self.cgroup.to_json(),
            "on_output_limit": self.on_output_limit.value,
            "isolation": self.isolation.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """The opposite of ``to_json``; KeyError, TypeError or ValueError on anything else."""
        account = data["account"]
        return cls(
            **{
                **data,
                "argv": tuple(data["argv"]),
                "account": None if account is None else Account(**account),
                "cgroup": CgroupPlan.from_json(data["cgroup"]),
                "limits": Limits(**data["limits"]),
                "devices": tuple(BlockDevice(**device) for device in data["devices"]),
                "on_output_limit": OnOutputLimit(data["on_output_limit"]),
                "isolation": Isolation(data["isolation"]),
            }
        )
