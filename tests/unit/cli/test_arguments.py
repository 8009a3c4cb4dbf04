"""The grammar of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.arguments import UsageError
from jobworker.cli.verbs import build_parser

words = st.lists(st.text(max_size=6) | st.sampled_from(["--", "-h", "--cpu", "-o", "run"]))


def parse(*argv: str):
    return build_parser().parse_args(argv)


def test_the_grace_of_a_stop_is_that_of_the_service(capfd: pytest.CaptureFixture[str]) -> None:
    assert parse("stop", "abc").grace is None
    with pytest.raises(SystemExit):
        parse("stop", "--help")
    text = " ".join(capfd.readouterr().out.split())
    assert "from SIGTERM to SIGKILL (default: that of the service)" in text


@given(command=words.filter(bool))
def test_everything_after_two_dashes_is_the_command_as_it_stands(command: list[str]) -> None:
    assert parse("run", "--name", "x", "--", *command).command == command


@given(rest=words)
def test_without_dashes_the_command_begins_at_the_first_word(rest: list[str]) -> None:
    options = parse("start", "--cpu", "2", "ls", *rest)
    assert options.command == ["ls", *rest]
    assert options.cpu == "2"


@pytest.mark.parametrize(
    "argv",
    [
        ["--server", "h:1", "list"],
        ["list", "--server", "h:1"],
        ["--server", "other:1", "list", "--server", "h:1"],
    ],
)
def test_global_options_stand_before_or_after_the_verb(argv: list[str]) -> None:
    assert parse(*argv).server == "h:1"


def test_a_global_option_before_the_verb_survives_the_verb() -> None:
    options = parse("-o", "json", "--profile", "p", "status", "abc", "--ca", "c")
    assert (options.output, options.profile, options.ca, options.job) == ("json", "p", "c", "abc")


@pytest.mark.parametrize(
    "argv",
    [
        ["run"],
        ["run", "--"],
        ["run", "--detach"],
        ["run", "--nonsense", "--", "ls"],
        ["run", "--cp", "1", "--", "ls"],  # only the beginning of an option
        ["nonsense"],
        ["status"],
        ["status", "a", "b"],
        ["stop"],
        ["stop", "a", "--kill", "--grace", "1s"],
        ["logs", "a", "--stdout", "--stderr"],
        ["logs", "a", "--tail", "1", "--since", "1m"],
        ["list", "-o", "xml"],
        ["list", "--state", "dead"],
        ["run", "--on-output-limit", "explode", "--", "ls"],
    ],
)
def test_what_cannot_be_understood_is_said_in_one_line(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^read the command line: .*--help\)$"):
        parse(*argv)


def test_states_are_taken_in_any_case() -> None:
    assert parse("list", "--state", "Running", "--state", "ENDED").state == ["running", "ended"]
