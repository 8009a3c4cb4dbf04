"""One job's shim, from the order to the record of the ending.

A shim is forked from the launcher, one for each job and one ahead, and is the parent of the
command: it keeps the output, enforces the deadlines, and writes down how the command ended, whether
or not a daemon lives. With the child that starts the command for it, it owns everything in the
job's directory except ``spec.json`` and ``stop.json``.

The steps are recorded in this order: shim.json, then the cgroup, then the command, then
started.json; and at the end: the output on the disk, exit.json, then the cgroup is removed.  Killed
between any two of them, it leaves enough for the worker to tell what is true.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Final, NoReturn

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
from jobworker.shim.start import answer_worker, start, warm_up
from jobworker.shim.supervise import Supervisor, Wakeup

#: An order is one byte with two descriptors: the job's directory and the line for the answer.
ORDER: Final = b"\1"
ORDER_FDS: Final = 2
#: Where a shim that failed leaves its traceback, in the job's directory.
FAULT_FILE: Final = "shim.fault"


def run(orders: socket.socket, settled: int, taken: int) -> None:
    """Wait for an order, carry it out; returns when the job has ended and is recorded.

    Made before there is an order, so that nobody waits for two forks.  Returns at once when no
    order comes any more.

    orders: from the launcher.  settled: a lock that tells a later worker that a start is not
    settled yet.  taken: a pipe that is written to when there is an order.  All are taken.
    """
    privileges.set_process_name("jobworker-spare")
    privileges.become_subreaper()
    # Before there is a child whose death could be missed.
    wakeup = Wakeup()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _start_one(orders, taken, theirs, shim_pid)
    for fd in (orders, theirs):
        fd.close()
    os.close(taken)
    with ours:
        handed = receive_handoff(ours)
    if handed is not None:
        _take_over(*handed, settled=settled, starting_pid=pid, wakeup=wakeup)


def _start_one(
    orders: socket.socket, taken: int, to_shim: socket.socket, shim_pid: int
) -> NoReturn:
    """In the starting process, which ends with the start."""
    # Without its shim the command would have nobody: PID 1 would be its parent.
    privileges.set_process_name("jobworker-start")
    privileges.die_with_parent()
    if os.getppid() != shim_pid:
        os._exit(1)
    # The shim's, inherited: a signal to this process must not wake that one.
    signal.set_wakeup_fd(-1)
    warm_up()
    order, fds, _, _ = socket.recv_fds(orders, len(ORDER), ORDER_FDS)
    if not order:
        os._exit(0)
    directory, report = fds
    os.write(taken, b"\1")
    os.close(taken)
    # Kept open here an order would seem to be welcome when the launcher is gone.
    orders.close()
    try:
        start(directory, report, to_shim, shim_pid)
    except BaseException:  # noqa: BLE001 - the last words of this process, whatever ends it
        leave_fault(directory)
        os._exit(1)
    os._exit(0)


def _take_over(
    handoff: Handoff, fds: list[int], *, settled: int, starting_pid: int, wakeup: Wakeup
) -> None:
    """Answer the worker; from here on the job has no other."""
    privileges.set_process_name("jobworker-shim")
    directory, report = fds[:2]
    try:
        answer_worker(report, handoff.answer)
        os.close(report)
        os.close(settled)
        # It has nothing more to do, and must not be taken for one of the job's.
        os.waitpid(starting_pid, 0)
        _supervise(directory, handoff, fds[2:], wakeup)
    except BaseException:
        leave_fault(directory)
        raise


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
    cgroup.note_above()
    outcome = supervisor.watch_until_empty()
    while not pump.flush():
        supervisor.wait_for_retry()
    usage = cgroup.usage()
    hits = cgroup.limit_hits(usage)
    ending = describe_ending(read_order(directory), outcome, usage, hits, pump.totals)
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


def leave_fault(directory: int) -> None:
    """Keep the traceback of the exception that is being handled, for the worker to tell."""
    import traceback  # noqa: PLC0415 - a third of the launcher, and seldom needed

    # The first one counts: what the start met, not that the shim then found it dead.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(FAULT_FILE, flags, 0o600, dir_fd=directory)
        os.write(fd, traceback.format_exc().encode("utf-8", "backslashreplace"))
        os.close(fd)
