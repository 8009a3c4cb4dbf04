"""The start of one command: everything that comes before it runs.

Done by a child of the shim that ends with it, because each page of memory that is written to after
a fork is a process's own: a shim that had done this itself would keep three times as much for as
long as its job runs.  The command is made as a sibling, so that its parent is the shim.

Source: clone(2), CLONE_PARENT and CLONE_INTO_CGROUP.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Mapping

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import CgroupPlan, JobCgroup, Mode
from jobworker.errors import errno_text
from jobworker.kernel import clone, pipes
from jobworker.kernel.disks import BlockDevice
from jobworker.kernel.process import name_process
from jobworker.model.ending import Ending, EndReason
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.output.log import OUTPUT_FILE, make_board, make_log, open_log
from jobworker.shim import records
from jobworker.shim.child import Ends, Failure, execute, read_failure
from jobworker.shim.handoff import Handoff, send_handoff
from jobworker.shim.init import clone_flags
from jobworker.shim.order import Account, Order, read_order


class RefusedError(Exception):
    """The command was not executed: nothing of it ran."""

    def __init__(self, why: str, *, number: int = 0, path: str = "", resource: str = "") -> None:
        """number: errno of the step that failed, 0 where none did."""
        super().__init__(why)
        self.answer = {"why": why, "errno": number, "path": path, "resource": resource}


def warm_up() -> None:
    """Go through what every start goes through, on a sample, before there is an order.

    The pages of memory that are touched become this process's own now and not while somebody waits.
    """
    order = Order.from_json(json.loads(_SAMPLE))
    open_job(order.cgroup)
    records.encode(order.to_json())
    name_process(os.getpid())


def start(directory: int, report: int, to_shim: socket.socket, shim_pid: int) -> None:
    """Carry out the order in a job's directory up to the running command, or record why not.

    directory: an open descriptor; borrowed, as is the rest.  report: write end of the line to the
    worker.  What the shim needs is sent to it, which then answers the worker; if the command was
    refused nothing is sent, and the answer is given here.  Raises only what is a fault of ours or
    of the host.
    """
    order = read_order(directory)
    name = name_process(shim_pid)
    shim = {"pid": name.pid, "start_ticks": name.start_ticks, "boot_id": name.boot_id}
    records.write(directory, records.SHIM, shim, durable=False)
    cgroup = open_job(order.cgroup)
    try:
        handoff, fds = _start(directory, order, cgroup, shim)
    except RefusedError as refusal:
        # The record comes before the answer, as everywhere; a full disk leaves only the answer.
        ending = Ending(reason=EndReason.START_FAILED, message=str(refusal))
        with contextlib.suppress(OSError):
            records.write_ending(directory, ending, refusal=refusal.answer)
        cgroup.remove()
        records.forget_reserved(directory)
        answer_worker(report, records.encode({"failed": refusal.answer}))
        return
    send_handoff(to_shim, handoff, (directory, report, *fds))


def answer_worker(report: int, answer: bytes) -> None:
    """Say how the start went; the worker may be dead, and its successor reads the records."""
    with contextlib.suppress(BrokenPipeError):
        os.write(report, answer)


def _start(
    directory: int, order: Order, cgroup: JobCgroup, shim: Mapping[str, object]
) -> tuple[Handoff, tuple[int, ...]]:
    """Start the command and record it: what the shim goes on with."""
    try:
        for name in (records.EXIT, records.STOP):
            records.reserve(directory, name)
    except OSError as error:
        raise _refused("record its end", error) from error
    try:
        cgroup.create()
        effective = cgroup.set_limits(order.limits, order.devices)
    except OSError as error:
        raise _refused("make its cgroup", error) from error
    _require(order, effective)
    try:
        log_fds = (make_board(directory), *_make_log(directory, cgroup))
    except OSError as error:
        raise _refused("keep its output", error) from error
    pid, pipe_fds = _execute(order, cgroup)
    started = {
        "pid": pid,
        "started_at_us": time.time_ns() // 1000,
        "effective": [_limit_record(limit) for limit in effective],
    }
    records.write(directory, records.STARTED, started, durable=False)
    handoff = Handoff(
        pid=pid,
        cgroup=order.cgroup,
        timeout_s=order.timeout_s,
        grace_s=order.grace_s,
        max_output_bytes=order.max_output_bytes,
        on_output_limit=order.on_output_limit,
        has_init=order.isolation is not Isolation.NONE,
        answer=records.encode({"shim": shim, "started": started}),
    )
    return handoff, (*log_fds, *pipe_fds)


def _make_log(directory: int, cgroup: JobCgroup) -> tuple[int, int]:
    """Make the log such that what is written to it is at the job's expense.

    On v2 a file's writes are charged to the cgroup that dirtied it first, and making it does.  The
    shim comes into its own cgroup only once the command runs, so a child that is born there makes
    the log.  Raises OSError.
    Source: cgroup-v2.rst, "Writeback".
    """
    leaf = cgroup.shim_fd()
    if leaf is None:
        return make_log(directory)
    try:
        pid = clone.fork_child(leaf)
    finally:
        os.close(leaf)
    if pid == 0:
        os._exit(_errno_of_making_log(directory))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number != 0:
        # Below zero: somebody killed it.
        number = max(number, 0) or errno.EINTR
        raise OSError(number, os.strerror(number), OUTPUT_FILE)
    return open_log(directory)


def _errno_of_making_log(directory: int) -> int:
    """0 if it was made.  Never raises: the process ends here."""
    try:
        make_log(directory)
    except OSError as error:
        return error.errno or errno.EIO
    except BaseException:  # noqa: BLE001 - see above
        return errno.EIO
    return 0


def _require(order: Order, effective: tuple[EffectiveLimit, ...]) -> None:
    if not order.require_limits:
        return
    for limit in effective:
        if not limit.is_enforced:
            name = limit.resource.value
            raise RefusedError(
                f"this host does not keep the limit {name}: {limit.note}", resource=name
            )


def _execute(order: Order, cgroup: JobCgroup) -> tuple[int, tuple[int, ...]]:
    """Fork and execute: the pid, and where to read stdout, stderr and, of an init, the status."""
    uid, gid = (-1, -1) if order.account is None else (order.account.uid, order.account.gid)
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    stdout_read, stdout = pipes.open_output_pipe(uid, gid)
    stderr_read, stderr = pipes.open_output_pipe(uid, gid)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    status_read, status = os.pipe2(os.O_CLOEXEC)
    joins = cgroup.open_joins()
    parent_pid = os.getppid()
    ends = Ends(stdin=stdin, stdout=stdout, stderr=stderr, error=error, joins=joins, status=status)
    try:
        pid = _fork_sibling(cgroup, clone_flags(order.isolation))
    except OSError as error_:
        what = "fork" if order.isolation is Isolation.NONE else "isolate it"
        raise _refused(what, error_) from error_
    if pid == 0:
        execute(order, ends, parent_pid)
    for fd in (stdin, stdout, stderr, error, status, *joins):
        os.close(fd)
    failure = read_failure(error_read)
    os.close(error_read)
    if failure is not None:
        raise _failed_child(order, failure)
    return pid, (stdout_read, stderr_read, status_read)


def _fork_sibling(cgroup: JobCgroup, namespaces: int) -> int:
    directory = cgroup.clone_fd()
    try:
        return clone.fork_sibling(directory, namespaces)
    finally:
        if directory is not None:
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


def _limit_record(limit: EffectiveLimit) -> dict[str, object]:
    return {
        "resource": limit.resource.value,
        "requested": limit.requested,
        "effective": limit.effective,
        "device": limit.device,
        "note": limit.note,
    }


#: An order like those that come, for ``warm_up``.
_SAMPLE = json.dumps(
    Order(
        job_id="",
        argv=("/bin/true",),
        env={"PATH": "/bin"},
        cwd="/",
        scratch="/",
        account=Account(uid=1, gid=1),
        cgroup=CgroupPlan(mode=Mode.NONE),
        limits=Limits(cpu_millis=1000, memory_bytes=1 << 30, tasks=100),
        devices=(BlockDevice(major=1, minor=1, name=""),),
        require_limits=True,
        timeout_s=None,
        grace_s=0.0,
        max_output_bytes=None,
        on_output_limit=OnOutputLimit.STOP,
        isolation=Isolation.NONE,
    ).to_json()
)
