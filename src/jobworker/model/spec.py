"""What to run."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from jobworker.errors import InvalidArgumentError
from jobworker.model.limits import Limits

#: The kernel's own bound on one argument or variable, MAX_ARG_STRLEN: execve(2), "Limits on size
#: of arguments and environment".
ARGUMENT_BYTES_MAX: Final = 128 * 1024 - 1
#: Of arguments and environment together: a quarter of the usual 8 MiB stack, execve(2).
ARGUMENTS_BYTES_MAX: Final = 2 * 1024 * 1024
ARGUMENTS_MAX: Final = 65_536
LABELS_MAX: Final = 64
NAME_CHARS_MAX: Final = 128
PATH_BYTES_MAX: Final = 4095
"""PATH_MAX without its NUL, <linux/limits.h>."""
TIMEOUT_S_MAX: Final = 366 * 24 * 3600.0

_ENV_NAME = re.compile(r"[^=\0]+")
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_NAME = re.compile(rf"[^\0-\x1f\x7f\ud800-\udfff]{{0,{NAME_CHARS_MAX}}}")
_LABEL_VALUE_CHARS_MAX: Final = 256


class OnOutputLimit(enum.Enum):
    """What happens to a job that has written all the output it may."""

    STOP = "STOP"
    """It is killed if it still runs; its ending is OUTPUT_LIMIT."""
    DISCARD = "DISCARD"
    """It goes on; what it writes is counted and thrown away."""


class Isolation(enum.Enum):
    """What a job sees of its host, each less than the one before."""

    NONE = "NONE"
    """All that its user may see."""
    PRIVATE = "PRIVATE"
    """Its own processes only; all files read-only but its scratch, with a ``/tmp`` of its own."""
    OFFLINE = "OFFLINE"
    """As PRIVATE, and no network but a loopback of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A command and its circumstances.  Cannot exist wrong: raises InvalidArgumentError."""

    argv: tuple[str, ...]
    """The program and its arguments.  Without a slash the program is sought in the job's PATH."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the clean environment that every job gets; wins over it."""
    cwd: str | None = None
    """Absolute; ``None`` is the job's own scratch directory."""
    timeout_s: float | None = None
    """Wall-clock seconds from start to the stop by the worker; ``None`` is for ever."""
    name: str = ""
    """For people; need not be unique."""
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    """As asked for; what it leaves out comes from the policy."""
    max_output_bytes: int | None = None
    """Kept output, both streams together; ``None`` is the policy's."""
    on_output_limit: OnOutputLimit | None = None
    """``None`` is the policy's."""
    isolation: Isolation | None = None
    """``None`` is the policy's."""

    def __post_init__(self) -> None:
        _check_argv(self.argv)
        _check_env(self.env)
        _check_labels(self.labels)
        if _NAME.fullmatch(self.name) is None:
            why = f"it takes at most {NAME_CHARS_MAX} characters, no control characters"
            raise InvalidArgumentError("name", self.name, why)
        if self.cwd is not None:
            _check_cwd(self.cwd)
        # Written so that a NaN, which compares false with everything, is refused too.
        if self.timeout_s is not None and not 0 < self.timeout_s <= TIMEOUT_S_MAX:
            why = f"it takes more than 0 and at most {TIMEOUT_S_MAX:.0f} seconds"
            raise InvalidArgumentError("timeout", self.timeout_s, why)
        if self.max_output_bytes is not None and not 0 <= self.max_output_bytes < 1 << 62:
            why = "it takes 0 or more bytes"
            raise InvalidArgumentError("max_output_bytes", self.max_output_bytes, why)


def _too_many(amount: int, unit: str, most: int) -> str:
    return f"it has {amount} {unit}, the most is {most}"


def _check_argv(argv: tuple[str, ...]) -> None:
    if not argv or not argv[0]:
        raise InvalidArgumentError("argv", list(argv), "it takes the name of a program first")
    if len(argv) > ARGUMENTS_MAX:
        raise InvalidArgumentError("argv", None, _too_many(len(argv), "items", ARGUMENTS_MAX))
    total = 0
    for place, argument in enumerate(argv):
        total += _check_text(f"argv[{place}]", argument)
    if total > ARGUMENTS_BYTES_MAX:
        raise InvalidArgumentError("argv", None, _too_many(total, "bytes", ARGUMENTS_BYTES_MAX))


def _check_env(env: Mapping[str, str]) -> None:
    total = 0
    for name, value in env.items():
        if _ENV_NAME.fullmatch(name) is None:
            raise InvalidArgumentError(
                "env", name, "a name takes at least one character and no '='"
            )
        total += _check_text(f"env[{name}]", f"{name}={value}")
    if total > ARGUMENTS_BYTES_MAX:
        raise InvalidArgumentError("env", None, _too_many(total, "bytes", ARGUMENTS_BYTES_MAX))


def _check_text(field_name: str, text: str) -> int:
    """The bytes that ``text`` takes with its NUL; raises if no process could be given it."""
    if "\0" in text:
        raise InvalidArgumentError(field_name, text, "it takes no NUL character")
    try:
        size = len(text.encode()) + 1
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(field_name, text, "it is not valid Unicode text") from error
    if size > ARGUMENT_BYTES_MAX:
        raise InvalidArgumentError(field_name, None, _too_many(size, "bytes", ARGUMENT_BYTES_MAX))
    return size


def _check_cwd(cwd: str) -> None:
    if not cwd.startswith("/"):
        raise InvalidArgumentError("cwd", cwd, "it takes an absolute path")
    if _check_text("cwd", cwd) > PATH_BYTES_MAX + 1:
        raise InvalidArgumentError("cwd", cwd, f"the most is {PATH_BYTES_MAX} bytes")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > LABELS_MAX:
        raise InvalidArgumentError("labels", None, _too_many(len(labels), "items", LABELS_MAX))
    for key, value in labels.items():
        if _LABEL_KEY.fullmatch(key) is None:
            why = "a key takes 1-63 letters, digits, '.', '_', '/', '-', a letter or digit first"
            raise InvalidArgumentError("labels", key, why)
        if len(value) > _LABEL_VALUE_CHARS_MAX or not value.isprintable():
            why = f"a value takes at most {_LABEL_VALUE_CHARS_MAX} printable characters"
            raise InvalidArgumentError(f"labels[{key}]", value, why)
