"""One job's shim, from the order to the record of the ending.

A shim is forked from the launcher, one for each job, and is the parent of the command: it makes the
cgroup, starts the command, keeps its output, enforces its deadlines, and writes down how it ended,
whether or not a daemon lives.  It owns everything in the job's directory except ``spec.json`` and
``stop.json``.

The steps are recorded in this order: shim.json, then the cgroup, then the command, then
started.json; and at the end: the output on the disk, exit.json, then the cgroup is removed.  Killed
between any two of them, it leaves enough for the worker to tell what is true.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import JobCgroup
from jobworker.errors import errno_text
from jobworker.kernel import clone, pipes, privileges
from jobworker.kernel.process import name_process
from jobworker.model.ending import Ending, EndReason
from jobworker.model.limits import EffectiveLimit
from jobworker.model.output import Stream
from jobworker.output.log import Board, LogWriter
from jobworker.output.pump import Pump
from jobworker.shim import records
from jobworker.shim.child import Ends, Failure, execute, read_failure
from jobworker.shim.ending import describe_ending
from jobworker.shim.order import Order
from jobworker.shim.supervise import Supervisor


class RefusedError(Exception):
    """The command was not executed: nothing of it ran."""

    def __init__(self, why: str, *, number: int = 0, path: str = "", resource: str = "") -> None:
        """number: errno of the step that failed, 0 where none did."""
        super().__init__(why)
        self.answer = {"why": why, "errno": number, "path": path, "resource": resource}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The shim's line to the worker that ordered it; may be dead at the other end."""

    report: int
    """Write end of a pipe: one JSON object, then closed."""
    settled: int
    """A lock that tells a later worker that this start is not settled yet; closed when it is."""

    def answer(self, message: Mapping[str, object]) -> None:
        """Say how the start went, and that it is settled."""
        try:
            os.write(self.report, records.encode(message))
        except BrokenPipeError:
            pass  # The worker died; its successor reads the records.
        finally:
            os.close(self.report)
            os.close(self.settled)


def run(directory: int, line: Line) -> None:
    """Carry out the order in a job's directory; returns when the job has ended and is recorded.

    directory: an open descriptor.  Raises only what is a fault of ours or of the host.
    """
    order = Order.from_json(_read_order(directory))
    privileges.set_process_name("jobworker-shim")
    privileges.become_subreaper()
    name = name_process(os.getpid())
    shim = {"pid": name.pid, "start_ticks": name.start_ticks, "boot_id": name.boot_id}
    records.write(directory, records.SHIM, shim, durable=False)
    cgroup = open_job(order.cgroup)
    try:
        supervisor, pump, started = _start(directory, order, cgroup)
    except RefusedError as refusal:
        # The record comes before the answer, as everywhere.
        _record(directory, _refused_ending(str(refusal)), refusal=refusal.answer)
        cgroup.remove()
        records.forget_reserved(directory)
        line.answer({"failed": refusal.answer})
        return
    line.answer({"shim": shim, "started": started})
    outcome = supervisor.watch_until_empty()
    while not pump.flush():
        supervisor.wait_for_retry()
    ending = describe_ending(order, outcome, cgroup.usage(), pump.totals)
    while not _try_record(directory, ending):
        supervisor.wait_for_retry()
    cgroup.remove()
    records.forget_reserved(directory)


def _read_order(directory: int) -> dict[str, Any]:
    spec = records.read(directory, records.SPEC)
    if spec is None:
        raise FileNotFoundError(records.SPEC)
    order: dict[str, Any] = spec["order"]
    return order


def _start(
    directory: int, order: Order, cgroup: JobCgroup
) -> tuple[Supervisor, Pump, dict[str, object]]:
    """Start the command; the last is its record.  Raises RefusedError if it was not executed."""
    try:
        for name in (records.EXIT, records.STOP):
            records.reserve(directory, name)
        board = Board(directory)
        log = LogWriter(directory)
    except OSError as error:
        raise _refused("keep its output", error) from error
    pump = Pump(log, board, most_bytes=order.max_output_bytes, on_limit=order.on_output_limit)
    try:
        cgroup.create()
        cgroup.join_shim()
        effective = cgroup.set_limits(order.limits, order.devices)
    except OSError as error:
        raise _refused("make its cgroup", error) from error
    _require(order, effective)
    supervisor = Supervisor(directory, order, cgroup, pump)
    pid = _execute(order, cgroup, pump)
    started = {
        "pid": pid,
        "started_at_us": time.time_ns() // 1000,
        "effective": [_limit_record(limit) for limit in effective],
    }
    records.write(directory, records.STARTED, started, durable=False)
    supervisor.started(pid)
    return supervisor, pump, started


def _require(order: Order, effective: tuple[EffectiveLimit, ...]) -> None:
    if not order.require_limits:
        return
    for limit in effective:
        if not limit.is_enforced:
            name = limit.resource.value
            raise RefusedError(
                f"this host does not keep the limit {name}: {limit.note}", resource=name
            )


def _execute(order: Order, cgroup: JobCgroup, pump: Pump) -> int:
    """Fork, execute, and wait until one is known to have worked: the pid of the command."""
    uid, gid = (-1, -1) if order.account is None else (order.account.uid, order.account.gid)
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    stdout_read, stdout = pipes.open_output_pipe(uid, gid)
    stderr_read, stderr = pipes.open_output_pipe(uid, gid)
    pump.add(stdout_read, Stream.STDOUT)
    pump.add(stderr_read, Stream.STDERR)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    joins = cgroup.open_joins()
    ends = Ends(stdin=stdin, stdout=stdout, stderr=stderr, error=error, joins=joins)
    parent_pid = os.getpid()
    try:
        pid = _fork(cgroup)
    except OSError as error_:
        raise _refused("fork", error_) from error_
    if pid == 0:
        execute(order, ends, parent_pid)
    for fd in (stdin, stdout, stderr, error, *joins):
        os.close(fd)
    failure = read_failure(error_read)
    os.close(error_read)
    if failure is not None:
        os.waitpid(pid, 0)
        raise _failed_child(order, failure)
    return pid


def _fork(cgroup: JobCgroup) -> int:
    directory = cgroup.clone_fd()
    if directory is None:
        return os.fork()
    try:
        return clone.fork_into(directory)
    finally:
        os.close(directory)


def _failed_child(order: Order, failure: Failure) -> RefusedError:
    if failure.errno == 0:
        return RefusedError(f"cannot {failure.step}", path=failure.path)
    reason = errno_text(failure.errno)
    if failure.step == "execute" and "/" not in order.argv[0] and failure.path == order.argv[0]:
        why = f"cannot execute {order.argv[0]!r}: no such program in PATH"
    elif failure.step == "execute" and os.path.lexists(failure.path):
        why = f"cannot execute {failure.path!r}: {reason}"
        if failure.errno == errno.ENOENT:
            why += "; the file is there, the interpreter that it names is not"
    else:
        of = f" {failure.path!r}" if failure.path else ""
        why = f"cannot {failure.step}{of}: {reason}"
    return RefusedError(why, number=failure.errno, path=failure.path)


def _refused(what: str, error: OSError) -> RefusedError:
    path = error.filename if isinstance(error.filename, str) else ""
    of = f" {path}" if path else ""
    return RefusedError(
        f"cannot {what}{of}: {errno_text(error.errno or 0)}", number=error.errno or 0, path=path
    )


def _refused_ending(why: str) -> Ending:
    return Ending(reason=EndReason.START_FAILED, message=why)


def _record(directory: int, ending: Ending, *, refusal: Mapping[str, object] | None = None) -> None:
    record = {
        "ended_at_us": time.time_ns() // 1000,
        "ending": {**dataclasses.asdict(ending), "reason": ending.reason.value},
        "refusal": refusal,
    }
    records.write(directory, records.EXIT, record, durable=True)


def _try_record(directory: int, ending: Ending) -> bool:
    try:
        _record(directory, ending)
    except OSError:
        return False
    return True


def _limit_record(limit: EffectiveLimit) -> dict[str, object]:
    return {
        "resource": limit.resource.value,
        "requested": limit.requested,
        "effective": limit.effective,
        "device": limit.device,
        "note": limit.note,
    }
