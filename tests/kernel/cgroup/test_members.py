"""A job is its cgroup: nobody leaves it, everybody in it can be reached, and its end is told."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from pathlib import Path

import pytest

from jobworker.cgroup.interface import CgroupPlan, Mode
from jobworker.cgroup.v2.members import Members
from jobworker.model.limits import Limits
from jobworker.model.usage import Usage
from kernel.cgroup.bench import SHELL, Bench

pytestmark = pytest.mark.kernel

#: Forks for as long as it may; every other child leaves session and group, and lives on its own.
FORK_BOMB = """
import os
print("ready", flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""

IGNORING = "trap '' TERM HUP INT; echo ready; while :; do :; done"


def test_the_command_is_in_all_its_cgroups_before_it_runs(bench: Bench) -> None:
    code, output = bench.run("/bin/cat", "/proc/self/cgroup")
    assert code == 0
    plan = bench.job.plan
    expected = {*plan.controllers.values(), plan.members}
    seen = {line.split(":", 2)[2] for line in output.splitlines()}
    assert expected
    for directory in expected:
        assert any(directory.endswith(path) for path in seen if path != "/"), directory


def test_a_fork_bomb_that_leaves_its_session_is_killed_whole(bench: Bench) -> None:
    bench.job.set_limits(Limits(tasks=40), ())
    bench.start_ready(sys.executable, "-I", "-S", "-c", FORK_BOMB)
    bench.job.kill()
    bench.wait_empty()
    assert bench.job.pids() == ()
    assert not bench.job.is_populated()


def test_killing_reaches_a_stopped_process(bench: Bench) -> None:
    process = bench.start_ready(SHELL, "-c", "echo ready; kill -STOP $$")
    bench.job.kill()
    assert process.wait(timeout=20) == 128 + signal.SIGKILL


def test_a_process_that_ignores_signals_is_killed(bench: Bench) -> None:
    process = bench.start_ready(SHELL, "-c", IGNORING)
    assert bench.job.signal(signal.SIGTERM) == 1
    assert bench.job.is_populated()
    bench.job.kill()
    assert process.wait(timeout=20) == 128 + signal.SIGKILL


def test_a_signal_reaches_every_member_and_nobody_else(bench: Bench) -> None:
    script = "trap 'exit 0' TERM; echo $$; while :; do :; done"
    both = f"({script}) & ({script}) & wait"
    process = bench.start(SHELL, "-c", both)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    assert bench.job.signal(signal.SIGTERM) == 3
    bench.wait_empty()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_the_end_of_the_last_member_wakes_an_epoll(bench: Bench) -> None:
    process = bench.start_ready(SHELL, "-c", IGNORING)
    events = bench.job.open_events()
    if bench.hierarchy.mode is Mode.LEGACY:
        assert events is None
        bench.job.kill()
        process.wait(timeout=20)
        return
    assert events is not None
    with select.epoll() as epoll:
        epoll.register(events, select.EPOLLPRI)
        assert epoll.poll(0) == [], "nothing has happened, and nobody shall wake"
        bench.job.kill()
        while bench.job.is_populated():
            assert epoll.poll(20) != []
            os.pread(events, 4096, 0)
        assert epoll.poll(0) in ([], [(events, select.EPOLLPRI | select.EPOLLERR)])
    os.close(events)


def test_members_are_told_while_they_live(bench: Bench) -> None:
    assert not bench.job.is_populated()
    process = bench.start(SHELL, "-c", "echo $$; while :; do :; done")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert bench.job.pids() == (pid,)
    assert bench.job.is_populated()
    usage = bench.job.usage()
    assert usage.tasks == 1
    assert usage.memory_bytes is not None
    assert usage.memory_bytes > 0


def test_removing_with_members_is_refused_and_leaves_the_job_alone(bench: Bench) -> None:
    bench.start_ready(SHELL, "-c", IGNORING)
    with pytest.raises(OSError, match="EBUSY") as refused:
        bench.job.remove()
    assert refused.value.errno == errno.EBUSY
    assert bench.job.is_populated()


def test_removing_leaves_nothing_and_everything_after_it_is_harmless(bench: Bench) -> None:
    assert bench.run("/bin/true")[0] == 0
    assert bench.hierarchy.stray_jobs() == ("1job",)
    bench.job.remove()
    for directory in _directories(bench.job.plan):
        assert not Path(directory).exists()
    assert bench.hierarchy.stray_jobs() == ()
    bench.job.remove()
    bench.job.kill()
    assert bench.job.signal(signal.SIGTERM) == 0
    assert bench.job.pids() == ()
    assert not bench.job.is_populated()
    assert bench.job.usage() == Usage()
    assert not bench.job.set_limits(Limits(tasks=1), ())[0].is_enforced


def test_the_shim_can_remove_the_cgroups_that_it_stands_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOVE", "1")
    assert bench.run("/bin/true") == (0, "")
    assert bench.hierarchy.stray_jobs() == ()


def test_left_overs_of_the_same_name_are_taken_over(bench: Bench) -> None:
    bench.job.create()
    assert bench.run("/bin/true")[0] == 0


def test_cgroups_that_the_command_made_are_removed_too(bench: Bench) -> None:
    inner = Path(bench.job.plan.members) / "inner"
    script = f"mkdir {inner} && echo 0 > {inner}/cgroup.procs; echo ready; while :; do :; done"
    process = bench.start_ready(SHELL, "-c", script)
    assert len(bench.job.pids()) == 1
    assert bench.job.is_populated()
    bench.job.kill()
    assert process.wait(timeout=20) == 128 + signal.SIGKILL
    bench.wait_empty()
    bench.job.remove()
    assert not inner.exists()


def test_a_plan_survives_its_way_through_a_record(bench: Bench) -> None:
    assert CgroupPlan.from_json(bench.job.plan.to_json()) == bench.job.plan


def test_a_kernel_without_cgroup_kill_kills_what_it_froze(bench: Bench) -> None:
    bench.job.set_limits(Limits(tasks=40), ())
    bench.start_ready(sys.executable, "-I", "-S", "-c", FORK_BOMB)
    if bench.hierarchy.mode is Mode.LEGACY:
        bench.job.kill()  # v1 knows no other way
    else:
        Members(bench.job.plan.members).kill_frozen()
    bench.wait_empty()
    assert bench.job.pids() == ()


def test_the_shim_stands_where_its_writes_count_but_is_no_member(bench: Bench) -> None:
    process = bench.start(SHELL, "-c", "echo $PPID; while :; do :; done")
    assert process.stdout is not None
    shim = int(process.stdout.readline())
    assert shim == process.pid
    assert shim not in bench.job.pids()
    own = Path(f"/proc/{shim}/cgroup").read_text().splitlines()[-1].removeprefix("0::")
    assert own.endswith("/1job/shim") is (bench.hierarchy.mode is Mode.UNIFIED)


def _directories(plan: CgroupPlan) -> set[str]:
    return {*plan.controllers.values(), plan.members, plan.job, plan.shim} - {""}
