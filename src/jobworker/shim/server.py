"""The launcher process: has a shim ready for the next order that comes over its socket.

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
from typing import Final, NoReturn

from jobworker.kernel import privileges
from jobworker.kernel.process import read_boot_id, set_oom_score
from jobworker.shim import shim
from jobworker.shim.supervise import WAKE_SIGNAL

#: Shims in a row that ended without an order; then the worker is to start another launcher.
_FAILURES_MAX: Final = 10
#: Of launcher and shims, from -1000 (never) to 1000 (first): proc_pid_oom_score_adj(5).
OOM_SCORE = -900


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
    failures = 0
    while failures < _FAILURES_MAX:
        if _wait_until_taken(orders, settled):
            failures = 0
        elif _is_closed(orders):
            return
        else:
            failures += 1


def _wait_until_taken(orders: socket.socket, settled: int) -> bool:
    """Fork a shim and wait until it has an order; False if it ended without one."""
    read_end, taken = os.pipe2(os.O_CLOEXEC)
    try:
        if os.fork() == 0:
            _be_shim(orders, settled, taken)
    finally:
        os.close(taken)
    is_taken = bool(os.read(read_end, 1))
    os.close(read_end)
    return is_taken


def _is_closed(orders: socket.socket) -> bool:
    """Has the worker closed its end, and is no order of it left?"""
    try:
        return not orders.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _be_shim(orders: socket.socket, settled: int, taken: int) -> NoReturn:
    try:
        os.setsid()
        shim.run(orders, settled, taken)
    except BaseException:  # noqa: BLE001 - told by the shim itself; whatever it is ends here
        os._exit(1)
    os._exit(0)
