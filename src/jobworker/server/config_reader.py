"""Tables of a TOML file into frozen dataclasses, with every problem named by its path.

Owns: the conversion and the notation of values.  Not what keys there are (config.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from jobworker.errors import InvalidArgumentError
from jobworker.model.units import parse_bytes, parse_cpus, parse_duration_s

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SectionT = TypeVar("_SectionT", bound="DataclassInstance")

#: Takes a default away where a key may have no value; TOML has no word for that.
_NONE: Final = "none"
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_PORT_MAX: Final = 65535

#: How many there may be of something.
Count = typing.Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Bytes(int):
    """Written as ``"256M"``."""

    __slots__ = ()


class Seconds(float):
    """Written as ``"1h30m"``."""

    __slots__ = ()


class CpuMillis(int):
    """Written as a number of CPUs, ``0.5``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int
    """0 lets the kernel choose."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``"127.0.0.1:50051"``, ``"[::1]:50051"``; raises InvalidArgumentError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _PORT_MAX:
        why = "it takes HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"
        raise InvalidArgumentError("address", text, why)
    return Address(match["v6"] or match["host"], int(match["port"]))


class SectionReader:
    """Goes on after a problem, so that a person sees all of them at once."""

    def __init__(self, base: Path) -> None:
        """base: the directory at which relative paths start."""
        self._base = base
        self.problems: list[str] = []
        """``"$.policy.user.cpu: …"``; where there are any, what was read is not to be used."""

    def take_table(self, table: dict[str, Any], key: str, path: str) -> dict[str, Any]:
        """Remove a table from the one around it; an absent one is empty."""
        found = table.pop(key, {})
        if isinstance(found, dict):
            return found
        self.problems.append(f"{path}.{key}: it takes a table")
        return {}

    def section(self, table: dict[str, Any], path: str, default: _SectionT) -> _SectionT:
        """The section with what the table says, and where it is silent what ``default`` says."""
        hints = typing.get_type_hints(type(default), include_extras=True)
        values: dict[str, Any] = {}
        for key in [key for key in table if key in hints]:
            try:
                values[key] = _convert(table.pop(key), hints[key])
            except InvalidArgumentError as error:
                self.problems.append(f"{path}.{key}: {error.why}")
            except msgspec.ValidationError as error:
                self.problems.append(f"{path}.{key}: {_readable(error)}")
        self.refuse_rest(table, path, list(hints))
        for each in dataclasses.fields(default):
            value = values.get(each.name, getattr(default, each.name))
            if isinstance(value, Path):
                values[each.name] = self._base / value
        return dataclasses.replace(default, **values)

    def refuse_rest(self, table: dict[str, Any], path: str, known: Sequence[str]) -> None:
        """What was not taken from a table is there by mistake."""
        for key in table:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; is it {close[0]}?" if close else ""
            self.problems.append(f"{path}.{key}: there is no such key{hint}")


def _convert(value: object, hint: Any) -> Any:  # noqa: ANN401 -- a type hint, and a value of it
    if value == _NONE and type(None) in typing.get_args(hint):
        return None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _parse_choice(value, hint)
    # A dataclass, which msgspec would take from a table.
    if Address in (hint, *typing.get_args(hint)):
        if not isinstance(value, str):
            raise msgspec.ValidationError(f"it takes text, such as {_EXAMPLES[Address]}")
        return parse_address(value)
    return msgspec.convert(value, hint, dec_hook=_decode)


def _parse_choice(value: object, choices: type[enum.Enum]) -> enum.Enum:
    """In lower case, as all words of the file are, whatever the values of the enum."""
    known = {str(choice.value).lower(): choice for choice in choices}
    if not isinstance(value, str) or value not in known:
        raise msgspec.ValidationError("it takes " + " or ".join(f'"{word}"' for word in known))
    return known[value]


def _decode(kind: type, value: object) -> object:
    """Called by msgspec for the types that it does not know itself."""
    if kind is CpuMillis and isinstance(value, int | float) and not isinstance(value, bool):
        return CpuMillis(parse_cpus(str(value)))
    if kind in (Bytes, Seconds) and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise msgspec.ValidationError(f"it takes text, such as {_EXAMPLES.get(kind, '')}")
    if kind is Bytes:
        return Bytes(parse_bytes(value))
    if kind is Seconds:
        return Seconds(parse_duration_s(value))
    if kind is CpuMillis:
        return CpuMillis(parse_cpus(value))
    if not value or "\0" in value:
        raise msgspec.ValidationError("it takes a path")
    return Path(value)


_EXAMPLES: Final = types.MappingProxyType(
    {Bytes: '"256M"', Seconds: '"1h30m"', CpuMillis: '"0.5"', Address: '"127.0.0.1:50051"'}
)


def _readable(error: msgspec.ValidationError) -> str:
    """msgspec's message as the end of a sentence: without its path, backquotes and null."""
    text = str(error).partition(" - at ")[0].replace("`", "").replace(" | null", ' or "none"')
    return text[:1].lower() + text[1:]
