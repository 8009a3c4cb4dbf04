"""From a plan to a running command: recording, ordering, and what came of it.

The journal row comes before anything that could become a process, so that there is never a process
that no journal knows.  What was begun goes on when the caller goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from dataclasses import replace
from typing import Any, Final

import msgspec

from jobworker.errors import (
    JobWorkerError,
    RequestReusedError,
    StartFailedError,
    UnavailableError,
)
from jobworker.jobs import catalog
from jobworker.jobs.accounts import Accounts
from jobworker.jobs.endings import Endings
from jobworker.jobs.evidence import Evidence, read_started
from jobworker.jobs.fingerprint import fingerprint
from jobworker.jobs.live import LiveJob
from jobworker.jobs.planning import Plan, Planner
from jobworker.jobs.refusals import refusal_error, storage_error
from jobworker.jobs.registry import Registry
from jobworker.kernel.process import ProcessName
from jobworker.model.ending import EndReason
from jobworker.model.ids import JobId, RequestId, UserName
from jobworker.model.job import Job
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import JobSpec
from jobworker.model.state import JobState
from jobworker.shim import records
from jobworker.shim.launcher import Launcher, Place
from jobworker.shim.order import Order

#: Starts that follow each other more closely want the next place early; one takes 10 ms.
_ROW_S: Final = 0.03

logger = logging.getLogger(__name__)


class Starter:
    """Starts jobs."""

    def __init__(
        self,
        *,
        registry: Registry,
        endings: Endings,
        launcher: Launcher,
        accounts: Accounts,
        planner: Planner,
    ) -> None:
        self._registry = registry
        self._endings = endings
        self._launcher = launcher
        self._accounts = accounts
        self._planner = planner
        self._ordered_at = -_ROW_S

    async def start(
        self, spec: JobSpec, owner: UserName, policy: JobPolicy, request_id: RequestId | None
    ) -> Job:
        """Returns once the command is executed; see ``Worker.start``."""
        self._registry.require_open("start jobs")
        mark = fingerprint(spec)
        if request_id is not None:
            earlier = await self._registry.journal.run(
                lambda connection: catalog.find_request(connection, owner, request_id)
            )
            if earlier is not None:
                return await self._outcome_of(earlier, mark)
        account = await self._accounts.find(owner)
        place = await self._take_place()
        try:
            # The worker may have been closed meanwhile.
            self._registry.require_open("start jobs")
            # From here to the registry without waiting: two starts must not both have the last of
            # what is bounded.
            self._planner.check_bounds(owner, policy)
            plan = self._planner.plan(place, spec, owner, policy, account, request_id, mark)
        except BaseException:
            self._launcher.give_back(place)
            raise
        live = self._registry.add(plan.job)
        task = self._registry.tasks.create_task(self._carry_out(live, plan))
        task.add_done_callback(functools.partial(_give_up_if_cancelled, live, place))
        return await asyncio.shield(live.started)

    async def _take_place(self) -> Place:
        try:
            return await self._launcher.take()
        except OSError as error:
            raise storage_error(error) from error

    async def _carry_out(self, live: LiveJob, plan: Plan) -> None:
        """Never raises: the outcome is that of ``live.started``."""
        try:
            await self._record_and_order(live, plan)
        except Exception as error:  # whoever waits for the start gets it
            # Not given back: its id may be in the journal.
            plan.place.close()
            if not isinstance(error, JobWorkerError):
                logger.exception("start failed", extra={"job_id": plan.job.id})
            if live.job.state is JobState.STARTING:
                self._registry.forget(live)
            if not live.started.done():
                live.started.set_exception(error)

    async def _record_and_order(self, live: LiveJob, plan: Plan) -> None:
        # At the same time: what is written stays in the place, which becomes the job's directory by
        # the order, when there is a row.
        writing = asyncio.get_running_loop().run_in_executor(None, self._write_order, plan)
        try:
            recorded = await self._record(plan)
        except Exception:
            await self._withdraw(plan, writing)
            raise
        if recorded.job.id != plan.job.id:
            # The same request came twice at the same time, and the other one was first.
            self._registry.forget(live)
            await self._withdraw(plan, writing)
            live.started.set_result(await self._outcome_of(recorded, plan.fingerprint))
            return
        failure = await writing
        if failure is not None:
            # A place that could not be made has no directory either; what it says is the cause.
            said = await plan.place.withdraw()
            if said is None:
                live.failure = storage_error(failure)
            else:
                _refuse(live, said["failed"])
            await self._endings.settle(live)
            return
        is_in_a_row = self._is_in_a_row()
        if is_in_a_row:
            self._prepare_next()
        answer = await self._order(plan)
        if answer is None or "started" not in answer:
            await self._fail(live, answer)
        else:
            await self._take_up(live, plan.order, answer)
        if not is_in_a_row:
            self._prepare_next()

    async def _order(self, plan: Plan) -> dict[str, Any] | None:
        """What is said to the order, if anything; see ``Launcher.order``.

        A place whose processes were all killed before one took the order, as by the kernel for
        want of memory, is made once more: nothing has begun there.
        """
        answer = await self._launcher.order(plan.place)
        if answer is not None or await asyncio.to_thread(self._is_taken, plan.job.id):
            return answer
        try:
            place = await self._launcher.make_again(plan.place)
        except (OSError, UnavailableError):
            return None
        with contextlib.closing(place):
            failure = await asyncio.to_thread(self._write_order, plan)
            return None if failure is not None else await self._launcher.order(place)

    def _is_taken(self, job_id: JobId) -> bool:
        """Did a starting process take the order?  Nobody is left who still might."""
        return self._registry.directories.job(job_id).exists()

    def _is_in_a_row(self) -> bool:
        """Was there an order just before this one, so that the next one may come at once?

        If so its place is made while this start waits for its own; a single start would wait
        longer for that, since launcher, worker, shim and command want the processors at once.
        """
        now = asyncio.get_running_loop().time()
        earlier, self._ordered_at = self._ordered_at, now
        return now - earlier < _ROW_S

    def _prepare_next(self) -> None:
        # Finished also when the worker is closed, which then clears it away: one that is half made
        # would be left to the next worker.
        self._registry.tasks.create_task(self._launcher.prepare())

    async def _record(self, plan: Plan) -> catalog.Entry:
        """The journal's row; of another job, if the same request was recorded before."""
        entry = catalog.Entry(
            job=plan.job, request_id=plan.request_id, fingerprint=plan.fingerprint
        )
        return await self._registry.journal.run(
            lambda connection: catalog.insert(connection, entry), durable=True
        )

    async def _withdraw(self, plan: Plan, writing: asyncio.Future[OSError | None]) -> None:
        """Leave nothing of a job that is not recorded."""
        await asyncio.wait((writing,))
        await plan.place.withdraw()

    def _write_order(self, plan: Plan) -> OSError | None:
        """In a thread: what the shim starts from.  Returns what the disk refused."""
        record = {
            "job": msgspec.to_builtins(plan.job),
            "request_id": plan.request_id,
            "fingerprint": plan.fingerprint.hex(),
            "order": plan.order.to_json(),
        }
        directories = self._registry.directories
        try:
            directories.give_scratch(plan.job.id, plan.account)
            with directories.open_place(plan.job.id) as directory:
                records.write(directory, records.SPEC, record, durable=False)
        except OSError as error:
            return error
        return None

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
            evidence = await self._endings.evidence_of(job_id)
            refusal = None if evidence.ended is None else evidence.ended.refusal
        if refusal is None:
            why = "its launcher or shim was killed while starting it"
            live.failure = StartFailedError(why, job_id=job_id)
        else:
            _refuse(live, refusal)
        # If all were killed before one took the order.
        await asyncio.to_thread(self._registry.directories.remove_place, job_id)
        await self._endings.settle(live)

    async def _outcome_of(self, earlier: catalog.Entry, mark: bytes) -> Job:
        """What the first of two equal requests came to, also if that was a failure."""
        if earlier.fingerprint != mark:
            raise RequestReusedError(str(earlier.request_id))
        live = self._registry.live.get(earlier.job.id)
        if live is not None:
            await asyncio.shield(live.started)
            return live.job
        job = earlier.job
        if job.ending is not None and job.ending.reason is EndReason.START_FAILED:
            evidence = await self._endings.evidence_of(job.id)
            if evidence.ended is not None and evidence.ended.refusal is not None:
                raise refusal_error(evidence.ended.refusal, job.id)
            raise StartFailedError(job.ending.message, job_id=job.id)
        return job


def _give_up_if_cancelled(live: LiveJob, place: Place, task: asyncio.Task[None]) -> None:
    """We cancel no start: a loop that is torn down cancels all tasks at once.

    A callback, since a task that is cancelled before its first step sees nothing of it.
    """
    if task.cancelled():
        place.close()
        live.abandon()


def _refuse(live: LiveJob, refusal: dict[str, Any]) -> None:
    live.refusal = refusal["why"]
    live.failure = refusal_error(refusal, live.job.id)
