"""Rounds, ratios and results.

This machine may be busy with other things, so no figure stands alone: contenders take turns within
a round (A B A B), a round gives one ratio, and a result is the median of the rounds' ratios with
the least and the greatest of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

Round = Callable[[], Awaitable[Sequence[float]]]
"""One contender's turn: one or more samples."""
Samples = Sequence[Sequence[float]]
"""One contender's samples, turn by turn."""

ROUNDS: Final = 7
ROUNDS_QUICK: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table."""

    figure: str
    what: str
    ours: float
    theirs: float
    unit: str
    peer: str
    ratio: float
    """ours / theirs, the median of the rounds."""
    least: float
    most: float
    target: float
    at_most: bool
    """Is the target a ceiling of the ratio, or a floor?"""
    rounds: int
    samples: int
    note: str = ""

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "is_met": self.is_met}


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below or at which ``share`` of all are: nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def alternate(
    rounds: int, contenders: Mapping[str, Round], *, warm_up: bool = True
) -> dict[str, list[Sequence[float]]]:
    """Let each contender have its turn in each round.

    warm_up: one more turn each before the first round, not counted.  Every second round goes
    backwards, so that nobody always follows the same one.
    """
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in contenders}
    if warm_up:
        for turn in contenders.values():
            await turn()
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            taken[name].append(await contenders[name]())
        print(f"  round {number + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
    print(" " * 24, end="\r", file=sys.stderr)
    return taken


def compare(
    figure: str,
    what: str,
    ours: Samples,
    theirs: Samples,
    *,
    peer: str,
    unit: str,
    target: float,
    at_most: bool = True,
    share: float = 0.5,
    scale: float = 1.0,
    note: str = "",
) -> Result:
    """A quantile of one contender over that of another, round by round.

    Quantiles beyond the median take more samples than a round has: those are of all rounds
    together, and the spread is that of each round's own.
    """
    pairs = [(quantile(a, share), quantile(b, share)) for a, b in zip(ours, theirs, strict=True)]
    ratios = [a / b for a, b in pairs]
    if share > 0.5:
        a = quantile([value for turn in ours for value in turn], share)
        b = quantile([value for turn in theirs for value in turn], share)
        ratio = a / b
    else:
        a, b = median(a for a, _ in pairs), median(b for _, b in pairs)
        ratio = median(ratios)
    return Result(
        figure=figure,
        what=what,
        ours=a * scale,
        theirs=b * scale,
        unit=unit,
        peer=peer,
        ratio=ratio,
        least=min(ratios),
        most=max(ratios),
        target=target,
        at_most=at_most,
        rounds=len(pairs),
        samples=sum(map(len, ours)),
        note=note,
    )
