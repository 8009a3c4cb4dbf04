"""One job's shim, from its place to the record of the ending.

A shim is forked from the launcher, one for each job and one ahead, and is the parent of the
command: it keeps the output, enforces the deadlines, and writes down how the command ended, whether
or not a daemon lives. With its child, which becomes the command, it owns everything in the job's
directory except ``spec.json`` and ``stop.json``.

The steps are recorded in this order: the cgroup, shim.json, then the command, then started.json;
and at the end: the output on the disk, exit.json, then the cgroup is removed.  Killed between any
two of them, it leaves enough for the worker to tell what is true.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from jobworker.cgroup.interface import JobCgroup, Mode
from jobworker.kernel import clone, privileges
from jobworker.model.ending import Ending, EndReason
from jobworker.output.log import Board, LogWriter
from jobworker.output.pump import Pump
from jobworker.shim import records
from jobworker.shim.child import let_init_go, read_failure, settle_in
from jobworker.shim.descendants import open_job_without_cgroup
from jobworker.shim.ending import describe_dead_start, describe_ending
from jobworker.shim.handoff import Handoff, Refusal, receive_handoff, send_refusal
from jobworker.shim.order import read_order
from jobworker.shim.place import PlaceDirectory, ShimPlace
from jobworker.shim.refusal import RefusedError, refused, refused_by
from jobworker.shim.start import prepare, start, warm_up
from jobworker.shim.supervise import Supervisor, Wakeup

#: An order is one byte; what it is stands in ``spec.json``.
ORDER: Final = b"\1"
#: Where a shim that failed leaves its traceback, in the job's directory.
FAULT_FILE: Final = "shim.fault"


def run(place: ShimPlace) -> None:
    """Wait for an order, carry it out; returns when the job has ended and is recorded.

    Also returns, and removes cgroup and directory, when no order comes any more.
    """
    privileges.set_process_name("jobworker-spare")
    privileges.become_subreaper()
    # Before there is a child whose death could be missed.
    wakeup = Wakeup()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shim_pid = os.getpid()
    try:
        directory = place.directory.open()
        pid = os.fork() if place.members is None else clone.fork_into(place.members)
    except OSError as error:
        refusal = refused("fork the process that starts it", error)
        decline(place.cgroup, place.directory, place.line, refusal)
        return
    if pid == 0:
        ours.close()
        _start_one(place, directory, theirs, shim_pid)
    theirs.close()
    os.close(directory)
    os.close(place.ready)
    if place.members is not None:
        os.close(place.members)
    with ours:
        handed, fds = receive_handoff(ours)
    shim = _Shim(place, starting_pid=pid)
    if isinstance(handed, Handoff):
        shim.take_over(handed, fds, wakeup)
    elif isinstance(handed, Refusal):
        shim.refuse(fds[0], handed.answer)
    else:
        shim.withdraw()


def _start_one(place: ShimPlace, directory: int, to_shim: socket.socket, shim_pid: int) -> NoReturn:
    """In the process that becomes the command, or with an init ends with the start.

    directory: that of the place, which becomes the job's.
    """
    # Without its shim the command would have nobody: PID 1 would be its parent.
    privileges.set_process_name("jobworker-start")
    privileges.die_with_parent()
    if os.getppid() != shim_pid:
        os._exit(1)
    # The shim's, inherited: a signal to this process must not wake that one.
    signal.set_wakeup_fd(-1)
    try:
        settle_in()
        warm_up()
        prepared = prepare(directory, place.cgroup, shim_pid)
        os.close(place.ready)
        if place.line.recv(len(ORDER)):
            place.directory.become_job()
            # Not sooner: when the worker sees the line's end, nobody moves the directory any more.
            place.line.close()
            start(prepared, to_shim)
    except RefusedError as refusal:
        send_refusal(to_shim, refusal.answer, directory)
    except BaseException as error:  # noqa: BLE001 - the last words of this process, whatever ends it
        leave_fault(directory)
        _tell_fault(to_shim, error, directory)
        os._exit(1)
    os._exit(0)


def _tell_fault(to_shim: socket.socket, error: BaseException, directory: int) -> None:
    """Whatever is raised here is raised before the command is handed over."""
    what = "prepare its start"
    if isinstance(error, OSError):
        refusal = refused(what, error)
    else:
        refusal = RefusedError(f"cannot {what}: {error!r}")
    with contextlib.suppress(OSError):  # the shim is dead, and the job with it
        send_refusal(to_shim, refusal.answer, directory)


class _Shim:
    """What a shim has from its beginning, and does with what its child hands over."""

    def __init__(self, place: ShimPlace, *, starting_pid: int) -> None:
        self._place = place
        self._cgroup = place.cgroup
        self._starting_pid = starting_pid

    def withdraw(self) -> None:
        """No order came, or the child died before it had handed over: nothing was executed."""
        _wait_for_children()
        try:
            directory = self._place.directory.open_job()
        except OSError:
            # There was no order that could fail: the worker sees the line's end.
            with contextlib.suppress(OSError):
                self._cgroup.remove()
            self._place.directory.remove()
            return
        # The kernel kills it as it sets a memory limit that is too small for itself.
        usage = self._cgroup.usage()
        why = describe_dead_start(usage, self._cgroup.limit_hits(usage))
        self.refuse(directory, RefusedError(why).answer)

    def refuse(self, directory: int, answer: Mapping[str, Any]) -> None:
        """Nothing of the command ran; the child has ended, or will at once."""
        _wait_for_children()
        # The record comes before the answer, as everywhere; a full disk leaves only the answer.
        ending = Ending(reason=EndReason.START_FAILED, message=answer["why"])
        with contextlib.suppress(OSError):
            records.write_ending(directory, ending, refusal=answer)
        self._cgroup.remove()
        records.forget_drafts(directory)
        self._place.directory.remove()
        answer_worker(self._place.line, {"failed": answer})

    def take_over(self, handoff: Handoff, fds: list[int], wakeup: Wakeup) -> None:
        """Answer the worker once the command is executed; from then on the job has no other."""
        directory, error = fds[:2]
        try:
            privileges.set_process_name("jobworker-shim")
            if handoff.has_init:
                # It counts as one of the job's tasks until it is waited for; the init waits too.
                os.waitpid(self._starting_pid, 0)
                let_init_go(fds.pop())
            # While the command is on its way; afterwards there is the more for others to do.
            supervisor, pump = self._get_ready(directory, handoff, fds[2:], wakeup)
            failure = read_failure(error)
            os.close(error)
            if failure is not None:
                os.waitpid(handoff.pid, 0)
                program = read_order(directory).argv[0]
                self.refuse(directory, refused_by(failure, program).answer)
                return
            records.publish(directory, records.STARTED)
            _send(self._place.line, handoff.answer)
            self._place.line.close()
            os.close(self._place.settled)
            self._supervise(directory, supervisor, pump)
        except BaseException:
            leave_fault(directory)
            raise

    def _get_ready(
        self, directory: int, handoff: Handoff, fds: list[int], wakeup: Wakeup
    ) -> tuple[Supervisor, Pump]:
        board, output, index, stdout, stderr = fds[:5]
        status = fds[5] if handoff.has_init else None
        pump = Pump(
            LogWriter(directory, output, index),
            Board(board),
            most_bytes=handoff.max_output_bytes,
            on_limit=handoff.on_output_limit,
            stdout=stdout,
            stderr=stderr,
        )
        if self._cgroup.plan.mode is Mode.NONE:
            self._cgroup = open_job_without_cgroup(self._cgroup.plan)
        supervisor = Supervisor(directory, handoff, self._cgroup, pump, wakeup, init_status=status)
        return supervisor, pump

    def _supervise(self, directory: int, supervisor: Supervisor, pump: Pump) -> None:
        cgroup = self._cgroup
        # Not before the command runs: on v2 this waits for a grace period of the kernel.
        cgroup.join_shim()
        cgroup.note_above()
        outcome = supervisor.watch_until_empty()
        # Who waits for the ending would wait until all that is in memory is written at that rate.
        cgroup.lift_io_limits()
        while not pump.flush():
            supervisor.wait_for_retry()
        usage = cgroup.usage()
        hits = cgroup.limit_hits(usage)
        ending = describe_ending(read_order(directory), outcome, usage, hits, pump.totals)
        while not _try_record(directory, ending):
            supervisor.wait_for_retry()
        cgroup.remove()
        records.forget_drafts(directory)


def _wait_for_children() -> None:
    """The starting process ends; an init that it may have cloned then ends too: see child.py."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def decline(
    cgroup: JobCgroup, directory: PlaceDirectory, line: socket.socket, refusal: RefusedError
) -> None:
    """Nothing can start in this place: leave nothing of it, and say why."""
    with contextlib.suppress(OSError):
        cgroup.remove()
    directory.remove()
    answer_worker(line, {"failed": refusal.answer})


def answer_worker(line: socket.socket, answer: Mapping[str, object]) -> None:
    """Say how the start went; the worker may be dead, and its successor reads the records."""
    _send(line, records.encode(answer))


def _send(line: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.send(answer)


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
