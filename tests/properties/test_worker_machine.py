"""One worker after the other on one state directory, crashed at will, against a simple model.

Hypothesis chooses the order of starts, stops, reads, deletions, restarts and crashes; the model
knows of each job what it must have written and how it must have ended.  Each worker is a process of
its own, so that a crash is a SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobworker.cgroup.location import find_locations
from support.guards import need

pytestmark = pytest.mark.kernel

#: A process that answers one JSON line with another, until its input ends.
_WORKER: Final = """
import asyncio, contextlib, json, sys
from pathlib import Path
from jobworker.errors import JobWorkerError
from jobworker.model import Chunk, JobSpec, RequestId, UserName
from jobworker.worker import WorkerSettings, open_worker

ME = UserName("me")

def told(job):
    ending = job.ending
    return {"state": job.state.name, "kept": job.output.kept_bytes,
            "reason": ending and ending.reason.name, "code": ending and ending.exit_code,
            "by": ending and ending.stopped_by, "why": ending and ending.message}

async def answer(worker, call):
    match call["do"]:
        case "start":
            spec = JobSpec(argv=("/bin/sh", "-c", call["script"]))
            job = await worker.start(spec, owner=ME, request_id=RequestId(call["request"]))
            return {"id": job.id}
        case "stop":
            return told(await worker.stop(call["id"], stopped_by=ME, grace_s=call["grace_s"]))
        case "wait":
            return told(await worker.wait(call["id"]))
        case "get":
            return told(await worker.get(call["id"]))
        case "read":
            data = b""
            events = worker.follow(call["id"], offset=call["offset"], follow=call["follow"])
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Chunk):
                        data += event.data
            return {"data": data.decode()}
        case "delete":
            await worker.delete(call["id"])
            return {}
        case "list":
            return {"ids": [job.id for job in (await worker.list()).jobs]}

async def main():
    settings = WorkerSettings(cgroup_parent=sys.argv[2])
    async with open_worker(Path(sys.argv[1]), settings) as worker:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                found = await answer(worker, json.loads(line))
            except JobWorkerError as error:
                found = {"error": type(error).__name__, "text": str(error)}
            print(json.dumps(found), flush=True)

asyncio.run(main())
"""


@dataclass
class _Job:
    """What must be true of one job."""

    job_id: str
    request: str
    script: str
    writes: str
    code: int | None
    """None: it runs until it is stopped."""
    is_stopped: bool = False
    is_deleted: bool = False


class WorkerMachine(RuleBasedStateMachine):
    """Hypothesis drives it; ``parent`` is set by the test."""

    parent = ""
    jobs: Bundle[_Job] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.state = Path(tempfile.mkdtemp(prefix="jobworker-test-", dir="/var/tmp"))
        self.state.chmod(0o711)
        self.known: list[_Job] = []
        self.process: subprocess.Popen[str] | None = None
        self.restart_worker()

    # -- the worker's process ----------------------------------------------------------------------

    def restart_worker(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(self.state), self.parent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "the worker died"
        found: dict[str, Any] = json.loads(line)
        return found

    def end_worker(self, number: signal.Signals | None) -> None:
        process = self.process
        assert process is not None
        if number is not None:
            process.send_signal(number)
        with process:  # closes its input, which ends it, and waits
            pass
        self.process = None

    # -- rules -------------------------------------------------------------------------------------

    @rule(target=jobs, text=st.text("ab\n", max_size=6), code=st.integers(0, 255))
    def start_short(self, text: str, code: int) -> Any:
        return self._start(f"printf %s '{text}'; exit {code}", text, code)

    @rule(target=jobs, text=st.text("cd", max_size=3))
    def start_long(self, text: str) -> Any:
        return self._start(f"printf %s '{text}'; exec sleep 300", text, None)

    def _start(self, script: str, writes: str, code: int | None) -> Any:
        request = f"r{len(self.known)}"
        answer = self.ask("start", script=script, request=request)
        if "id" not in answer:
            pytest.fail(answer["text"])
        job = _Job(answer["id"], request, script, writes, code)
        self.known.append(job)
        return multiple(job)

    @rule(job=jobs)
    def start_again(self, job: _Job) -> None:
        if not job.is_deleted:
            assert self.ask("start", script=job.script, request=job.request) == {"id": job.job_id}

    @rule(job=jobs, grace_s=st.sampled_from([0, 5]))
    def stop(self, job: _Job, grace_s: int) -> None:
        answer = self.ask("stop", id=job.job_id, grace_s=grace_s)
        if not job.is_deleted:
            # What was going to end by itself may have been stopped before it did.
            job.is_stopped = True
            self._check_end(job, answer)

    @rule(job=jobs)
    def wait(self, job: _Job) -> None:
        if job.code is not None and not job.is_deleted:
            self._check_end(job, self.ask("wait", id=job.job_id))

    @rule(job=jobs, offset=st.integers(0, 3))
    def read(self, job: _Job, offset: int) -> None:
        is_ending = job.is_stopped or job.code is not None
        answer = self.ask("read", id=job.job_id, offset=0, follow=is_ending)
        if job.is_deleted:
            assert answer["error"] == "JobNotFoundError"
        elif job.is_stopped or not is_ending:
            assert job.writes.startswith(answer["data"])
        else:
            assert answer["data"] == job.writes
            rest = self.ask("read", id=job.job_id, offset=offset, follow=True)
            assert rest.get("data", "") == job.writes[offset:]

    @rule(job=jobs)
    def delete(self, job: _Job) -> None:
        answer = self.ask("delete", id=job.job_id)
        if job.is_deleted:
            assert answer["error"] == "JobNotFoundError"
        elif not answer:
            assert job.is_stopped or job.code is not None
            job.is_deleted = True
        else:
            assert answer["error"] == "FailedPreconditionError"
            assert not job.is_stopped

    @rule()
    def restart(self) -> None:
        self.end_worker(None)
        self.restart_worker()

    @rule()
    def crash(self) -> None:
        self.end_worker(signal.SIGKILL)
        self.restart_worker()

    @precondition(lambda self: self.known)
    @rule(text=st.text("ef", min_size=1, max_size=3))
    def crash_while_starting(self, text: str) -> None:
        """Nobody hears of the start; the same request, sent again, finds the one job it made."""
        process = self.process
        assert process is not None
        assert process.stdin is not None
        job = _Job("", f"r{len(self.known)}", f"printf %s '{text}'", text, 0)
        call = {"do": "start", "script": job.script, "request": job.request}
        process.stdin.write(json.dumps(call) + "\n")
        process.stdin.flush()
        self.crash()
        answer = self.ask("start", script=job.script, request=job.request)
        if "id" in answer:
            job.job_id = answer["id"]
            self.known.append(job)
            self._check_end(job, self.ask("wait", id=job.job_id))
        else:
            # The crash came between the record and the command; that is told, and stays so.
            assert answer["error"] == "StartFailedError"
            assert self.ask("start", script=job.script, request=job.request) == answer

    @invariant()
    def every_job_is_known_and_told_truly(self) -> None:
        for job in self.known:
            answer = self.ask("get", id=job.job_id)
            if job.is_deleted:
                assert answer["error"] == "JobNotFoundError"
            elif answer["state"] == "ENDED":
                self._check_end(job, answer)
            else:
                assert answer["state"] == "RUNNING"
                assert not job.is_stopped
        there = {job.job_id for job in self.known if not job.is_deleted}
        assert there <= set(self.ask("list")["ids"])

    def _check_end(self, job: _Job, answer: dict[str, Any]) -> None:
        assert answer["state"] == "ENDED"
        if job.is_stopped and answer["reason"] == "STOPPED":
            assert answer["by"] == "me"
            assert answer["kept"] <= len(job.writes)
        else:
            told = (answer["reason"], answer["code"])
            assert told == ("EXITED", job.code), answer["why"]
            assert answer["kept"] == len(job.writes)

    def teardown(self) -> None:
        if self.process is not None:
            for job in self.known:
                # All of them: one that is just ending would still have its cgroups.
                self.ask("stop", id=job.job_id, grace_s=0)
            self.end_worker(None)
        shutil.rmtree(self.state)


@pytest.mark.slow
@pytest.mark.timeout(300)  # some fifty processes of half a second, on a machine that is busy
def test_no_order_of_events_makes_a_worker_lie(
    cgroup_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(os.geteuid() == 0, "root")
    monkeypatch.setattr(WorkerMachine, "parent", cgroup_name)
    try:
        run_state_machine_as_test(
            WorkerMachine,
            settings=settings(
                max_examples=5,
                stateful_step_count=12,
                deadline=None,
                # Not made smaller: each step costs real processes, and the steps are printed.
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        locations = find_locations()
        for location in (locations.unified, *locations.legacy.values()):
            if location is not None:
                # Not empty after a failure, which is what is to be seen then.
                with contextlib.suppress(OSError):
                    Path(location.base(cgroup_name)).rmdir()
