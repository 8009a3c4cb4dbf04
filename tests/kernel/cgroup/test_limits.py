"""Each limit bites, is counted, and is told as the kernel holds it."""

from __future__ import annotations

import contextlib
import os
import resource as unix_resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import IO_RESOURCES, EffectiveLimit, Limits, Resource
from kernel.cgroup.bench import SHELL, Bench
from support.guards import need

pytestmark = pytest.mark.kernel

MIB = 1024 * 1024
PAGE_BYTES = unix_resource.getpagesize()
KILLED = 128 + signal.SIGKILL

ALLOCATE = "import sys; held = bytearray(int(sys.argv[1])); print('held')"

FORK_UNTIL_REFUSED = """
import os, signal
forked = []
while len(forked) < 50:
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if pid == 0:
        signal.pause()
    forked.append(pid)
print(len(forked))
for pid in forked:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def only(effective: tuple[EffectiveLimit, ...]) -> EffectiveLimit:
    assert len(effective) == 1
    return effective[0]


def test_a_fifth_of_a_cpu_is_a_fifth_of_a_cpu(bench: Bench) -> None:
    assert only(bench.job.set_limits(Limits(cpu_millis=200), ())).effective == 200
    began = time.monotonic()
    process = bench.start_ready(SHELL, "-c", "echo ready; while :; do :; done")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    usage, wall_s = bench.job.usage(), time.monotonic() - began
    assert usage.cpu_seconds is not None
    assert 0.1 < usage.cpu_seconds / wall_s < 0.3
    assert usage.cpu_throttled_seconds is not None
    assert usage.cpu_throttled_seconds > 0.5


def test_without_a_limit_nothing_is_throttled(bench: Bench) -> None:
    assert bench.run(SHELL, "-c", "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done")[0] == 0
    usage = bench.job.usage()
    assert usage.cpu_seconds is not None
    assert usage.cpu_throttled_seconds in {0.0, None}


def test_more_memory_than_allowed_is_death_and_is_counted(bench: Bench) -> None:
    limit = 24 * MIB
    assert only(bench.job.set_limits(Limits(memory_bytes=limit), ())).effective == limit
    code, output = bench.run(sys.executable, "-I", "-S", "-c", ALLOCATE, str(4 * limit))
    usage = bench.job.usage()
    assert (code, output) == (KILLED, "")
    # v2 kills the whole job and counts the victim that made it do so twice.
    assert usage.oom_kills in {1, 2}
    if usage.memory_peak_bytes is not None:  # since Linux 5.19 on v2
        assert limit // 2 < usage.memory_peak_bytes <= limit


def test_less_memory_than_allowed_is_no_trouble(bench: Bench) -> None:
    bench.job.set_limits(Limits(memory_bytes=32 * MIB), ())
    assert bench.run(sys.executable, "-I", "-S", "-c", ALLOCATE, str(MIB)) == (0, "held\n")
    assert bench.job.usage().oom_kills == 0


def test_a_signal_from_elsewhere_is_not_taken_for_want_of_memory(bench: Bench) -> None:
    bench.job.set_limits(Limits(memory_bytes=32 * MIB), ())
    process = bench.start_ready(SHELL, "-c", "echo ready; while :; do :; done")
    assert bench.job.signal(signal.SIGKILL) == 1
    assert process.wait(timeout=20) == KILLED
    assert bench.job.usage().oom_kills == 0


def test_memory_is_told_in_whole_pages_as_the_kernel_holds_it(bench: Bench) -> None:
    limit = only(bench.job.set_limits(Limits(memory_bytes=32 * MIB + 1), ()))
    assert (limit.requested, limit.effective) == (32 * MIB + 1, 32 * MIB)


def test_memory_that_may_go_to_swap_is_not_told_as_limited(bench: Bench) -> None:
    plan = bench.job.plan
    files = (
        Path(plan.members, "memory.swap.max"),
        Path(plan.controllers.get("memory", plan.members), "memory.memsw.limit_in_bytes"),
    )
    swap = next((file for file in files if file.exists()), None)
    need(swap, "limit on swap")
    assert swap is not None
    with _read_only(swap):
        limit = only(bench.job.set_limits(Limits(memory_bytes=32 * MIB), ()))
    assert limit.effective is None
    assert swap.name in limit.note
    assert only(bench.job.set_limits(Limits(memory_bytes=32 * MIB), ())).effective == 32 * MIB


@contextlib.contextmanager
def _read_only(file: Path) -> Iterator[None]:
    """A control file that the kernel shows and lets nobody write to."""
    subprocess.run(["mount", "--bind", file, file], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", file], check=True)
        yield
    finally:
        subprocess.run(["umount", file], check=True)


def test_memory_limits_of_a_living_job_go_up_and_down(bench: Bench) -> None:
    bench.start_ready(SHELL, "-c", "echo ready; while :; do :; done")
    for limit in (64 * MIB, 32 * MIB, 128 * MIB, 48 * MIB):
        assert only(bench.job.set_limits(Limits(memory_bytes=limit), ())).effective == limit


def test_only_what_is_named_is_changed(bench: Bench) -> None:
    bench.job.set_limits(Limits(tasks=7, cpu_millis=500), ())
    bench.job.set_limits(Limits(cpu_millis=300), ())
    code, output = bench.run(sys.executable, "-I", "-S", "-c", FORK_UNTIL_REFUSED)
    assert (code, output) == (0, "6\n")


def test_forks_beyond_the_task_limit_are_refused_and_counted(bench: Bench) -> None:
    assert only(bench.job.set_limits(Limits(tasks=5), ())).effective == 5
    code, output = bench.run(sys.executable, "-I", "-S", "-c", FORK_UNTIL_REFUSED)
    assert (code, output) == (0, "4\n")
    assert bench.job.usage().tasks_refused == 1


def test_direct_writes_take_the_time_that_the_limit_says(
    bench: Bench, disk: BlockDevice, disk_folder: Path
) -> None:
    limits = Limits(io_write_bytes_per_s=4 * MIB)
    limit = only(bench.job.set_limits(limits, [disk]))
    assert limit.effective == 4 * MIB
    assert limit.device == f"{disk.number} {disk.name}"
    seconds = _write_seconds(bench, disk_folder / "direct", "oflag=direct")
    assert seconds > 1.5
    written = bench.job.usage().io_write_bytes
    assert written is not None
    assert 8 * MIB <= written < 12 * MIB


def test_buffered_writes_are_held_or_told_not_to_be(
    bench: Bench, disk: BlockDevice, disk_folder: Path
) -> None:
    limit = only(bench.job.set_limits(Limits(io_write_bytes_per_s=4 * MIB), [disk]))
    if bench.hierarchy.mode is not Mode.UNIFIED:
        assert "buffered" in limit.note
        assert "buffered" in bench.hierarchy.verdicts()[Resource.IO_WRITE_BYTES.value].note
        return
    assert limit.note == ""
    assert _write_seconds(bench, disk_folder / "buffered", "conv=fdatasync") > 1.5


def test_reading_takes_the_time_that_the_limit_says(
    bench: Bench, disk: BlockDevice, disk_folder: Path
) -> None:
    file = disk_folder / "read"
    file.write_bytes(os.urandom(8 * MIB))
    with file.open("rb") as written:
        os.fsync(written.fileno())
    limits = Limits(io_read_bytes_per_s=4 * MIB)
    assert only(bench.job.set_limits(limits, [disk])).effective == 4 * MIB
    began = time.monotonic()
    command = f"exec dd if={file} of=/dev/null bs=256k iflag=direct"
    assert bench.run(SHELL, "-c", command)[0] == 0
    assert time.monotonic() - began > 1.5
    read = bench.job.usage().io_read_bytes
    assert read is not None
    assert read >= 8 * MIB
    file.unlink()


def test_write_operations_are_limited_and_counted(
    bench: Bench, disk: BlockDevice, disk_folder: Path
) -> None:
    assert only(bench.job.set_limits(Limits(io_write_ops_per_s=20), [disk])).effective == 20
    began = time.monotonic()
    file = disk_folder / "operations"
    command = f"exec dd if=/dev/zero of={file} bs=4k count=40 oflag=direct"
    assert bench.run(SHELL, "-c", command)[0] == 0
    assert time.monotonic() - began > 1
    operations = bench.job.usage().io_write_ops
    assert operations is not None
    assert operations >= 40
    file.unlink()


def test_every_io_limit_has_a_record_for_each_device(bench: Bench, disk: BlockDevice) -> None:
    limits = Limits(
        io_read_bytes_per_s=MIB,
        io_write_bytes_per_s=2 * MIB,
        io_read_ops_per_s=100,
        io_write_ops_per_s=200,
    )
    effective = bench.job.set_limits(limits, [disk])
    assert {limit.resource for limit in effective} == set(IO_RESOURCES)
    assert all(limit.effective == limit.requested for limit in effective)


def test_a_device_that_the_kernel_does_not_take_is_a_record_with_the_reason(bench: Bench) -> None:
    # No driver has this major number (Documentation/admin-guide/devices.txt, 240-254 local use).
    nothing = BlockDevice(major=511, minor=7, name="nothing")
    limit = only(bench.job.set_limits(Limits(io_read_bytes_per_s=MIB), [nothing]))
    assert limit.effective is None
    assert limit.device == "511:7 nothing"
    assert "ENODEV" in limit.note
    assert "511:7" in limit.note


def test_io_limits_without_any_disk_say_so(bench: Bench) -> None:
    limit = only(bench.job.set_limits(Limits(io_read_ops_per_s=10), ()))
    assert not limit.is_enforced
    assert "no block device" in limit.note


def test_this_host_promises_every_limit_and_keeps_each(bench: Bench, disk: BlockDevice) -> None:
    limits = Limits(
        cpu_millis=10,
        memory_bytes=MIB,
        tasks=1,
        io_read_bytes_per_s=4096,
        io_write_bytes_per_s=4096,
        # v2 takes no less (Linux block/blk-throttle.c, tg_set_limit).
        io_read_ops_per_s=2,
        # One more is what the kernel calls unlimited (Linux block/blk-throttle.c, UINT_MAX).
        io_write_ops_per_s=(1 << 32) - 2,
    )
    verdicts = bench.hierarchy.verdicts()
    assert set(verdicts) == {resource.value for resource in Resource}
    assert all(verdict.is_enforced for verdict in verdicts.values()), verdicts
    for limit in bench.job.set_limits(limits, [disk]):
        assert limit.effective == limit.requested, limit


def _write_seconds(bench: Bench, file: Path, how: str) -> float:
    """How long it takes to write 8 MiB, the start of the helper included."""
    began = time.monotonic()
    code, output = bench.run(SHELL, "-c", f"exec dd if=/dev/zero of={file} bs=256k count=32 {how}")
    seconds = time.monotonic() - began
    assert code == 0, output
    file.unlink()
    return seconds
