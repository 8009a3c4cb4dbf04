"""What a start is to be: a spec, completed and bounded by a policy, for this host.

Decides everything and does nothing: starting.py records and orders it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final, TypeVar

from jobworker.cgroup.interface import Hierarchy
from jobworker.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnenforceableLimitError,
    errno_text,
)
from jobworker.jobs.registry import Registry
from jobworker.jobs.settings import RequireLimits, WorkerSettings
from jobworker.kernel.disks import BlockDevice, MountedDisks
from jobworker.model.ids import RequestId, UserName
from jobworker.model.job import Job
from jobworker.model.limits import IO_RESOURCES, Limits, Resource
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import Isolation, JobSpec
from jobworker.model.state import JobState
from jobworker.shim.launcher import Place
from jobworker.shim.order import Account, Order

_Amount = TypeVar("_Amount", int, float)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is decided before a start is recorded."""

    job: Job
    place: Place
    account: Account | None
    order: Order
    request_id: RequestId | None
    fingerprint: bytes


class Planner:
    """Knows the host and the settings."""

    def __init__(
        self,
        registry: Registry,
        hierarchy: Hierarchy,
        disks: MountedDisks,
        settings: WorkerSettings,
    ) -> None:
        self._registry = registry
        self._hierarchy = hierarchy
        self._disks = disks
        self._settings = settings
        self._is_strict = settings.require_limits is RequireLimits.STRICT

    def check_bounds(self, owner: UserName, policy: JobPolicy) -> None:
        """Raises ResourceExhaustedError where a bound is reached that another job would pass."""
        running = self._registry.running_of(owner)
        if policy.max_running_jobs is not None and running >= policy.max_running_jobs:
            why = f"{owner} has {running} jobs running, which is the most; wait for one or stop one"
            raise ResourceExhaustedError("start the command", why)
        kept = self._registry.kept_bytes.get(owner, 0)
        if policy.max_kept_bytes is not None and kept >= policy.max_kept_bytes:
            why = f"{owner} has {kept} bytes of output kept, the most is {policy.max_kept_bytes}"
            raise ResourceExhaustedError("start the command", f"{why}; remove jobs that have ended")
        try:
            free = self._registry.directories.free_bytes()
        except OSError as error:
            path = self._registry.directories.path
            why = errno_text(error.errno or 0)
            raise UnavailableError(f"use the state directory {path}", why) from error
        if free < self._settings.min_free_bytes:
            least = self._settings.min_free_bytes
            why = f"{free} bytes are free on the service's disk, the least is {least}"
            raise ResourceExhaustedError("start the command", f"no space for its output: {why}")

    def plan(
        self,
        place: Place,
        spec: JobSpec,
        owner: UserName,
        policy: JobPolicy,
        account: Account | None,
        request_id: RequestId | None,
        fingerprint: bytes,
    ) -> Plan:
        """Complete a spec by the policy.

        Raises UnenforceableLimitError, InvalidArgumentError, PermissionDeniedError.
        """
        limits = spec.limits.or_else(policy.limits)
        self._check_enforceable(limits)
        isolation = _isolation(spec, policy)
        job = Job(
            id=place.job_id,
            owner=owner,
            state=JobState.STARTING,
            spec=spec,
            limits=limits,
            isolation=isolation,
            created_at=datetime.datetime.now(datetime.UTC),
        )
        needs_disks = any(limits.get(resource) is not None for resource in IO_RESOURCES)
        devices = self._disks.now() if needs_disks else ()
        order = self._order(job, policy, account, devices)
        return Plan(
            job=job,
            place=place,
            account=account,
            order=order,
            request_id=request_id,
            fingerprint=fingerprint,
        )

    def _check_enforceable(self, limits: Limits) -> None:
        if not self._is_strict:
            return
        verdicts = self._hierarchy.verdicts()
        for resource in Resource:
            verdict = verdicts[resource.value]
            if limits.get(resource) is not None and not verdict.is_enforced:
                raise UnenforceableLimitError(resource.value, verdict.note)

    def _order(
        self,
        job: Job,
        policy: JobPolicy,
        account: Account | None,
        devices: tuple[BlockDevice, ...],
    ) -> Order:
        spec = job.spec
        scratch = str(self._registry.directories.job_scratch(job.id))
        return Order(
            job_id=job.id,
            argv=spec.argv,
            env={**_clean_environment(job, scratch), **spec.env},
            cwd=spec.cwd or scratch,
            scratch=scratch,
            account=account,
            cgroup=self._hierarchy.plan(job.id),
            limits=job.limits,
            devices=devices,
            require_limits=self._is_strict,
            timeout_s=_at_most("timeout", spec.timeout_s, policy.timeout_s, "s"),
            grace_s=self._settings.default_grace_s,
            max_output_bytes=_at_most(
                "max_output_bytes", spec.max_output_bytes, policy.max_output_bytes, "bytes"
            ),
            on_output_limit=spec.on_output_limit or policy.on_output_limit,
            isolation=job.isolation,
        )


def _at_most(field: str, wanted: _Amount | None, most: _Amount | None, unit: str) -> _Amount | None:
    """What the spec asks for, or else all that the policy allows; None is without a bound."""
    if wanted is None:
        return most
    if most is not None and wanted > most:
        raise InvalidArgumentError(field, wanted, f"the policy allows {most:.15g} {unit}")
    return wanted


def _isolation(spec: JobSpec, policy: JobPolicy) -> Isolation:
    """What the spec asks for, if that is no less than the policy's or it may ask for less."""
    wanted = spec.isolation or policy.isolation
    order = tuple(Isolation)
    if order.index(wanted) < order.index(policy.isolation) and not policy.may_loosen_isolation:
        why = f"the policy asks for {policy.isolation.value.lower()}"
        raise PermissionDeniedError("start a job with less isolation", why)
    return wanted


def _clean_environment(job: Job, scratch: str) -> dict[str, str]:
    """What every job gets; nothing of the daemon's own."""
    return {
        "PATH": _PATH,
        "HOME": scratch,
        "USER": job.owner,
        "LOGNAME": job.owner,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "JOB_ID": job.id,
    }
