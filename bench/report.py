"""Results as JSON lines, as a Markdown table and as plots."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import grpc

from bench.measure import Result
from bench.plot import draw
from bench.processes import cores


def machine() -> str:
    """Of what kind, and when; not which one."""
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {cores()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, grpcio {grpc.__version__}"
    )


def read_results(files: Iterable[Path]) -> list[Result]:
    """Of earlier runs; a later line replaces an earlier one of the same name."""
    found = {}
    for file in files:
        for line in file.read_text().splitlines():
            fields = json.loads(line)
            fields.pop("is_met")
            fields.pop("machine")
            result = Result(**fields)
            found[result.figure, result.what, result.peer] = result
    return list(found.values())


def append_result(file: Path, result: Result) -> None:
    with file.open("a") as out:
        out.write(json.dumps(result.as_json() | {"machine": machine()}) + "\n")


def table(results: Sequence[Result]) -> str:
    lines = [
        "| figure | what | ours | peer | theirs | ratio (least–most) | target | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result) for result in results]
    return "\n".join(lines) + "\n"


def write_report(directory: Path, results: Sequence[Result], command: str) -> None:
    """``table.md`` and one plot for each figure."""
    rounds = sorted({result.rounds for result in results})
    head = f"{machine()}; `{command}`; rounds: {', '.join(map(str, rounds))}\n\n"
    (directory / "table.md").write_text(head + table(results))
    plots = directory / "plots"
    plots.mkdir(exist_ok=True)
    for figure, rows in groupby(results, key=lambda result: result.figure):
        title = f"{figure}: ratio to the peer (dot), rounds (line), target (dashes)"
        (plots / f"{figure}.svg").write_text(draw(title, list(rows)))


def _row(result: Result) -> str:
    sign = "≤" if result.at_most else "≥"
    mark = "met" if result.is_met else "**short**"
    note = f" ({result.note})" if result.note else ""
    return (
        f"| {result.figure} | {_cell(result.what + note)} | {_amount(result.ours)} {result.unit} "
        f"| {_cell(result.peer)} | {_amount(result.theirs)} {result.unit} "
        f"| {_amount(result.ratio)} ({_amount(result.least)}–{_amount(result.most)}) "
        f"| {sign} {result.target:g} | {mark} |"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _amount(value: float) -> str:
    """Three digits are more than the noise leaves."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
