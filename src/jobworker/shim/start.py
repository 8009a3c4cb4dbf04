"""The start of one command: everything that comes before it runs.

Done by a child of the shim, because each page of memory that is written to after a fork is a
process's own: a shim that had done this itself would keep three times as much for as long as its
job runs.  The child stands in the job's cgroup and becomes the command, so that nothing is forked
while somebody waits.  Only an isolated command is cloned, as the child's sibling, since a process
can't enter a new PID namespace itself.

Source: clone(2), CLONE_PARENT; pid_namespaces(7).
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Final

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import CgroupPlan, JobCgroup, Mode
from jobworker.kernel import clone, pipes
from jobworker.kernel.disks import BlockDevice
from jobworker.kernel.process import name_process
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.output.log import make_board, make_log
from jobworker.shim import records
from jobworker.shim.child import Ends, InitEnds, execute
from jobworker.shim.handoff import Handoff, send_handoff, send_refusal
from jobworker.shim.init import clone_flags
from jobworker.shim.order import Account, Order, read_order
from jobworker.shim.refusal import RefusedError, refused


def warm_up() -> None:
    """Go through what every start goes through, on a sample, before there is an order.

    The pages of memory that are touched become this process's own now and not while somebody waits.
    """
    order = Order.from_json(json.loads(_SAMPLE))
    open_job(order.cgroup)
    records.encode(order.to_json())
    name_process(os.getpid())


def start(directory: int, cgroup: JobCgroup, to_shim: socket.socket, shim_pid: int) -> None:
    """Carry out the order in a job's directory up to the running command, or say why not.

    Becomes the command, and does not return, unless that is isolated or refused.  The shim is told
    first; whether the command was executed it learns from the error pipe that it is handed.  Raises
    only what is a fault of ours or of the host.

    directory: an open descriptor; borrowed, as is the rest.
    """
    order = read_order(directory)
    name = name_process(shim_pid)
    shim = {"pid": name.pid, "start_ticks": name.start_ticks, "boot_id": name.boot_id}
    records.write(directory, records.SHIM, shim, durable=False)
    try:
        effective, log_fds = _make_ready(directory, order, cgroup)
        ends, pipe_fds = _open_ends(order, cgroup)
        pid = _process_of(order, ends, shim_pid)
    except RefusedError as refusal:
        send_refusal(to_shim, refusal.answer, directory)
        return
    started = {
        "pid": pid,
        "started_at_us": time.time_ns() // 1000,
        "effective": [_limit_record(limit) for limit in effective],
    }
    records.draft(directory, records.STARTED, started, durable=False)
    handoff = Handoff(
        pid=pid,
        timeout_s=order.timeout_s,
        grace_s=order.grace_s,
        max_output_bytes=order.max_output_bytes,
        on_output_limit=order.on_output_limit,
        has_init=order.isolation is not Isolation.NONE,
        answer=records.encode({"shim": shim, "started": started}),
    )
    error, *reads = pipe_fds
    send_handoff(to_shim, handoff, (directory, error, *log_fds, *reads))
    if pid == os.getpid():
        execute(order, ends, shim_pid)


def _make_ready(
    directory: int, order: Order, cgroup: JobCgroup
) -> tuple[tuple[EffectiveLimit, ...], tuple[int, ...]]:
    """The limits that hold, and the descriptors of board, output and index."""
    try:
        for name in (records.EXIT, records.STOP):
            records.reserve(directory, name)
    except OSError as error:
        raise refused("record its end", error) from error
    try:
        effective = cgroup.set_limits(order.limits, order.devices)
    except OSError as error:
        raise refused("limit its cgroup", error) from error
    _require(order, effective)
    try:
        # On v2 a file's writes are charged to the cgroup that dirtied it first, and making it does:
        # to the job's, in which this process is.  Source: cgroup-v2.rst, "Writeback".
        return effective, (make_board(directory), *make_log(directory))
    except OSError as error:
        raise refused("keep its output", error) from error


def _require(order: Order, effective: tuple[EffectiveLimit, ...]) -> None:
    if not order.require_limits:
        return
    for limit in effective:
        if not limit.is_enforced:
            name = limit.resource.value
            raise RefusedError(
                f"this host does not keep the limit {name}: {limit.note}", resource=name
            )


def _open_ends(order: Order, cgroup: JobCgroup) -> tuple[Ends, tuple[int, ...]]:
    """What the command takes over, and for the shim where to read its failure, stdout and stderr;
    of an init the status too, and the pipe that holds it up until the shim closes it.
    """
    uid, gid = (-1, -1) if order.account is None else (order.account.uid, order.account.gid)
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    stdout_read, stdout = pipes.open_output_pipe(uid, gid)
    stderr_read, stderr = pipes.open_output_pipe(uid, gid)
    error_read, error = os.pipe2(os.O_CLOEXEC)
    reads: tuple[int, ...] = (error_read, stdout_read, stderr_read)
    init = None
    if order.isolation is not Isolation.NONE:
        status_read, status = os.pipe2(os.O_CLOEXEC)
        go, hold = os.pipe2(os.O_CLOEXEC)
        init = InitEnds(status=status, go=go, hold=hold)
        reads = (*reads, status_read, hold)
    joins = cgroup.open_joins()
    ends = Ends(stdin=stdin, stdout=stdout, stderr=stderr, error=error, joins=joins, init=init)
    return ends, reads


def _process_of(order: Order, ends: Ends, shim_pid: int) -> int:
    """Which process becomes the command, or its init."""
    if order.isolation is Isolation.NONE:
        return os.getpid()
    try:
        pid = clone.fork_sibling(clone_flags(order.isolation))
    except OSError as error:
        raise refused("isolate it", error) from error
    if pid == 0:
        execute(order, ends, shim_pid)
    return pid


def _limit_record(limit: EffectiveLimit) -> dict[str, object]:
    return {
        "resource": limit.resource.value,
        "requested": limit.requested,
        "effective": limit.effective,
        "device": limit.device,
        "note": limit.note,
    }


#: An order like those that come, for ``warm_up``.
_SAMPLE: Final = json.dumps(
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
