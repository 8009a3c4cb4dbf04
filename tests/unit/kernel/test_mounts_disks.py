"""From mounts to the disks behind them, over recorded mount tables and sysfs trees built alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.kernel.disks import BlockDevice, MountedDisks, is_stacked, resolve_disks


class Sysfs:
    """The part of sysfs that tells of block devices, laid out as the kernel does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in ("block", "class/block", "dev/block", "fs/btrfs", "devices/virtual/block"):
            (root / place).mkdir(parents=True)

    def disk(self, name: str, number: str, *, slaves: str = "", hardware: bool = True) -> Path:
        bus = "devices/pci0000:00/block" if hardware else "devices/virtual/block"
        directory = self.root / bus / name
        (directory / "slaves").mkdir(parents=True)
        if hardware:
            (directory / "device").symlink_to(self.root / "devices")
        for slave in slaves.split():
            (directory / "slaves" / slave).symlink_to((self.root / "class/block" / slave).resolve())
        (self.root / "block" / name).symlink_to(directory)
        return self._publish(directory, number)

    def partition(self, disk: str, name: str, number: str) -> Path:
        directory = (self.root / "block" / disk).resolve() / name
        directory.mkdir()
        (directory / "partition").write_text("2\n")
        return self._publish(directory, number)

    def mapped(self, name: str, number: str, *, slaves: str, as_name: str) -> Path:
        directory = self.disk(name, number, slaves=slaves, hardware=False)
        (directory / "dm").mkdir()
        (directory / "dm/name").write_text(f"{as_name}\n")
        return directory

    def loop(self, name: str, number: str, backing_file: str, *, is_read_only: bool) -> Path:
        directory = self.disk(name, number, hardware=False)
        (directory / "loop").mkdir()
        (directory / "loop/backing_file").write_text(f"{backing_file}\n")
        (directory / "ro").write_text(f"{int(is_read_only)}\n")
        return directory

    def btrfs(self, uuid: str, devices: str) -> None:
        members = self.root / "fs/btrfs" / uuid / "devices"
        members.mkdir(parents=True)
        for name in devices.split():
            (members / name).symlink_to(self.root / "class/block" / name)

    def _publish(self, directory: Path, number: str) -> Path:
        (directory / "dev").write_text(f"{number}\n")
        (self.root / "dev/block" / number).symlink_to(directory)
        (self.root / "class/block" / directory.name).symlink_to(directory)
        return directory

    def resolve(self, *lines: str) -> list[str]:
        found = resolve_disks("\n".join(lines), sysfs=str(self.root))
        return [f"{disk.number} {disk.name}" for disk in found]


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


PROC = "22 27 0:21 / /proc rw,relatime - proc proc rw"
TMPFS = "25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24684092k"


def test_a_disk_without_a_partition_table_is_itself(sysfs: Sysfs) -> None:
    sysfs.disk("vda", "254:0")
    assert sysfs.resolve(PROC, "27 1 254:0 / / rw - ext4 /dev/vda rw") == ["254:0 vda"]


def test_a_partition_is_its_disk(sysfs: Sysfs) -> None:
    sysfs.disk("nvme0n1", "259:0")
    sysfs.partition("nvme0n1", "nvme0n1p2", "259:2")
    assert sysfs.resolve("27 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw") == ["259:0 nvme0n1"]


def test_two_partitions_of_one_disk_are_one_disk(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.partition("sda", "sda1", "8:1")
    sysfs.partition("sda", "sda2", "8:2")
    root, boot = "27 1 8:2 / / rw - ext4 /dev/sda2 rw", "28 27 8:1 / /boot rw - vfat /dev/sda1 rw"
    assert sysfs.resolve(root, boot) == ["8:0 sda"]


def test_several_disks_are_all_named_in_the_order_of_their_numbers(sysfs: Sysfs) -> None:
    for name, number in (("sdb", "8:16"), ("sda", "8:0"), ("vda", "254:0")):
        sysfs.disk(name, number)
    mounts = [f"27 1 {number} / /{number} rw - xfs dev rw" for number in ("254:0", "8:16", "8:0")]
    assert sysfs.resolve(*mounts) == ["8:0 sda", "8:16 sdb", "254:0 vda"]


def test_a_logical_volume_is_itself_and_the_disk_below_its_partition(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.partition("sda", "sda3", "8:3")
    sysfs.mapped("dm-0", "253:0", slaves="sda3", as_name="vg-root")
    mount = "27 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw"
    assert sysfs.resolve(mount) == ["8:0 sda", "253:0 dm-0"]


def test_layers_between_the_top_and_the_disks_are_left_out(sysfs: Sysfs) -> None:
    sysfs.disk("nvme0n1", "259:0")
    sysfs.partition("nvme0n1", "nvme0n1p3", "259:3")
    sysfs.mapped("dm-0", "253:0", slaves="nvme0n1p3", as_name="luks")
    sysfs.mapped("dm-1", "253:1", slaves="dm-0", as_name="vg-root")
    mount = "27 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw"
    assert sysfs.resolve(mount) == ["253:1 dm-1", "259:0 nvme0n1"]


def test_a_layer_that_is_also_mounted_itself_is_named_whatever_comes_first(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.mapped("dm-0", "253:0", slaves="sda", as_name="below")
    sysfs.mapped("dm-1", "253:1", slaves="dm-0", as_name="above")
    above = "27 1 253:1 / /a rw - ext4 /dev/mapper/above rw"
    below = "28 1 253:0 / /b rw - ext4 /dev/mapper/below rw"
    everything = ["8:0 sda", "253:0 dm-0", "253:1 dm-1"]
    assert sysfs.resolve(above, below) == sysfs.resolve(below, above) == everything


def test_a_mirror_is_itself_and_both_of_its_disks(sysfs: Sysfs) -> None:
    for name, number in (("sda", "8:0"), ("sdb", "8:16")):
        sysfs.disk(name, number)
        minor = int(number.split(":")[1]) + 1
        sysfs.partition(name, f"{name}1", f"8:{minor}")
    sysfs.disk("md127", "9:127", slaves="sda1 sdb1", hardware=False)
    mount = "27 1 9:127 / / rw - ext4 /dev/md127 rw"
    assert sysfs.resolve(mount) == ["8:0 sda", "8:16 sdb", "9:127 md127"]


def test_btrfs_on_two_disks_names_both_though_the_mount_tells_of_one(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.partition("sda", "sda2", "8:2")
    sysfs.disk("sdb", "8:16")
    sysfs.disk("sdc", "8:32")
    sysfs.btrfs("5a0e", "sda2 sdb")
    sysfs.btrfs("77aa", "sdc")
    mount = "27 1 0:30 /@ / rw - btrfs /dev/sda2 rw,subvol=/@"
    assert sysfs.resolve(mount) == ["8:0 sda", "8:16 sdb"]


def test_btrfs_on_a_mapped_device_is_found_by_the_mapper_name(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.mapped("dm-0", "253:0", slaves="sda", as_name="luks-home")
    sysfs.btrfs("5a0e", "dm-0")
    mount = "27 1 0:30 / /home rw - btrfs /dev/mapper/luks-home rw"
    assert sysfs.resolve(mount) == ["8:0 sda", "253:0 dm-0"]


def test_bcachefs_names_all_its_devices_in_the_source(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.disk("sdb", "8:16")
    mount = "27 1 0:30 / / rw - bcachefs /dev/sda:/dev/sdb rw"
    assert sysfs.resolve(mount) == ["8:0 sda", "8:16 sdb"]


def test_the_slash_in_a_device_name_is_an_exclamation_mark_in_sysfs(sysfs: Sysfs) -> None:
    sysfs.disk("cciss!c0d0", "104:0")
    mount = "27 1 0:30 / / rw - btrfs /dev/cciss/c0d0 rw"
    assert sysfs.resolve(mount) == ["104:0 cciss!c0d0"]


def test_an_overlay_whose_layers_are_in_sight_adds_nothing(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.disk("sdb", "8:16")
    root = "27 1 8:0 / / rw - ext4 /dev/sda rw"
    overlay = (
        "40 27 0:60 / /merged rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/up,workdir=/w"
    )
    assert sysfs.resolve(root, overlay) == ["8:0 sda"]


def test_in_a_container_the_unseen_layers_mean_every_physical_disk(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.disk("sdb", "8:16")
    sysfs.disk("zram0", "252:0", hardware=False)
    layers = "lowerdir=/var/lib/docker/l/A:/var/lib/docker/l/B,upperdir=/var/lib/docker/d"
    root = f"27 1 0:60 / / rw - overlay overlay rw,{layers},workdir=/var/lib/docker/w"
    assert sysfs.resolve(root, PROC, TMPFS) == ["8:0 sda", "8:16 sdb"]


def test_memory_and_network_file_systems_have_no_disk(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    root = "27 1 0:19 / / rw - tmpfs tmpfs rw"
    network = "28 27 0:50 / /home rw - nfs4 server:/home rw"
    assert sysfs.resolve(root, network, PROC, TMPFS) == []


def test_a_writable_loop_is_itself_and_the_disk_below_its_backing_file(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.partition("sda", "sda1", "8:1")
    sysfs.loop("loop0", "7:0", "/srv/image.ext4", is_read_only=False)
    root, srv = "27 1 0:19 / / rw - tmpfs t rw", "28 27 8:1 / /srv rw - ext4 /dev/sda1 rw"
    image = "29 27 7:0 / /mnt rw - ext4 /dev/loop0 rw"
    assert sysfs.resolve(root, srv, image) == ["7:0 loop0", "8:0 sda"]


def test_a_read_only_loop_is_left_to_the_disk_below(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.loop("loop3", "7:3", "/var/lib/snapd/snaps/core.snap", is_read_only=True)
    root = "27 1 8:0 / / rw - ext4 /dev/sda rw"
    snap = "29 27 7:3 / /snap/core ro - squashfs /dev/loop3 ro"
    assert sysfs.resolve(root, snap) == ["8:0 sda"]


def test_a_loop_over_a_volume_names_the_volume_too(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.mapped("dm-0", "253:0", slaves="sda", as_name="vg-srv")
    sysfs.loop("loop0", "7:0", "/image (deleted)", is_read_only=False)
    image = "29 27 7:0 / /mnt rw - ext4 /dev/loop0 rw"
    root = "27 1 253:0 / / rw - ext4 /dev/mapper/vg-srv rw"
    assert sysfs.resolve(image, root) == ["7:0 loop0", "8:0 sda", "253:0 dm-0"]


def test_a_loop_whose_file_lies_on_itself_ends(sysfs: Sysfs) -> None:
    sysfs.loop("loop0", "7:0", "/mnt/image", is_read_only=False)
    assert sysfs.resolve("29 27 7:0 / /mnt rw - ext4 /dev/loop0 rw") == ["7:0 loop0"]


def test_bind_mounts_of_one_file_system_are_one_disk(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    root = "27 1 8:0 / / rw - ext4 /dev/sda rw"
    bind = "28 27 8:0 /etc/hosts /jail/etc/hosts rw - ext4 /dev/sda rw"
    assert sysfs.resolve(root, bind) == ["8:0 sda"]


def test_a_device_that_sysfs_does_not_know_is_left_out(sysfs: Sysfs) -> None:
    assert sysfs.resolve("27 1 8:1 / / rw - ext4 /dev/sda1 rw") == []


def test_only_what_counts_again_below_is_a_stack(sysfs: Sysfs) -> None:
    sysfs.disk("sda", "8:0")
    sysfs.mapped("dm-0", "253:0", slaves="sda", as_name="x")
    sysfs.loop("loop0", "7:0", "/image", is_read_only=False)
    root = str(sysfs.root)
    assert is_stacked("253:0", root)
    assert not is_stacked("7:0", root)
    assert not is_stacked("8:0", root)
    assert not is_stacked("99:99", root)


def test_the_disks_of_this_machine_are_whole_and_really_there() -> None:
    with MountedDisks() as disks:
        for disk in disks.now():
            directory = Path("/sys/block") / disk.name
            assert (directory / "dev").read_text().strip() == disk.number
            assert not (directory / "partition").exists()


MOUNTS_SOMETHING = """
import subprocess, sys
from jobworker.kernel.disks import MountedDisks
with MountedDisks() as disks:
    first, second = disks.now(), disks.now()
    subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
    third, fourth = disks.now(), disks.now()
assert first == third
print(first is second, second is third, third is fourth)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_the_mount_table_is_read_again_exactly_when_it_changed(tmp_path: Path) -> None:
    # In a mount name space of its own: the machine's table is not ours to change.
    command = ["unshare", "--mount", sys.executable, "-c", MOUNTS_SOMETHING, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", "True"]


def test_closing_twice_is_harmless() -> None:
    disks = MountedDisks()
    disks.close()
    disks.close()


def test_a_device_is_written_as_the_control_files_take_it() -> None:
    assert BlockDevice(major=8, minor=0, name="sda").number == "8:0"
