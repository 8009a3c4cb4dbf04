"""The shim's watch over one running command, until nothing of it is left.

One epoll loop: the command's pipes, its children's deaths, its cgroup's emptiness, the worker's
wish to stop it, and its deadlines.  It sleeps until one of them happens.

Not here: how the command is started (start.py), and what its end is called (ending.py).
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jobworker.cgroup.interface import JobCgroup
from jobworker.errors import DataLossError
from jobworker.kernel import kernfs
from jobworker.output.pump import Pump
from jobworker.shim import records
from jobworker.shim.handoff import Handoff
from jobworker.shim.init import read_status

#: The worker's "look at stop.json".  Its default action would kill a process that does not handle
#: it.
WAKE_SIGNAL: Final = signal.SIGUSR1
#: How often a log that takes nothing is tried again: no event tells that a disk has space.
_RETRY_S: Final = 0.25
#: epoll_wait(2) takes milliseconds in an int: 24.8 days, and a time limit may be longer.  Whoever
#: wakes up before anything is due waits on.
_WAIT_MAX_S: Final = 24 * 3600.0
_WAKEUPS_READ: Final = 4096


class Cause(enum.Enum):
    """Who or what made the command end, if it was not itself."""

    STOP = "stop"
    TIMEOUT = "timeout"
    OUTPUT = "output"


@dataclass(slots=True)
class Outcome:
    """What is known of the end so far."""

    wait_status: int | None = None
    """Of the main process, as wait(2) gives it."""
    cpu_s: float = 0.0
    """Of the main process and those below it that were waited for: for hosts without cgroups."""
    cause: Cause | None = None
    """The first one; a stop or a time limit only if it came before the main process ended."""
    stopped_by: str = ""
    was_killed: bool = False
    """SIGKILL was needed after the grace period."""
    left_behind: int = 0
    """Processes that the main process left when it ended by itself, and that were killed."""


class Wakeup:
    """Readable after SIGCHLD or WAKE_SIGNAL; one per process.  Source: signal.set_wakeup_fd."""

    def __init__(self) -> None:
        self._fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, WAKE_SIGNAL):
            # Python handles signals only where a handler stands; the descriptor does the rest.
            signal.signal(number, _do_nothing)

    def fileno(self) -> int:
        return self._fd

    def clear(self) -> None:
        """Not readable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _WAKEUPS_READ)


def _do_nothing(_number: int, _frame: object) -> None:
    pass


class Supervisor:
    """Watches one command from the moment it runs."""

    def __init__(
        self,
        directory: int,
        handoff: Handoff,
        cgroup: JobCgroup,
        pump: Pump,
        wakeup: Wakeup,
        *,
        init_status: int | None = None,
    ) -> None:
        """directory: of the job; borrowed, as are the rest.

        init_status: where an init tells how the command ended.
        """
        self._init_status = init_status
        self._directory = directory
        self._pid = handoff.pid
        self._grace_s = handoff.grace_s
        self._cgroup = cgroup
        self._pump = pump
        self._wakeup = wakeup
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._kill_at: float | None = None
        self._timeout_at: float | None = None
        self._retry_at: float | None = None
        self._is_killing = False
        self._is_empty = False
        self.outcome = Outcome()
        if handoff.timeout_s is not None:
            self._timeout_at = time.monotonic() + handoff.timeout_s
        self._watch(wakeup.fileno(), self._on_signal)
        events = cgroup.open_events()
        if events is not None:
            self._watch(events, lambda: self._on_events(events), select.EPOLLPRI)
        for pipe in pump.open_pipes:
            self._watch(pipe, lambda pipe=pipe: self._on_output(pipe))  # type: ignore[misc]

    def watch_until_empty(self) -> Outcome:
        """Return once no process is left and all output is in the log."""
        # What came before this: a command that died at once, a stop that overtook us.
        self._on_signal()
        while not (self._is_empty and self._is_drained()):
            for fd, _ in self._epoll.poll(self._timeout_s()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
            self._on_time()
        self._pump.close()
        if self._pump.is_over_limit and self.outcome.cause is None:
            # What it wrote last is often read only after it has ended by itself.
            self.outcome.cause = Cause.OUTPUT
        return self.outcome

    def wait_for_retry(self) -> None:
        """Sleep a moment, or until a signal, before the disk is tried again."""
        for fd, _ in self._epoll.poll(_RETRY_S):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()

    # -- what can happen ---------------------------------------------------------------------------

    def _on_signal(self) -> None:
        self._wakeup.clear()
        self._reap()
        self._read_stop()
        if self._is_killing:
            # Where no kernel kills a tree at once, what the killed ones leave comes to us.
            self._kill()
        # Without an events file the death of the last child is what tells.
        self._look_whether_empty()

    def _on_events(self, events: int) -> None:
        # Read before the look: unread, the event would be announced again and again.
        with contextlib.suppress(OSError):  # ENODEV: somebody removed the cgroup
            kernfs.reread(events)
        self._look_whether_empty()

    def _on_output(self, pipe: int) -> None:
        self._pump.pump(pipe)
        if pipe not in self._pump.open_pipes:
            # It is closed, which took it out of the epoll set.
            del self._handlers[pipe]
        elif self._pump.blocked_errno:
            self._pause_output()
        if self._pump.is_over_limit:
            self._begin_kill(Cause.OUTPUT)

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._timeout_at is not None and now >= self._timeout_at:
            self._timeout_at = None
            self._begin_stop(Cause.TIMEOUT, self._grace_s)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.outcome.was_killed = True
            self._kill()
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._resume_output()

    # -- the end of the processes
    # --------------------------------------------------------------------

    def _reap(self) -> None:
        """Wait for every dead child; orphans of the command are ours too."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.outcome.cpu_s += used.ru_utime + used.ru_stime
            if pid == self._pid:
                self.outcome.wait_status = self._status_of_command(status)
                self._kill_what_is_left()

    def _status_of_command(self, status: int) -> int:
        """The main process is the command, or an init that was told how the command ended."""
        told = None if self._init_status is None else read_status(self._init_status)
        return status if told is None else told

    def _kill_what_is_left(self) -> None:
        """A job ends with its main process."""
        self._timeout_at = self._kill_at = None
        if self._cgroup.is_populated():
            if self.outcome.cause is None:
                # Else they were told to end, or killed, when it was, and may be dying just now.
                self.outcome.left_behind = len(self._cgroup.pids())
            self._kill()

    def _look_whether_empty(self) -> None:
        if self.outcome.wait_status is not None and not self._cgroup.is_populated():
            self._is_empty = True

    def _read_stop(self) -> None:
        if self.outcome.wait_status is not None:
            return
        try:
            stop = records.read(self._directory, records.STOP)
        except DataLossError:
            # Somebody asked for it, that much is sure.
            stop = {"stopped_by": "", "grace_s": self._grace_s}
        if stop is not None:
            self.outcome.stopped_by = self.outcome.stopped_by or str(stop["stopped_by"])
            self._begin_stop(Cause.STOP, float(stop["grace_s"]))

    def _begin_stop(self, cause: Cause, grace_s: float) -> None:
        """SIGTERM, and SIGKILL when the grace is over; a later stop can only shorten the grace."""
        kill_at = time.monotonic() + grace_s
        if self._kill_at is None and self.outcome.cause is None:
            self.outcome.cause = cause
            self._kill_at = kill_at
            if grace_s > 0:
                self._cgroup.signal(signal.SIGTERM)
                # A stopped process can't handle anything.
                self._cgroup.signal(signal.SIGCONT)
        elif self._kill_at is not None:
            self._kill_at = min(self._kill_at, kill_at)

    def _begin_kill(self, cause: Cause) -> None:
        if self.outcome.wait_status is None:
            self.outcome.cause = self.outcome.cause or cause
            self._kill()

    def _kill(self) -> None:
        self._is_killing = True
        self._cgroup.kill()

    # -- output
    # --------------------------------------------------------------------------------------

    def _is_drained(self) -> bool:
        """Once nobody of the job lives: take what the pipes still hold, and close them.

        A pipe that is empty and yet open is held by a process outside the job, which it was handed
        to; nothing that belongs to the job can come from there.
        """
        if self._retry_at is None and not self._pump.drain():
            self._pause_output()
        return self._retry_at is None

    def _pause_output(self) -> None:
        self._retry_at = time.monotonic() + _RETRY_S
        for pipe in self._pump.open_pipes:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(pipe)

    def _resume_output(self) -> None:
        for pipe in self._pump.open_pipes:
            self._epoll.register(pipe, select.EPOLLIN)

    # -- the loop
    # ------------------------------------------------------------------------------------

    def _watch(self, fd: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _timeout_s(self) -> float | None:
        """Until the next deadline, or a part of it; None is for ever."""
        times = (self._timeout_at, self._kill_at, self._retry_at)
        nearest = min((at for at in times if at is not None), default=None)
        if nearest is None:
            return None
        return min(max(0.0, nearest - time.monotonic()), _WAIT_MAX_S)
