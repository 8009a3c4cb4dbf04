"""What every figure gets: how thorough to be, and a folder for what it makes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from bench.measure import ROUNDS, ROUNDS_QUICK, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One figure's place to work in."""

    directory: Path
    """Empty; removed afterwards."""
    is_quick: bool

    @property
    def rounds(self) -> int:
        return ROUNDS_QUICK if self.is_quick else ROUNDS

    def pick(self, full: int, quick: int) -> int:
        """An amount of work."""
        return quick if self.is_quick else full


Figure = Callable[[Stage], Coroutine[object, object, list[Result]]]
