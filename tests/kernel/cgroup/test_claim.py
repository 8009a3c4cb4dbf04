"""A worker takes a place of its own, says what it can hold there, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobworker.cgroup.choose import open_hierarchy, open_job
from jobworker.cgroup.interface import Hierarchy, Mode
from jobworker.cgroup.location import find_locations
from jobworker.errors import InvalidArgumentError
from jobworker.model.limits import Limits, Resource
from jobworker.model.usage import Usage
from support.guards import cgroup_mounts

pytestmark = pytest.mark.kernel

#: Claims a place, as the daemon does at its start; prints where it found itself after that.
CLAIM = """
import json, sys
from jobworker.cgroup.choose import open_hierarchy
from jobworker.cgroup.location import find_locations
from jobworker.cgroup.v2 import tree
mode, *controllers = sys.argv[1:]
if mode == "tree":
    claim = tree.claim(find_locations().unified, "jobs", None, controllers)
    told = {"problems": dict(claim.problems), "directory": claim.directory}
else:
    hierarchy = open_hierarchy("jobs")
    told = {"mode": hierarchy.mode.value, "notes": [v.note for v in hierarchy.verdicts().values()]}
print(json.dumps(told | {"own": find_locations().unified.own}))
"""


def test_two_workers_do_not_see_each_others_jobs(hierarchy: Hierarchy, cgroup_name: str) -> None:
    other = open_hierarchy("other", parent=cgroup_name, mode=hierarchy.mode)
    job = open_job(other.plan("1job"))
    job.create()
    assert other.stray_jobs() == ("1job",)
    assert hierarchy.stray_jobs() == ()
    job.remove()
    other.release()


def test_a_second_claim_of_the_same_place_finds_the_jobs_of_the_first(
    hierarchy: Hierarchy, cgroup_name: str
) -> None:
    job = open_job(hierarchy.plan("1job"))
    job.create()
    again = open_hierarchy("jobs", parent=cgroup_name, mode=hierarchy.mode)
    assert again.stray_jobs() == ("1job",)
    assert again.plan("1job") == hierarchy.plan("1job")
    job.remove()


def test_releasing_leaves_the_place_while_a_job_is_in_it(hierarchy: Hierarchy) -> None:
    plan = hierarchy.plan("1job")
    job = open_job(plan)
    job.create()
    hierarchy.release()
    assert hierarchy.stray_jobs() == ("1job",)
    job.remove()


def test_releasing_removes_what_the_claim_made(cgroup_name: str) -> None:
    claimed = open_hierarchy("jobs", parent=cgroup_name)
    claimed.release()
    assert not [place for mount in cgroup_mounts() for place in mount.glob(f"**/{cgroup_name}")]


def test_an_absolute_parent_is_below_the_mount_point(cgroup_name: str) -> None:
    claimed = open_hierarchy("jobs", parent=f"/{cgroup_name}/deep")
    plan = claimed.plan("1job")
    mounts = [str(mount) for mount in cgroup_mounts()]
    for directory in {plan.members, *plan.controllers.values()}:
        assert any(directory.startswith(f"{mount}/{cgroup_name}/deep/jobs/") for mount in mounts)
    claimed.release()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a\0b"])
def test_a_name_that_is_not_one_component_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        open_hierarchy(name)


@pytest.mark.parametrize("parent", ["", "../up", "a/../../b"])
def test_a_parent_that_leads_out_is_refused(parent: str) -> None:
    with pytest.raises(InvalidArgumentError):
        open_hierarchy("jobs", parent=parent)


def test_with_no_cgroups_nothing_is_promised_and_nothing_fails() -> None:
    hierarchy = open_hierarchy("jobs", mode=Mode.NONE)
    assert not any(verdict.is_enforced for verdict in hierarchy.verdicts().values())
    job = open_job(hierarchy.plan("1job"))
    job.create()
    job.join_shim()
    effective = job.set_limits(Limits(cpu_millis=100, io_read_ops_per_s=5), ())
    assert [limit.resource for limit in effective] == [Resource.CPU, Resource.IO_READ_OPS]
    assert not any(limit.is_enforced for limit in effective)
    assert (job.clone_fd(), job.open_joins(), job.open_events()) == (None, (), None)
    assert (job.pids(), job.signal(15), job.is_populated()) == ((), 0, False)
    assert job.usage() == Usage()
    job.kill()
    job.remove()
    hierarchy.release()


def test_where_nothing_may_be_written_the_verdicts_say_why() -> None:
    # In a mount name space of its own, as in a container that was given its cgroups read-only.
    mounts = [str(mount) for mount in cgroup_mounts()]
    script = "".join(f"mount -o remount,bind,ro {mount} && " for mount in mounts)
    told = _claim("unshare", "--mount", "/bin/sh", "-c", f'{script} exec "$@"', "sh", mode="open")
    assert told["mode"] == "none"
    assert all("EROFS" in note for note in told["notes"])


@pytest.fixture
def delegated(cgroup_name: str) -> Iterator[Path]:
    """A cgroup2 directory that was given all controllers, as a service manager delegates one."""
    location = find_locations().unified
    assert location is not None
    own = Path(location.own)
    outer = own / cgroup_name
    inner = outer / "service"
    inner.mkdir(parents=True)
    given = set(_controllers(own)) - _enabled(own)
    for directory in (own, outer):
        for controller in _controllers(directory):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
    yield inner
    for directory in (inner / "jobs", inner / "daemon", inner, outer):
        if directory.exists():
            directory.rmdir()
    for controller in given:
        (own / "cgroup.subtree_control").write_text(f"-{controller}")


def _controllers(directory: Path) -> list[str]:
    return (directory / "cgroup.controllers").read_text().split()


def test_in_a_delegated_cgroup_the_daemon_steps_aside(delegated: Path) -> None:
    controllers = _controllers(delegated)
    assert controllers
    told = _claim(*_inside(delegated), mode="tree", controllers=controllers)
    assert told["problems"] == {}
    assert told["directory"] == str(delegated / "jobs")
    assert told["own"] == str(delegated / "daemon")
    assert _enabled(delegated) == _enabled(delegated / "jobs") == set(controllers)


def test_a_daemon_that_is_put_into_its_leaf_again_finds_the_same_place(delegated: Path) -> None:
    controllers = _controllers(delegated)
    _claim(*_inside(delegated), mode="tree", controllers=controllers)
    told = _claim(*_inside(delegated / "daemon"), mode="tree", controllers=controllers)
    assert told["problems"] == {}
    assert told["directory"] == str(delegated / "jobs")
    assert told["own"] == str(delegated / "daemon")


def test_where_others_live_the_daemon_stays_and_says_what_is_in_the_way(delegated: Path) -> None:
    controllers = _controllers(delegated)
    # The shell waits for the daemon beside it.
    shell = ["/bin/sh", "-c", f'echo 0 > {delegated}/cgroup.procs; "$@"; exit $?', "sh"]
    told = _claim(*shell, mode="tree", controllers=controllers)
    assert set(told["problems"]) == set(controllers)
    assert all("other processes" in why for why in told["problems"].values())
    assert told["own"] == str(delegated)
    # Jobs can still live there, if without limits: a threaded domain would be closed to them.
    assert (delegated / "jobs" / "cgroup.type").read_text() == "domain\n"


def test_a_controller_that_was_not_given_is_named(delegated: Path) -> None:
    told = _claim(*_inside(delegated), mode="tree", controllers=["rdma"])
    assert told["problems"] == {"rdma": f"cgroup {delegated} was given no controller rdma"}


def _enabled(directory: Path) -> set[str]:
    return set((directory / "cgroup.subtree_control").read_text().split())


def _inside(directory: Path) -> list[str]:
    return ["/bin/sh", "-c", f'echo 0 > {directory}/cgroup.procs; exec "$@"', "sh"]


def _claim(*wrapped: str, mode: str, controllers: list[str] | None = None) -> dict[str, Any]:
    command = [*wrapped, sys.executable, "-I", "-c", CLAIM, mode, *(controllers or [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)
    told: dict[str, Any] = json.loads(done.stdout)
    return told
