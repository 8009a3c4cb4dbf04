"""From a spec to a running command: completing, bounding, recording, ordering.

The journal row comes before anything that could become a process, so that there is never a process
that no journal knows.  What was begun goes on when the caller goes away.
"""

from __future__ import annotations

import asyncio
import datetime
import errno
import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from jobworker.cgroup.interface import Hierarchy
from jobworker.errors import (
    InvalidArgumentError,
    JobWorkerError,
    PermissionDeniedError,
    RequestReusedError,
    ResourceExhaustedError,
    StartFailedError,
    UnavailableError,
    UnenforceableLimitError,
    errno_text,
)
from jobworker.jobs import catalog
from jobworker.jobs.accounts import Accounts
from jobworker.jobs.endings import Endings
from jobworker.jobs.evidence import Evidence, read_evidence, read_started
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.jobs.settings import RequireLimits, WorkerSettings
from jobworker.kernel.disks import BlockDevice, MountedDisks
from jobworker.kernel.process import ProcessName
from jobworker.model.ending import EndReason
from jobworker.model.ids import RequestId, UserName, new_job_id
from jobworker.model.job import Job
from jobworker.model.limits import IO_RESOURCES, Limits, Resource
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import Isolation, JobSpec
from jobworker.model.state import JobState
from jobworker.shim import records
from jobworker.shim.launcher import Launcher
from jobworker.shim.order import Account, Order

logger = logging.getLogger(__name__)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All that is decided before a start is recorded."""

    job: Job
    account: Account | None
    order: Order
    request_id: RequestId | None
    fingerprint: bytes


class Starter:
    """Starts jobs."""

    def __init__(
        self,
        *,
        registry: Registry,
        endings: Endings,
        launcher: Launcher,
        hierarchy: Hierarchy,
        accounts: Accounts,
        disks: MountedDisks,
        settings: WorkerSettings,
    ) -> None:
        self._registry = registry
        self._endings = endings
        self._launcher = launcher
        self._hierarchy = hierarchy
        self._accounts = accounts
        self._disks = disks
        self._settings = settings
        self._is_strict = settings.require_limits is RequireLimits.STRICT

    async def start(
        self, spec: JobSpec, owner: UserName, policy: JobPolicy, request_id: RequestId | None
    ) -> Job:
        """Returns once the command is executed; see ``Worker.start``."""
        fingerprint = hashlib.sha256(msgspec.json.encode(spec, order="sorted")).digest()
        if request_id is not None:
            earlier = await self._registry.journal.run(
                lambda connection: catalog.find_request(connection, owner, request_id)
            )
            if earlier is not None:
                return await self._outcome_of(earlier, fingerprint)
        account = await self._accounts.find(owner)
        # From here to the registry without waiting: two starts must not both take the last place.
        self._check_bounds(owner, policy)
        plan = self._plan(spec, owner, policy, account, request_id, fingerprint)
        live = self._registry.add(plan.job)
        self._registry.tasks.create_task(self._carry_out(live, plan))
        return await asyncio.shield(live.started)

    def _check_bounds(self, owner: UserName, policy: JobPolicy) -> None:
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
            why = f"no space for its output: {free} bytes are free on the service's disk"
            raise ResourceExhaustedError("start the command", why)

    def _plan(
        self,
        spec: JobSpec,
        owner: UserName,
        policy: JobPolicy,
        account: Account | None,
        request_id: RequestId | None,
        fingerprint: bytes,
    ) -> _Plan:
        limits = spec.limits.or_else(policy.limits)
        self._check_enforceable(limits)
        isolation = _isolation(spec, policy)
        job = Job(
            id=new_job_id(),
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
        return _Plan(
            job=job,
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
            timeout_s=policy.timeout_s if spec.timeout_s is None else spec.timeout_s,
            grace_s=self._settings.default_grace_s,
            max_output_bytes=_output_bound(spec, policy),
            on_output_limit=spec.on_output_limit or policy.on_output_limit,
            isolation=job.isolation,
        )

    async def _carry_out(self, live: LiveJob, plan: _Plan) -> None:
        """Never raises: the outcome is that of ``live.started``."""
        try:
            await self._record_and_order(live, plan)
        except Exception as error:  # whoever waits for the start gets it
            if not isinstance(error, JobWorkerError):
                logger.exception("start failed", extra={"job_id": plan.job.id})
            if live.job.state is JobState.STARTING:
                self._registry.forget(live)
            if not live.started.done():
                live.started.set_exception(error)

    async def _record_and_order(self, live: LiveJob, plan: _Plan) -> None:
        entry = catalog.Entry(
            job=plan.job, request_id=plan.request_id, fingerprint=plan.fingerprint
        )
        recorded = await self._registry.journal.run(
            lambda connection: catalog.insert(connection, entry), durable=True
        )
        if recorded.job.id != plan.job.id:
            # The same request came twice at the same time, and the other one was first.
            self._registry.forget(live)
            live.started.set_result(await self._outcome_of(recorded, plan.fingerprint))
            return
        try:
            await asyncio.to_thread(self._write_order, plan)
            with self._registry.directories.open_job(plan.job.id) as directory:
                answer = await self._launcher.order(directory)
        except (OSError, UnavailableError) as error:
            # No shim has the order: nothing is raised once it is sent.
            live.failure = _storage_error(error) if isinstance(error, OSError) else error
            await self._endings.settle(live)
            return
        if answer is None or "started" not in answer:
            await self._fail(live, answer)
        else:
            await self._take_up(live, plan.order, answer)

    def _write_order(self, plan: _Plan) -> None:
        """In a thread: the files that the shim starts from."""
        directories = self._registry.directories
        directories.make_job(plan.job.id, plan.account)
        record = {
            "job": msgspec.to_builtins(plan.job),
            "request_id": plan.request_id,
            "fingerprint": plan.fingerprint.hex(),
            "order": plan.order.to_json(),
        }
        with directories.open_job(plan.job.id) as directory:
            records.write(directory, records.SPEC, record, durable=False)

    async def _take_up(self, live: LiveJob, order: Order, answer: dict[str, Any]) -> None:
        started = read_started(answer["started"])
        # A stop may have come already: the state is then STOPPING, and stays it.
        is_stopping = live.job.state is JobState.STOPPING
        job = replace(
            live.job,
            state=JobState.STOPPING if is_stopping else JobState.RUNNING,
            started_at=started.at,
            effective=started.effective,
        )
        self._registry.change(live, job)
        evidence = Evidence(order=order, shim=ProcessName(**answer["shim"]), started=started)
        if not self._endings.watch(live, evidence):
            await self._endings.settle(live)
        elif is_stopping:
            self._endings.wake_shim(live)
        if not live.started.done():
            live.started.set_result(live.job)

    async def _fail(self, live: LiveJob, answer: dict[str, Any] | None) -> None:
        job_id = live.job.id
        refusal = None if answer is None else answer["failed"]
        if refusal is None:
            # Nobody answered: the record may have been written all the same.
            evidence = await asyncio.to_thread(read_evidence, self._registry.directories, job_id)
            refusal = None if evidence.ended is None else evidence.ended.refusal
        if refusal is None:
            why = "its launcher or shim was killed while starting it"
            live.failure = StartFailedError(why, job_id=job_id)
        else:
            live.failure = refusal_error(refusal, job_id)
        await self._endings.settle(live)

    async def _outcome_of(self, earlier: catalog.Entry, fingerprint: bytes) -> Job:
        """What the first of two equal requests came to, also if that was a failure."""
        if earlier.fingerprint != fingerprint:
            raise RequestReusedError(str(earlier.request_id))
        live = self._registry.live.get(earlier.job.id)
        if live is not None:
            await asyncio.shield(live.started)
            return live.job
        job = earlier.job
        if job.ending is not None and job.ending.reason is EndReason.START_FAILED:
            directories = self._registry.directories
            evidence = await asyncio.to_thread(read_evidence, directories, job.id)
            if evidence.ended is not None and evidence.ended.refusal is not None:
                raise refusal_error(evidence.ended.refusal, job.id)
            raise StartFailedError(job.ending.message, job_id=job.id)
        return job


def refusal_error(refusal: dict[str, Any], job_id: str) -> JobWorkerError:
    """What the shim said why it did not execute the command."""
    if refusal["resource"]:
        return UnenforceableLimitError(refusal["resource"], refusal["why"])
    if refusal["errno"] in _SPACE_ERRNOS:
        return ResourceExhaustedError("start the command", refusal["why"])
    return StartFailedError(
        refusal["why"], errno=refusal["errno"], path=refusal["path"], job_id=job_id
    )


_SPACE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def _storage_error(error: OSError) -> JobWorkerError:
    why = errno_text(error.errno or 0)
    if error.errno in _SPACE_ERRNOS:
        return ResourceExhaustedError("start the command", f"no space to record it: {why}")
    return UnavailableError("start the command", f"it cannot be prepared: {why}")


def _output_bound(spec: JobSpec, policy: JobPolicy) -> int | None:
    most, wanted = policy.max_output_bytes, spec.max_output_bytes
    if wanted is None:
        return most
    if most is not None and wanted > most:
        raise InvalidArgumentError("max_output_bytes", wanted, f"the policy allows {most}")
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
