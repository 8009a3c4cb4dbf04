"""Standard output and error: whole bytes out, talk of our own, readers that go away.

Owns: descriptors 1 and 2.  Everything that jobctl prints passes here, so that a full disk and a
closed pipe are noticed at every place.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import Final

STDOUT: Final = 1
STDERR: Final = 2
#: /dev/null: null(4).
_NULL: Final = os.makedev(1, 3)
_COLUMNS_DEFAULT: Final = 80
_NAMES: Final = {STDOUT: "standard output", STDERR: "standard error"}


class OutputError(Exception):
    """Output cannot be written: ``cannot write to standard output: reason``."""

    def __init__(self, descriptor: int, error: OSError) -> None:
        super().__init__(f"cannot write to {_NAMES[descriptor]}: {error.strerror}")
        self.is_broken_pipe = isinstance(error, BrokenPipeError)
        """Whoever reads has gone, which is their right: nothing to talk about."""


def write(descriptor: int, data: bytes) -> None:
    """Write all of it; blocks for as long as the reader does not read.  Raises OutputError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Somebody who shares the descriptor made it non-blocking: open(2), O_NONBLOCK.
            _wait_writable(descriptor)
        except OSError as error:
            raise OutputError(descriptor, error) from error


def is_unheld(descriptor: int) -> bool:
    """Does a write to it come back at once, whatever others do?  So it is with files and /dev/null,
    not with pipes and terminals."""
    try:
        status = os.fstat(descriptor)
    except OSError:  # closed: the write will tell
        return True
    return stat.S_ISREG(status.st_mode) or status.st_rdev == _NULL


def show(text: str) -> None:
    """Data for the caller."""
    write(STDOUT, text.encode("utf-8", "backslashreplace"))


def talk(text: str) -> None:
    """Talk of our own; a standard error that cannot be written changes nothing."""
    with contextlib.suppress(OutputError):
        write(STDERR, f"jobctl: {text}\n".encode("utf-8", "backslashreplace"))


def columns() -> int:
    """Of the terminal at standard output, 80 where there is none.

    As ``shutil.get_terminal_size`` tells it; that module takes 4 ms to import, and argparse asks at
    each option.
    """
    with contextlib.suppress(ValueError):
        if (wanted := int(os.environ.get("COLUMNS", "0"))) > 0:
            return wanted
    try:
        return os.get_terminal_size(STDOUT).columns or _COLUMNS_DEFAULT
    except OSError:
        return _COLUMNS_DEFAULT


def _wait_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
