"""What people see: tables, colours, times, and text that cannot harm a terminal.

Colours only where a terminal shows them and nobody has asked for none (no-color.org).  Text that
came from elsewhere is shown with its control characters escaped: a job's name must not move the
cursor of whoever lists it.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self, TextIO

from jobworker.cli import console

_RESET: Final = "\x1b[0m"
#: "Select graphic rendition" of ECMA-48, section 8.3.117.
_COLOURS: Final = {"bold": "\x1b[1m", "red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}
_GAP: Final = "  "
#: Below this a cut column says nothing any more; it then runs over the edge instead.
_CUT_CHARS_MIN: Final = 12


class Style:
    """Colours for one stream, or none."""

    def __init__(self, *, is_coloured: bool) -> None:
        self._is_coloured = is_coloured

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] | None = None) -> Style:
        """What the stream can show."""
        environ = os.environ if environ is None else environ
        plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
        return cls(is_coloured=stream.isatty() and not plain)

    def paint(self, text: str, colour: str | None) -> str:
        """``text`` in a colour; the same text without one."""
        if not self._is_coloured or colour is None or not text:
            return text
        return f"{_COLOURS[colour]}{text}{_RESET}"


class Cell(str):
    """Text of a table that has a colour."""

    __slots__ = ("colour",)
    colour: str | None

    def __new__(cls, text: str, colour: str | None = None) -> Self:
        cell = super().__new__(cls, text)
        cell.colour = colour
        return cell


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    style: Style,
    width: int | None = None,
    right: frozenset[int] = frozenset(),
) -> str:
    """Lines with the columns below each other; nothing but a newline after each.

    width: of the terminal; the last column is cut to it.  ``None`` cuts nothing.
    right: places of the columns that hold amounts.
    """
    lines = [[Cell(name, "bold") for name in header], *rows]
    widths = [max(len(row[place]) for row in lines) for place in range(len(header))]
    if width is not None:
        rest = width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(rest, _CUT_CHARS_MIN))
    return "".join(_line(row, widths, style=style, right=right) for row in lines)


def _line(row: Sequence[str], widths: list[int], *, style: Style, right: frozenset[int]) -> str:
    parts = []
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        padded = text.rjust(width) if place in right else text.ljust(width)
        if place == len(widths) - 1 and place not in right:
            padded = text
        parts.append(style.paint(padded, cell.colour if isinstance(cell, Cell) else None))
    return _GAP.join(parts).rstrip() + "\n"


def fields(pairs: Iterable[tuple[str, str]], *, style: Style) -> str:
    """``name: value`` lines, the values below each other; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0) + 1
    lines = []
    for name, value in shown:
        colour = value.colour if isinstance(value, Cell) else None
        label = style.paint(f"{name}:".ljust(width), "bold")
        lines.append(f"{label} {style.paint(value, colour)}\n")
    return "".join(lines)


def terminal_width(stream: TextIO) -> int | None:
    """Columns of the terminal behind a stream; ``None`` for what is no terminal."""
    return console.columns() if stream.isatty() else None


def one_line(text: str) -> str:
    """The text with everything escaped that a terminal would obey or not show."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def command_line(argv: Iterable[str]) -> str:
    """The command as a shell would take it, on one line."""
    return one_line(shlex.join(argv))


def rfc3339(moment: datetime.datetime | None) -> str | None:
    """UTC with microseconds: ``2026-11-24T10:00:00.000000Z``.  Source: RFC 3339, section 5.6."""
    if moment is None:
        return None
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
