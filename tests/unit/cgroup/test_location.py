"""Where a process stands, from recorded texts of hosts of every kind."""

from __future__ import annotations

from jobworker.cgroup.location import Location, parse_locations
from jobworker.kernel.mounts import parse_mounts

UNIFIED = parse_mounts("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
LEGACY = parse_mounts(
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)
HYBRID = (*LEGACY, *parse_mounts("41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"))


def test_a_service_on_a_unified_host() -> None:
    found = parse_locations("0::/system.slice/jobworker.service\n", UNIFIED)
    own = "/sys/fs/cgroup/system.slice/jobworker.service"
    assert found.unified == Location(mount="/sys/fs/cgroup", own=own)
    assert found.legacy == {}


def test_controllers_that_are_mounted_together_have_one_place() -> None:
    found = parse_locations("4:cpu,cpuacct:/a\n3:memory:/b/c\n1:name=systemd:/d\n", LEGACY)
    assert found.unified is None
    assert found.legacy["cpu"] == found.legacy["cpuacct"]
    assert found.legacy["cpu"].own == "/sys/fs/cgroup/cpu,cpuacct/a"
    assert found.legacy["memory"].own == "/sys/fs/cgroup/memory/b/c"


def test_a_hybrid_host_has_both() -> None:
    found = parse_locations("3:memory:/x\n0::/y\n", HYBRID)
    assert found.unified is not None
    assert found.unified.own == "/sys/fs/cgroup/unified/y"
    assert found.legacy.keys() == {"memory"}


def test_the_root_cgroup_is_the_mount_point() -> None:
    found = parse_locations("0::/\n", UNIFIED)
    assert found.unified == Location(mount="/sys/fs/cgroup", own="/sys/fs/cgroup")


def test_a_mount_that_begins_at_the_container_is_reckoned_from_there() -> None:
    mounts = parse_mounts(
        "30 23 0:26 /docker/5f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
    )
    found = parse_locations("3:memory:/docker/5f/inner\n", mounts)
    assert found.legacy["memory"].own == "/sys/fs/cgroup/memory/inner"


def test_a_cgroup_that_no_mount_shows_is_nowhere() -> None:
    mounts = parse_mounts("30 23 0:26 /docker/5f /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    assert parse_locations("0::/docker/5\n", mounts).unified is None
    assert parse_locations("0::/../other\n", mounts).unified is None


def test_colons_in_a_cgroup_name_stay() -> None:
    found = parse_locations("0::/user@1000.service/app:x\n", UNIFIED)
    assert found.unified is not None
    assert found.unified.own.endswith("/user@1000.service/app:x")


def test_the_base_is_own_below_own_or_below_the_mount() -> None:
    location = Location(mount="/sys/fs/cgroup", own="/sys/fs/cgroup/a/b")
    assert location.base(None) == "/sys/fs/cgroup/a/b"
    assert location.base("c") == "/sys/fs/cgroup/a/b/c"
    assert location.base("/c/d") == "/sys/fs/cgroup/c/d"
    assert location.base("/") == "/sys/fs/cgroup"
