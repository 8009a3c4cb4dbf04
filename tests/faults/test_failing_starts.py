"""What keeps a place from being made for a job: it is told, or done without."""

from __future__ import annotations

import errno
from typing import Final

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.errors import StartFailedError
from jobworker.model import EndReason
from jobworker.worker import Worker
from support.crash_points import launched_by, launcher_program
from support.faults import job_cgroups
from support.guards import only_on
from support.worker import ALICE, WorkerPlace, output_of, sh

pytestmark = pytest.mark.anyio

#: As a container runtime does: the launcher and all below it are refused clone3.
_NO_CLONE3: Final = """
import ctypes, struct
def filter(code, true, false, k):
    return struct.pack("=HBBI", code, true, false, k)
# <linux/bpf_common.h>, <linux/seccomp.h>: load the call's number; is it 435?; refuse; allow.
program = b"".join([
    filter(0x20, 0, 0, 0),
    filter(0x15, 0, 1, 435),
    filter(0x06, 0, 0, 0x00050000 | {number}),
    filter(0x06, 0, 0, 0x7fff0000),
])
text = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None, use_errno=True)
sock_fprog = struct.pack("@HP", 4, ctypes.addressof(text))
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, sock_fprog, 0, 0) == 0
"""

#: As without CAP_SYS_RESOURCE in a service that is to be taken early: EACCES, for a lower score.
_HELD_SCORE: Final = """
from jobworker.shim import child, server
def refuse(score):
    raise PermissionError(13, "")
child.set_oom_score = server.set_oom_score = refuse
"""

_FAULT: Final = """
from jobworker.shim import shim
def fault():
    raise {error}
shim.settle_in = fault
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM], ids=errno.errorcode.__getitem__)
async def test_a_host_that_forbids_clone3_runs_jobs_all_the_same(
    place: WorkerPlace, number: int
) -> None:
    with launched_by(launcher_program(_NO_CLONE3.format(number=number))):
        async with place.open() as worker:
            _need_clone3(worker)
            cgroups = await output_of(worker, sh("cat /proc/self/cgroup"))
            (job,) = (await worker.list()).jobs
    (cgroup2,) = (line for line in cgroups.splitlines() if line.startswith("0::"))
    assert f"/{job.id}" in cgroup2


async def test_a_process_that_can_not_be_forked_is_told(
    place: WorkerPlace, cgroup_name: str
) -> None:
    # As of a launcher below a task limit.
    with launched_by(launcher_program(_NO_CLONE3.format(number=errno.EAGAIN))):
        async with place.open() as worker:
            _need_clone3(worker)
            what = "cannot fork the process that starts it"
            await _check_told(worker, f"{what}: Resource temporarily unavailable (EAGAIN)")
    assert not job_cgroups(cgroup_name)


def _need_clone3(worker: Worker) -> None:
    """Elsewhere the process is made by fork(2)."""
    has_cgroup2 = worker.hierarchy.mode in {Mode.UNIFIED, Mode.HYBRID}
    only_on(has_cgroup2, "cgroups that processes are cloned into")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("RuntimeError('no luck')", "cannot prepare its start: RuntimeError('no luck')"),
        ("PermissionError(13, '')", "cannot prepare its start: Permission denied (EACCES)"),
    ],
)
async def test_a_fault_before_an_order_is_told(
    place: WorkerPlace, cgroup_name: str, error: str, why: str
) -> None:
    with launched_by(launcher_program(_FAULT.format(error=error))):
        async with place.open() as worker:
            await _check_told(worker, why)
    assert not job_cgroups(cgroup_name)


async def _check_told(worker: Worker, why: str) -> None:
    """At the first start, whose place is made for it, and at one whose place was there before."""
    for _ in range(2):
        with pytest.raises(StartFailedError) as caught:
            await worker.start(sh("true"), owner=ALICE)
        assert str(caught.value) == f"cannot start the command: {why}"
        ending = (await worker.list()).jobs[0].ending
        assert ending is not None
        assert (ending.reason, ending.message) == (EndReason.START_FAILED, why)


async def test_a_score_that_may_not_be_lowered_costs_nothing(place: WorkerPlace) -> None:
    with launched_by(launcher_program(_HELD_SCORE)):
        async with place.open() as worker:
            assert await output_of(worker, sh("echo ran")) == "ran\n"
