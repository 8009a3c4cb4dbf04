"""What people see."""

from __future__ import annotations

import datetime
import io
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.render import Cell, Style, command_line, fields, one_line, rfc3339, table

PLAIN = Style(is_coloured=False)
COLOURED = Style(is_coloured=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "is_coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (
            Terminal(),
            {"NO_COLOR": ""},
            True,
        ),  # no-color.org: "when present and not an empty string"
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_only_where_they_are_wanted(stream, environ, is_coloured: bool) -> None:
    assert ("\x1b" in Style.of(stream, environ).paint("x", "red")) == is_coloured


def test_columns_stand_below_each_other_and_no_line_ends_in_spaces() -> None:
    shown = table(("ID", "N"), [("a", "1"), ("long", "22")], style=PLAIN)
    assert shown == "ID    N\na     1\nlong  22\n"


def test_amounts_stand_at_the_right() -> None:
    shown = table(("ID", "N"), [("a", "1"), ("b", "22")], style=PLAIN, right=frozenset({1}))
    assert shown == "ID   N\na    1\nb   22\n"


def test_colours_do_not_move_columns() -> None:
    rows = [(Cell("up", "green"), "x"), ("down", "y")]
    shown = table(("S", "C"), rows, style=COLOURED)
    for code in ("\x1b[1m", "\x1b[32m", "\x1b[0m"):
        shown = shown.replace(code, "")
    assert shown == table(("S", "C"), rows, style=PLAIN)


def test_only_the_last_column_is_cut_and_only_to_a_width() -> None:
    rows = [("id", "command " * 20)]
    assert max(map(len, table(("I", "C"), rows, style=PLAIN, width=40).splitlines())) == 40
    assert "…" not in table(("I", "C"), rows, style=PLAIN)


def test_fields_without_a_value_are_left_out() -> None:
    shown = fields([("Long name", "1"), ("None", ""), ("A", "2")], style=PLAIN)
    assert shown == "Long name: 1\nA:         2\n"


@given(text=st.text())
def test_shown_text_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()


def test_a_name_cannot_move_the_cursor() -> None:
    assert one_line("a\x1b[2Jb\nc\x9b") == "a\\x1b[2Jb\\nc\\x9b"


@given(argv=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1))
def test_a_shown_command_can_be_pasted_into_a_shell(argv: list[str]) -> None:
    assert shlex.split(command_line(argv)) == argv


def test_times_are_utc_with_microseconds() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    moment = datetime.datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=zone)
    assert rfc3339(moment) == "2026-11-23T23:02:03.000004Z"
    assert rfc3339(None) is None
