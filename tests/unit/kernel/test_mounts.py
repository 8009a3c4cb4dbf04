"""The mount table as text."""

from __future__ import annotations

import os
from pathlib import Path

from jobworker.kernel.mounts import is_below, mount_of, parse_mounts, read_mounts

RECORDED = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:4 - cgroup2 cgroup2 rw,nsdelegate
42 27 8:17 /sub\040dir /mnt/with\040blank\011tab\134 ro - ext4 /dev/disk/by-label/a\040b rw
43 27 0:52 / /mnt/dash rw - fuse.sshfs - rw
"""


def test_every_line_is_a_mount_with_its_optional_fields_left_out() -> None:
    mounts = parse_mounts(RECORDED)
    assert [mount.type for mount in mounts] == ["proc", "ext4", "cgroup2", "ext4", "fuse.sshfs"]
    assert mounts[1].major == 254
    assert mounts[2].point == "/sys/fs/cgroup/unified"
    assert {"nsdelegate", "relatime"} <= mounts[2].options


def test_blanks_tabs_and_backslashes_come_back() -> None:
    mount = parse_mounts(RECORDED)[3]
    assert mount.point == "/mnt/with blank\ttab\\"
    assert mount.root == "/sub dir"
    assert mount.source == "/dev/disk/by-label/a b"


def test_a_source_that_is_a_dash_does_not_end_the_optional_fields_early() -> None:
    assert parse_mounts(RECORDED)[4].source == "-"


def test_the_mount_of_a_file_is_the_longest_point_above_it() -> None:
    mounts = parse_mounts(RECORDED)
    assert mount_of("/proc/self/stat", mounts) == mounts[0]
    assert mount_of("/processes", mounts) == mounts[1]
    assert mount_of("/", mounts) == mounts[1]


def test_of_two_mounts_at_one_point_the_later_hides_the_earlier() -> None:
    mounts = parse_mounts("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / / rw - xfs /dev/sda2 rw\n")
    assert mount_of("/etc", mounts) == mounts[1]


def test_a_name_that_only_begins_alike_is_not_below() -> None:
    assert is_below("/a/b", "/a")
    assert is_below("/a", "/a")
    assert is_below("/a", "/")
    assert not is_below("/ab", "/a")


def test_this_process_has_the_mount_that_its_files_say() -> None:
    device = Path("/proc/self").stat().st_dev
    mount = mount_of("/proc/self", read_mounts())
    assert mount is not None
    assert (mount.major, mount.minor) == (os.major(device), os.minor(device))
