"""Results as plain SVG: for each its ratio, the spread of the rounds, and the target.

The axis is logarithmic, so that twice as fast and half as fast are equally far from "the same".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from bench.measure import Result

_WIDTH: Final = 960
_LEFT: Final = 470
_RIGHT: Final = 30
_ROW: Final = 34
_TOP: Final = 44
_OPEN: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    ' font-family="sans-serif" font-size="12" fill="#3c4043">'
)
_GOOD, _SHORT, _LINE, _TEXT = "#2a7f4f", "#b3541e", "#9aa0a6", "#3c4043"


def draw(title: str, results: Sequence[Result]) -> str:
    """One picture with a row for each result."""
    values = [v for r in results for v in (r.least, r.most, r.ratio, r.target, 1.0)]
    low = math.floor(math.log10(max(min(values), 1e-6)))
    high = math.ceil(math.log10(max(values)))
    high += high == low

    def x(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    height = _TOP + _ROW * len(results) + 34
    parts = [
        _OPEN.format(width=_WIDTH, height=height),
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
    ]
    bottom = height - 28
    for power in range(low, high + 1):
        at = x(10.0**power)
        label = f"{10.0**power:g}"
        parts += [
            _line(at, _TOP - 8, at, bottom, "#e3e5e8"),
            _text(at, bottom + 16, label, "middle"),
        ]
    parts.append(_line(x(1), _TOP - 8, x(1), bottom, _LINE))
    for number, result in enumerate(results):
        parts += _row(result, _TOP + _ROW * number, x)
    return "\n".join([*parts, "</svg>", ""])


def _row(result: Result, y: float, x: Callable[[float], float]) -> list[str]:
    middle = y + _ROW / 2 - 4
    colour = _GOOD if result.is_met else _SHORT
    goal = x(result.target)
    return [
        _text(_LEFT - 10, middle - 2, result.what, "end"),
        _text(_LEFT - 10, middle + 11, f"against {result.peer}", "end", size=10),
        _line(x(result.least), middle, x(result.most), middle, colour),
        f'<circle cx="{x(result.ratio):.1f}" cy="{middle:.1f}" r="5" fill="{colour}"/>',
        _line(goal, middle - 11, goal, middle + 11, _TEXT, dashes="3,2"),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="2"{dash}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
