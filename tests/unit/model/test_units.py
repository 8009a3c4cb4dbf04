"""Sizes, durations and CPU shares in the notation of people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.errors import InvalidArgumentError
from jobworker.model import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1K", 1024),
        ("1k", 1024),
        ("256M", 256 << 20),
        ("256MiB", 256 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("0.0001K", 0),
    ],
)
def test_a_size_goes_by_1024(text: str, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "+1",
        "1 M",
        "1MB",
        "1iB",
        "1.M",
        ".5M",
        "1e3",
        "1_0",
        "٣M",
        "1M\n",
        "9999999P",
    ],
)
def test_a_size_that_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use memory"):
        units.parse_bytes(text, field="memory")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1d2h3m4s5ms", 93784.005),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0s", 0),
    ],
)
def test_a_duration_adds_its_units(text: str, seconds: float) -> None:
    assert units.parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "1s1m", "1m1m", "1x", "1h 30m", "inf", "nan", "1e9", "9999999999d", "1\n"],
)
def test_a_duration_that_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use timeout"):
        units.parse_duration_s(text, field="timeout")


@pytest.mark.parametrize(
    ("text", "millis"), [("0.5", 500), ("2", 2000), ("0.001", 1), ("1.25", 1250)]
)
def test_cpus_are_thousandths(text: str, millis: int) -> None:
    assert units.parse_cpus(text) == millis
    assert units.format_cpus(millis) == text


@pytest.mark.parametrize("text", ["", "0.0001", "-1", "50%", "1e1", "nan", "0.5 "])
def test_cpus_that_are_not_plain_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use cpu"):
        units.parse_cpus(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (3 << 29, "1.5G"),
        ((1 << 20) - 1, "1M"),
        (1 << 62, "4096P"),
    ],
)
def test_a_size_is_shown_short(size: int, text: str) -> None:
    assert units.format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (12.34, "12.3s"),
        (12, "12s"),
        (60, "1m"),
        (59.97, "1m"),
        (0.9999, "1s"),
        (3661, "1h1m1s"),
    ],
)
def test_a_duration_is_shown_short(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@given(size=st.integers(0, units.BYTES_MAX))
def test_a_shown_size_reads_back_within_a_twentieth(size: int) -> None:
    assert abs(units.parse_bytes(units.format_bytes(size)) - size) <= size / 20


@given(size=st.integers(0, units.BYTES_MAX))
def test_a_size_in_plain_digits_reads_back(size: int) -> None:
    assert units.parse_bytes(str(size)) == size


@given(seconds=st.integers(0, units.DURATION_S_MAX))
def test_a_shown_duration_of_whole_seconds_reads_back(seconds: int) -> None:
    assert units.parse_duration_s(units.format_duration(seconds)) == seconds


@given(millis=st.integers(0, 9_999_999_999))
def test_shown_cpus_read_back(millis: int) -> None:
    assert units.parse_cpus(units.format_cpus(millis)) == millis
