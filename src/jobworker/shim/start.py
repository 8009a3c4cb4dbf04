"""The start of one command: everything that comes before it runs.

Done by a child of the shim, because each page of memory that is written to after a fork is a
process's own: a shim that had done this itself would keep three times as much for as long as its
job runs.  The child stands in the job's cgroup and becomes the command, so that nothing is forked
while somebody waits; what no order decides it prepares before one comes.  Only an isolated command
is cloned, as the child's sibling, since a process can't enter a new PID namespace itself.

Source: clone(2), CLONE_PARENT; pid_namespaces(7).
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Final

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import CgroupPlan, JobCgroup, Mode
from jobworker.kernel import clone, pipes, privileges
from jobworker.kernel.disks import BlockDevice
from jobworker.kernel.process import ProcessName, name_process
from jobworker.model.limits import EffectiveLimit, Limits
from jobworker.model.spec import Isolation, OnOutputLimit
from jobworker.output.log import make_board, make_log
from jobworker.shim import records
from jobworker.shim.child import Ends, InitEnds, execute
from jobworker.shim.handoff import Handoff, send_handoff
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
    privileges.bounding_set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a start needs and no order decides.  The descriptors end with the process."""

    directory: int
    cgroup: JobCgroup
    shim: ProcessName
    log: tuple[int, ...]
    """Board, output, index."""
    stdin: int
    stdout: tuple[int, int]
    """Read end, write end; as in ``stderr`` and ``error``."""
    stderr: tuple[int, int]
    error: tuple[int, int]
    joins: tuple[int, ...]


def prepare(directory: int, cgroup: JobCgroup, shim_pid: int) -> Prepared:
    """Make ready for an order.  Raises RefusedError.

    directory: an open descriptor; borrowed, as is the rest.
    """
    shim = name_process(shim_pid)
    try:
        records.write(directory, records.SHIM, _shim_record(shim), durable=False)
        records.make_draft(directory, records.STARTED)
        for name in (records.EXIT, records.STOP):
            records.reserve(directory, name)
    except OSError as error:
        raise refused("record its end", error) from error
    try:
        # On v2 a file's writes are charged to the cgroup that dirtied it first, and making it does:
        # to the job's, in which this process is.  Source: cgroup-v2.rst, "Writeback".
        return Prepared(
            directory=directory,
            cgroup=cgroup,
            shim=shim,
            log=(make_board(directory), *make_log(directory)),
            stdin=os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC),
            stdout=pipes.open_output_pipe(),
            stderr=pipes.open_output_pipe(),
            error=os.pipe2(os.O_CLOEXEC),
            joins=cgroup.open_joins(),
        )
    except OSError as error:
        raise refused("keep its output", error) from error


def start(prepared: Prepared, to_shim: socket.socket) -> None:
    """Carry out the order in the job's directory up to the running command.

    Becomes the command, and does not return, unless that is isolated.  The shim is told first;
    whether the command was executed it learns from the error pipe that it is handed.  Raises
    RefusedError, and otherwise only what is a fault of ours or of the host.
    """
    order = read_order(prepared.directory)
    effective = _limit(prepared.cgroup, order)
    ends, reads = _ends(prepared, order)
    pid = _process_of(order, ends, prepared.shim.pid)
    started = {
        "pid": pid,
        "started_at_us": time.time_ns() // 1000,
        "effective": [_limit_record(limit) for limit in effective],
    }
    records.draft(prepared.directory, records.STARTED, started, durable=False)
    handoff = Handoff(
        pid=pid,
        timeout_s=order.timeout_s,
        grace_s=order.grace_s,
        max_output_bytes=order.max_output_bytes,
        on_output_limit=order.on_output_limit,
        has_init=order.isolation is not Isolation.NONE,
        answer=records.encode({"shim": _shim_record(prepared.shim), "started": started}),
    )
    send_handoff(to_shim, handoff, (prepared.directory, reads[0], *prepared.log, *reads[1:]))
    if pid == os.getpid():
        execute(order, ends, prepared.shim.pid)


def _limit(cgroup: JobCgroup, order: Order) -> tuple[EffectiveLimit, ...]:
    """The limits that hold."""
    try:
        effective = cgroup.set_limits(order.limits, order.devices)
    except OSError as error:
        raise refused("limit its cgroup", error) from error
    if not order.require_limits:
        return effective
    for limit in effective:
        if not limit.is_enforced:
            name = limit.resource.value
            raise RefusedError(
                f"this host does not keep the limit {name}: {limit.note}", resource=name
            )
    return effective


def _ends(prepared: Prepared, order: Order) -> tuple[Ends, tuple[int, ...]]:
    """What the command takes over, and for the shim where to read its failure, stdout and stderr;
    of an init the status too, and the pipe that holds it up until the shim lets it go.
    """
    outputs = (prepared.stdout, prepared.stderr)
    if order.account is not None:
        for _, write_end in outputs:
            pipes.give_pipe(write_end, order.account.uid, order.account.gid)
    reads = tuple(read_end for read_end, _ in (prepared.error, *outputs))
    init = None
    if order.isolation is not Isolation.NONE:
        status_read, status = os.pipe2(os.O_CLOEXEC)
        go, hold = os.pipe2(os.O_CLOEXEC)
        init = InitEnds(status=status, go=go, hold=hold)
        reads = (*reads, status_read, hold)
    ends = Ends(
        stdin=prepared.stdin,
        stdout=prepared.stdout[1],
        stderr=prepared.stderr[1],
        error=prepared.error[1],
        joins=prepared.joins,
        init=init,
    )
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


def _shim_record(shim: ProcessName) -> dict[str, object]:
    return {"pid": shim.pid, "start_ticks": shim.start_ticks, "boot_id": shim.boot_id}


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
