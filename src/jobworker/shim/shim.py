"""One job's shim, from the order to the record of the ending.

A shim is forked from the launcher, one for each job, and is the parent of the command: it keeps the
output, enforces the deadlines, and writes down how the command ended, whether or not a daemon
lives. With the child that starts the command for it, it owns everything in the job's directory
except ``spec.json`` and ``stop.json``.

The steps are recorded in this order: shim.json, then the cgroup, then the command, then
started.json; and at the end: the output on the disk, exit.json, then the cgroup is removed.  Killed
between any two of them, it leaves enough for the worker to tell what is true.
"""

from __future__ import annotations

import os
import socket

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import Mode
from jobworker.kernel import privileges
from jobworker.model.ending import Ending
from jobworker.output.log import Board, LogWriter
from jobworker.output.pump import Pump
from jobworker.shim import records
from jobworker.shim.descendants import open_job_without_cgroup
from jobworker.shim.ending import describe_ending
from jobworker.shim.handoff import Handoff, receive_handoff
from jobworker.shim.order import read_order
from jobworker.shim.start import Line, start
from jobworker.shim.supervise import Supervisor, Wakeup


def run(directory: int, line: Line) -> None:
    """Carry out the order in a job's directory; returns when the job has ended and is recorded.

    directory: an open descriptor.  Raises only what is a fault of ours or of the host.
    """
    privileges.set_process_name("jobworker-shim")
    privileges.become_subreaper()
    # Before there is a child whose death could be missed.
    wakeup = Wakeup()
    handed = _start_in_child(directory, line)
    if handed is None:
        if records.exists(directory, records.EXIT):
            return
        raise ChildProcessError("the starting process died")
    handoff, fds = handed
    _supervise(directory, handoff, fds, wakeup)


def _start_in_child(directory: int, line: Line) -> tuple[Handoff, list[int]] | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        start(directory, line, theirs, shim_pid)
        os._exit(0)
    theirs.close()
    with ours:
        handed = receive_handoff(ours)
    # It has nothing more to do, and must not be taken for one of the job's.
    os.waitpid(pid, 0)
    # Kept until here: a worker that sees the line closed without an answer knows that both died.
    line.close()
    return handed


def _supervise(directory: int, handoff: Handoff, fds: list[int], wakeup: Wakeup) -> None:
    board, output, index, stdout, stderr = fds[:5]
    status = fds[5] if handoff.has_init else None
    pump = Pump(
        LogWriter(output, index),
        Board(board),
        most_bytes=handoff.max_output_bytes,
        on_limit=handoff.on_output_limit,
        stdout=stdout,
        stderr=stderr,
    )
    plan = handoff.cgroup
    cgroup = open_job_without_cgroup(plan) if plan.mode is Mode.NONE else open_job(plan)
    supervisor = Supervisor(directory, handoff, cgroup, pump, wakeup, init_status=status)
    # Not before the command runs: on v2 this waits for a grace period of the kernel.
    cgroup.join_shim()
    outcome = supervisor.watch_until_empty()
    while not pump.flush():
        supervisor.wait_for_retry()
    ending = describe_ending(read_order(directory), outcome, cgroup.usage(), pump.totals)
    while not _try_record(directory, ending):
        supervisor.wait_for_retry()
    cgroup.remove()
    records.forget_reserved(directory)


def _try_record(directory: int, ending: Ending) -> bool:
    try:
        records.write_ending(directory, ending)
    except OSError:
        # In a directory that was removed no record can ever be made, nor would anybody find it.
        return os.fstat(directory).st_nlink == 0
    return True
