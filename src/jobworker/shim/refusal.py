"""Why a command was not executed: nothing of it ran.

Said by whoever meets it (the launcher, the starting process, the command's own process before it is
one) and recorded by the shim.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any, Final

from jobworker.errors import errno_text

#: The last step, which is about the program.
EXECUTE: Final = "execute"


class RefusedError(Exception):
    """The command was not executed."""

    def __init__(
        self,
        why: str,
        *,
        number: int = 0,
        path: str = "",
        resource: str = "",
        at_program: bool = False,
    ) -> None:
        """number: errno of the step that failed, 0 where none did.

        resource: whose limit this host does not keep.  at_program: as in ``StartFailedError``.
        """
        super().__init__(why)
        self.answer: dict[str, Any] = {
            "why": why,
            "errno": number,
            "path": path,
            "resource": resource,
            "at_program": at_program,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step between fork and exec that failed."""

    step: str
    errno: int
    path: str


def refused(what: str, error: OSError) -> RefusedError:
    """what: as in "cannot <what>"."""
    path = error.filename if isinstance(error.filename, str) else ""
    of = f" {path}" if path else ""
    number = error.errno or 0
    return RefusedError(f"cannot {what}{of}: {errno_text(number)}", number=number, path=path)


def refused_by(failure: Failure, program: str) -> RefusedError:
    """program: the first of argv."""
    if failure.errno == 0:
        return RefusedError(f"cannot {failure.step}", path=failure.path)
    reason = errno_text(failure.errno)
    at_program = failure.step == EXECUTE
    if at_program and "/" not in program and failure.path == program:
        why = f"cannot execute {program!r}: no such program in PATH"
    elif at_program and os.path.lexists(failure.path):
        why = f"cannot execute {failure.path!r}: {reason}"
        if failure.errno == errno.ENOENT:
            why += "; the file is there, the interpreter that it names is not"
    else:
        of = f" {failure.path!r}" if failure.path else ""
        why = f"cannot {failure.step}{of}: {reason}"
    return RefusedError(why, number=failure.errno, path=failure.path, at_program=at_program)
