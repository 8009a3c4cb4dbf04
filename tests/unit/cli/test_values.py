"""Option text to values."""

from __future__ import annotations

import datetime

import pytest

from jobworker.cli.values import filter_of, limits_of, since_of, spec_of
from jobworker.cli.verbs import build_parser
from jobworker.errors import InvalidArgumentError
from jobworker.model import JobSpec, JobState, Limits, OnOutputLimit

NOW = datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.UTC)


def parse(*argv: str):
    return build_parser().parse_args(argv)


def test_every_option_of_a_start_reaches_the_spec() -> None:
    options = parse(
        "run", "--cpu", "0.5", "--memory", "256M", "--io-read", "10M", "--io-write", "20M",
        "--io-read-iops", "30", "--io-write-iops", "40", "--pids", "64", "--timeout", "5m",
        "--env", "A=b=c", "--env", "E=", "--label", "k=v", "--name", "n", "--cwd", "/d",
        "--max-output", "1G", "--on-output-limit", "discard", "--", "ls", "-l",
    )  # fmt: skip
    assert spec_of(options) == JobSpec(
        argv=("ls", "-l"),
        env={"A": "b=c", "E": ""},
        cwd="/d",
        timeout_s=300,
        name="n",
        labels={"k": "v"},
        limits=Limits(
            cpu_millis=500,
            memory_bytes=256 << 20,
            tasks=64,
            io_read_bytes_per_s=10 << 20,
            io_write_bytes_per_s=20 << 20,
            io_read_ops_per_s=30,
            io_write_ops_per_s=40,
        ),
        max_output_bytes=1 << 30,
        on_output_limit=OnOutputLimit.DISCARD,
    )


def test_what_is_not_given_is_left_to_the_service() -> None:
    assert spec_of(parse("run", "--", "ls")) == JobSpec(argv=("ls",))


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--cpu", "0"), ("--cpu", "-1"), ("--cpu", "nan"), ("--cpu", "1e3"), ("--cpu", ""),
        ("--memory", "0"), ("--memory", "-1"), ("--memory", "1"), ("--memory", "99999P"),
        ("--memory", "1X"), ("--pids", "0"), ("--pids", "-5"), ("--pids", "1.5"),
        ("--pids", "9" * 30), ("--io-read", "0"), ("--io-write", "1"), ("--io-read-iops", "0"),
        ("--io-write-iops", str(1 << 32)), ("--timeout", "0"), ("--timeout", "-1s"),
        ("--timeout", "999d"), ("--max-output", "-1"), ("--env", "A"), ("--env", "=b"),
        ("--label", "k"), ("--label", " =v"), ("--cwd", "relative"), ("--name", "a\nb"),
    ],
)  # fmt: skip
def test_absurd_amounts_are_refused(option: str, text: str) -> None:
    options = parse("run", f"{option}={text}", "--", "ls")
    with pytest.raises(InvalidArgumentError, match=r"^cannot use "):
        spec_of(options)


def test_a_filter_takes_states_owner_and_labels() -> None:
    wanted = filter_of(parse("list", "--state", "running", "--owner", "a", "--label", "k=v"))
    assert wanted.states == {JobState.RUNNING}
    assert (wanted.owner, wanted.labels) == ("a", {"k": "v"})


def test_limits_alone_are_those_of_update() -> None:
    assert limits_of(parse("update", "abc", "--pids", "5")) == Limits(tasks=5)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("5m", NOW - datetime.timedelta(minutes=5)),
        ("90", NOW - datetime.timedelta(seconds=90)),
        ("2026-11-24T09:00:00Z", NOW - datetime.timedelta(hours=1)),
        ("2026-11-24T10:00:00.5+01:00", NOW - datetime.timedelta(minutes=59, seconds=59.5)),
    ],
)
def test_since_takes_a_time_or_how_long_ago(text: str, moment: datetime.datetime) -> None:
    assert since_of(text, now=NOW) == round(moment.timestamp() * 1_000_000)


def test_since_without_an_offset_is_a_time_of_this_machine() -> None:
    local = datetime.datetime(2026, 11, 24, 9, 0).astimezone()
    assert since_of("2026-11-24T09:00:00", now=NOW) == round(local.timestamp() * 1_000_000)


def test_since_before_1970_is_the_beginning() -> None:
    assert since_of("36000d", now=NOW) == 0


@pytest.mark.parametrize("text", ["", "yesterday", "-5m", "2026-13-01T00:00:00Z"])
def test_since_takes_nothing_else(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="it takes a time such as"):
        since_of(text, now=NOW)
