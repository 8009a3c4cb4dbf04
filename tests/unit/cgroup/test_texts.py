"""What control files say, and what is written to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobworker.cgroup.v1 import limits as v1
from jobworker.cgroup.v2 import limits as v2
from jobworker.cgroup.v2.pressure import parse_pressure
from jobworker.kernel.kernfs import parse_amount, parse_flat, parse_nested
from jobworker.model.limits import CPU_MILLIS_MAX, CPU_MILLIS_MIN
from jobworker.model.usage import Pressure


@given(st.integers(CPU_MILLIS_MIN, CPU_MILLIS_MAX))
def test_cpu_max_keeps_the_share_and_comes_back_as_it_was(millis: int) -> None:
    quota_us, period_us = map(int, v2.cpu_max(millis).split())
    assert quota_us * 1000 == millis * period_us
    assert quota_us >= 1000, "the kernel's least quota"
    assert v2.parse_cpu_max(v2.cpu_max(millis)) == millis


def test_no_cpu_limit_is_none() -> None:
    assert v2.parse_cpu_max("max 100000") is None


def test_no_limit_is_none_in_either_version() -> None:
    assert parse_amount("max") is None
    assert parse_amount("-1") is None
    assert parse_amount("0") == 0


def test_flat_files_by_key() -> None:
    text = "low 0\nmax 12\noom 1\noom_kill 2\n"
    assert parse_flat(text) == {"low": 0, "max": 12, "oom": 1, "oom_kill": 2}
    assert parse_flat("") == {}


def test_lines_of_another_shape_are_left_out_of_flat_files() -> None:
    assert parse_flat("some avg10=0.00 total=3\npopulated 1\n\nstate frozen\n") == {"populated": 1}


def test_nested_files_by_device_also_where_a_device_has_nothing() -> None:
    text = "254:0 rbytes=4096 wbytes=0\n253:0\n8:0 rbps=max wbps=1048576 riops=max wiops=max\n"
    assert parse_nested(text) == {
        "254:0": {"rbytes": "4096", "wbytes": "0"},
        "253:0": {},
        "8:0": {"rbps": "max", "wbps": "1048576", "riops": "max", "wiops": "max"},
    }


def test_v1_throttle_files_by_device() -> None:
    assert v1.parse_device_lines("254:0 1048576\n8:16 4096\n") == {"254:0": 1048576, "8:16": 4096}
    assert v1.parse_device_lines("") == {}


def test_v1_service_files_by_device_without_the_total() -> None:
    text = "254:0 Read 8192\n254:0 Write 4096\n254:0 Total 12288\nTotal 12288\n"
    assert v1.parse_service(text) == {"254:0": {"Read": 8192, "Write": 4096, "Total": 12288}}


def test_pressure_files_by_their_totals_also_from_before_there_was_full_for_the_cpu() -> None:
    some = "some avg10=12.50 avg60=3.00 avg300=0.10 total=1234567\n"
    full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert parse_pressure(some + full) == Pressure(some_us=1234567, full_us=0)
    assert parse_pressure(some) == Pressure(some_us=1234567)
