"""What is said of a job's end, from what was seen and counted."""

from __future__ import annotations

import signal
from typing import Final

import pytest

from jobworker.cgroup.interface import CgroupPlan, Mode
from jobworker.cgroup.oom import Level, LimitHits, OomSite, OutOfMemory
from jobworker.model import EndReason, Isolation, Limits, OnOutputLimit
from jobworker.model.usage import OutputTotals, Usage
from jobworker.shim.ending import describe_ending
from jobworker.shim.order import Order
from jobworker.shim.supervise import Outcome

_ORDER: Final = Order(
    job_id="",
    argv=("/bin/true",),
    env={},
    cwd="/",
    scratch="/",
    account=None,
    cgroup=CgroupPlan(mode=Mode.NONE),
    limits=Limits(),
    devices=(),
    require_limits=True,
    timeout_s=None,
    grace_s=0.0,
    max_output_bytes=None,
    on_output_limit=OnOutputLimit.STOP,
    isolation=Isolation.NONE,
)


@pytest.mark.parametrize(
    ("kills", "told"),
    [
        pytest.param(None, "64M", id="the whole job"),
        pytest.param(1, "64M (1 process killed); 2 processes that it left behind were killed"),
    ],
)
def test_what_the_kernel_killed_with_the_main_process_was_not_left_behind(
    kills: int | None, told: str
) -> None:
    own = Level(path="/job", limit_bytes=64 << 20, was_reached=True, ooms=1)
    memory = OutOfMemory(site=OomSite.OWN, own=own, limit_bytes=own.limit_bytes, kills=kills)
    ending = describe_ending(
        _ORDER,
        # Some were still dying when the main process was dead.
        Outcome(wait_status=int(signal.SIGKILL), left_behind=2),
        Usage(oom_kills=3),
        LimitHits(memory=memory),
        OutputTotals(),
    )
    assert ending.reason is EndReason.OOM_KILLED
    assert ending.message == f"killed by the kernel: out of memory at its own limit of {told}"
