"""Amounts as people write them: sizes, durations, shares of a CPU.

Owns: the notation of the configuration file and of the command line, both ways.  Not the ranges
that a certain limit takes (limits.py).

Sizes go by 1024 (systemd.resource-control(5), MemoryMax=) and durations by the units of
systemd.time(7), so that what an operator knows from unit files means the same here.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from jobworker.errors import InvalidArgumentError

#: Above this no size makes sense to the kernel's 64-bit arithmetic.
BYTES_MAX: Final = 1 << 62
DURATION_S_MAX: Final = 100 * 366 * 86400

_SIZE_UNITS: Final = ("", "K", "M", "G", "T", "P")
_SIZE_STEP: Final = 1024
_SIZE = re.compile(r"([0-9]{1,19})(\.[0-9]{1,9})?([KMGTP]?)(?:(?<=[KMGTP])iB)?", re.IGNORECASE)
_CPUS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,3})?")

#: Largest first: the order in which a duration is written.
_DURATION_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_NUMBER: Final = r"[0-9]{1,10}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>{_NUMBER}){unit}(?!s))?" for unit, _ in _DURATION_UNITS)
    + rf"(?:(?P<ms>{_NUMBER})ms)?"
)
_SECONDS = re.compile(_NUMBER)


def parse_bytes(text: str, *, field: str = "size") -> int:
    """``"256M"`` is 268435456: K, M, G, T and P go by 1024; fractions are cut to whole bytes.

    ``"MiB"`` is taken for the same; ``"MB"`` is refused, since half of its readers go by 1000.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        why = "it takes a number and one of K, M, G, T (of 1024), such as 256M or 1.5G"
        raise InvalidArgumentError(field, text, why)
    whole, fraction, unit = match.groups()
    scale = _SIZE_STEP ** _SIZE_UNITS.index(unit.upper())
    size = int(Decimal(whole + (fraction or "")) * scale)
    if size > BYTES_MAX:
        raise InvalidArgumentError(field, text, "it is more than there can be")
    return size


def parse_duration_s(text: str, *, field: str = "duration") -> float:
    """``"1h30m"`` is 5400.0: d, h, m, s and ms, largest first; a bare number is seconds."""
    if _SECONDS.fullmatch(text):
        total = Decimal(text)
    else:
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            why = "it takes numbers with d, h, m, s or ms, largest first, such as 90s or 1h30m"
            raise InvalidArgumentError(field, text, why)
        total = Decimal(match["ms"] or 0) / 1000
        for unit, seconds in _DURATION_UNITS:
            total += Decimal(match[unit] or 0) * seconds
    if total > DURATION_S_MAX:
        raise InvalidArgumentError(field, text, "it is more than a hundred years")
    return float(total)


def parse_cpus(text: str, *, field: str = "cpu") -> int:
    """Thousandths of a CPU: ``"0.5"`` is 500."""
    if _CPUS.fullmatch(text) is None:
        why = "it takes a number of CPUs with at most three decimals, such as 0.5 or 2"
        raise InvalidArgumentError(field, text, why)
    return int(Decimal(text) * 1000)


def format_bytes(size: int) -> str:
    """For people: ``"256M"``, ``"1.5G"``; one decimal at most, so it may be off by a twentieth."""
    if size < _SIZE_STEP:
        return str(size)
    power = min((size.bit_length() - 1) // 10, len(_SIZE_UNITS) - 1)
    # In tenths and with whole numbers: a float would show 1048575 bytes as "1024.0K".
    tenths = (size * 10 + _SIZE_STEP**power // 2) // _SIZE_STEP**power
    if tenths >= _SIZE_STEP * 10 and power + 1 < len(_SIZE_UNITS):
        power, tenths = power + 1, 10
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{_SIZE_UNITS[power]}" if tenth else f"{whole}{_SIZE_UNITS[power]}"


def format_duration(seconds: float) -> str:
    """For people: ``"1h30m"``, ``"12.5s"``, ``"250ms"``; whole seconds from one minute on."""
    if seconds < 0.9995:  # what is more would be shown as 1000
        return f"{round(seconds * 1000)}ms" if seconds > 0 else "0s"
    if seconds < 59.95:  # what is more would be shown as 60.0
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    rest = round(seconds)
    parts = []
    for unit, length in _DURATION_UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_cpus(millis: int) -> str:
    """The opposite of ``parse_cpus``: 1500 is ``"1.5"``."""
    whole, rest = divmod(millis, 1000)
    return f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)
