"""The launcher process: makes a place for one job whenever its worker asks for one.

A place is the job's cgroup and directory and, in both, a process that is ready to become the
command, with the shim that will watch over it.  All is there before there is an order, so that a
start waits for no fork.

Started as ``python -I -S``, it has one thread and has loaded nothing but the standard library and
the floors below, so that forking it is cheap and safe.  It ends when the worker's end of the socket
is closed, after what was asked for before.  Shims do not depend on it.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import signal
import socket
import sys
from typing import Final, NoReturn

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import CgroupPlan
from jobworker.kernel import privileges
from jobworker.kernel.process import read_boot_id, set_oom_score
from jobworker.shim import shim
from jobworker.shim.place import PlaceDirectory, ShimPlace
from jobworker.shim.refusal import refused
from jobworker.shim.start import warm_up
from jobworker.shim.supervise import WAKE_SIGNAL

#: The paths of a few cgroups.
PLAN_BYTES_MAX: Final = 64 * 1024
#: Of launcher and shims, from -1000 (never) to 1000 (first): proc_pid_oom_score_adj(5).
OOM_SCORE = -900


def main() -> None:
    """argv: the numbers of two inherited descriptors, the socket and the lock of starts."""
    wishes = socket.socket(fileno=int(sys.argv[1]))
    settled = int(sys.argv[2])
    privileges.set_process_name("jobworker-launc")
    # The kernel should take a job before it takes what watches over it; the process that becomes
    # the command takes this back.  Needs CAP_SYS_RESOURCE; without it all are alike.
    with contextlib.suppress(OSError):
        set_oom_score(OOM_SCORE)
    # Shims are not waited for: whoever wants to know holds a pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A shim may be woken before it has set its own handler; ignored, the signal is only early, and
    # the shim looks at stop.json once before it waits.
    signal.signal(WAKE_SIGNAL, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A mask is inherited too: where the program that embeds the worker blocks some, no shim would
    # hear of its command's end.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    read_boot_id()  # It is remembered: one file less for every shim.
    # What Python fills in when code first runs is shared too.  The child goes through it once more,
    # for the pages that are written to each time.
    warm_up()
    # Everything loaded so far is shared with every shim for good.
    gc.collect()
    gc.freeze()
    gc.disable()
    while (wish := _receive(wishes)) is not None:
        _make_place(*wish, wishes, settled)


def _receive(
    wishes: socket.socket,
) -> tuple[CgroupPlan, PlaceDirectory, socket.socket] | None:
    """Where the next job's cgroup is to be and where its directory is, and the line to its worker;
    None when the worker has closed its end.
    """
    message, fds, _, _ = socket.recv_fds(wishes, PLAN_BYTES_MAX, 1)
    if not message:
        return None
    plan, *paths = marshal.loads(message)  # noqa: S302 - from our own worker
    directory = PlaceDirectory(*paths)
    return CgroupPlan.from_json(plan), directory, socket.socket(fileno=fds[0])


def _make_place(
    plan: CgroupPlan,
    directory: PlaceDirectory,
    line: socket.socket,
    wishes: socket.socket,
    settled: int,
) -> None:
    cgroup = open_job(plan)
    with line:
        try:
            cgroup.create()
            members = cgroup.clone_fd()
        except OSError as error:
            shim.decline(cgroup, directory, line, refused("make its cgroup", error))
            return
        # One after the other is got ready: together they would only be in each other's way.
        until_ready, ready = os.pipe2(os.O_CLOEXEC)
        place = ShimPlace(
            cgroup=cgroup,
            members=members,
            directory=directory,
            line=line,
            settled=settled,
            ready=ready,
        )
        try:
            if os.fork() == 0:
                wishes.close()
                os.close(until_ready)
                _be_shim(place)
        except OSError as error:
            shim.decline(cgroup, directory, line, refused("fork its shim", error))
        finally:
            if members is not None:
                os.close(members)
            os.close(ready)
    os.read(until_ready, 1)
    os.close(until_ready)


def _be_shim(place: ShimPlace) -> NoReturn:
    try:
        os.setsid()
        shim.run(place)
    except BaseException:  # noqa: BLE001 - told by the shim itself; whatever it is ends here
        os._exit(1)
    os._exit(0)
