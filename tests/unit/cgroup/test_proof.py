"""The record of a limit says what the kernel holds, whatever became of the attempt."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from jobworker.cgroup.proof import prove
from jobworker.kernel.disks import BlockDevice
from jobworker.kernel.kernfs import ControlFileError
from jobworker.model.limits import EffectiveLimit, Resource


def attempt(held: int | None, *, fails: bool = False, note: str = "") -> EffectiveLimit:
    def write() -> None:
        if fails:
            raise ControlFileError("write '100' to", "/x/pids.max", errno.EBUSY)

    return prove(Resource.TASKS, 100, write=write, read=lambda: held, note=note)


@given(st.none() | st.integers(0, 1000), st.booleans())
def test_what_is_told_as_kept_is_never_more_than_was_asked_for(
    held: int | None, fails: bool
) -> None:
    limit = attempt(held, fails=fails)
    assert limit.effective is None or limit.effective <= limit.requested
    assert limit.is_enforced or limit.note


def test_a_kept_limit_has_nothing_to_explain() -> None:
    assert attempt(100).note == ""


def test_a_hole_is_told_even_where_the_limit_is_kept() -> None:
    limit = attempt(100, note="buffered writes pass")
    assert limit.is_enforced
    assert limit.note == "buffered writes pass"


def test_an_earlier_limit_that_could_not_be_lowered_does_not_count() -> None:
    limit = attempt(500, fails=True)
    assert limit.effective is None
    assert "EBUSY" in limit.note
    assert "500" in limit.note


def test_a_file_that_cannot_be_read_back_keeps_nothing() -> None:
    def read() -> int:
        raise ControlFileError("read", "/x/pids.max", errno.ENOENT)

    limit = prove(Resource.TASKS, 5, write=lambda: None, read=read)
    assert limit.effective is None
    assert "ENOENT" in limit.note


def test_a_device_is_told_by_number_and_name() -> None:
    disk = BlockDevice(major=8, minor=16, name="sdb")
    limit = prove(Resource.IO_READ_OPS, 5, write=lambda: None, read=lambda: 5, device=disk)
    assert limit.device == "8:16 sdb"
