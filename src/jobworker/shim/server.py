"""The launcher process: forks a shim for each order that comes over its socket.

Started as ``python -I -S``, it has one thread and has loaded nothing but the standard library and
the floors below, so that forking it is cheap and safe.  It ends when the worker's end of the socket
is closed, after the orders that were already sent.  Shims do not depend on it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from jobworker.kernel import privileges
from jobworker.kernel.process import read_boot_id, set_oom_score
from jobworker.shim import shim
from jobworker.shim.start import Line
from jobworker.shim.supervise import WAKE_SIGNAL

#: An order is one byte with two descriptors: the job's directory and the line for the answer.
ORDER: bytes = b"\1"
_ORDER_FDS = 2
#: Of launcher and shims, from -1000 (never) to 1000 (first): proc_pid_oom_score_adj(5).
OOM_SCORE = -900
#: Where a shim that failed leaves its traceback, in the job's directory.
FAULT_FILE = "shim.fault"


def main() -> None:
    """argv: the numbers of two inherited descriptors, the socket and the lock of starts."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    settled = int(sys.argv[2])
    privileges.set_process_name("jobworker-launc")
    # The kernel should take a job before it takes what watches over it; the child of the shim that
    # becomes the command takes this back.  Needs CAP_SYS_RESOURCE; without it all are alike.
    with contextlib.suppress(OSError):
        set_oom_score(OOM_SCORE)
    # Shims are not waited for: whoever wants to know holds a pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A shim may be woken before it has set its own handler; ignored, the signal is only early, and
    # the shim looks at stop.json once before it waits.
    signal.signal(WAKE_SIGNAL, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    read_boot_id()  # It is remembered: one file less for every shim.
    # Everything loaded so far is shared with every shim for good.
    gc.collect()
    gc.freeze()
    gc.disable()
    while True:
        data, fds, _, _ = socket.recv_fds(orders, len(ORDER), _ORDER_FDS)
        if not data:
            return
        directory, report = fds
        if os.fork() == 0:
            orders.close()
            _be_shim(directory, Line(report=report, settled=settled))
        os.close(directory)
        os.close(report)


def _be_shim(directory: int, line: Line) -> NoReturn:
    try:
        os.setsid()
        shim.run(directory, line)
    except BaseException:  # noqa: BLE001 - the last words of this process, whatever ends it
        with contextlib.suppress(OSError):
            _leave_fault(directory)
        os._exit(1)
    os._exit(0)


def _leave_fault(directory: int) -> None:
    import traceback  # noqa: PLC0415 - a third of the launcher, and seldom needed

    # The first one counts: what the start met, not that the shim then found it dead.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(FAULT_FILE, flags, 0o600, dir_fd=directory)
    os.write(fd, traceback.format_exc().encode("utf-8", "backslashreplace"))
    os.close(fd)
