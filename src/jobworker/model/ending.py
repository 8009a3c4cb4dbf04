"""How a job ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from jobworker.model.usage import OutputTotals, Usage


class EndReason(enum.Enum):
    """Why there is no process of the job any more."""

    EXITED = "EXITED"
    """The command returned; see the exit code."""
    SIGNALED = "SIGNALED"
    """A signal that nobody here sent ended the command."""
    STOPPED = "STOPPED"
    """Somebody asked for it; see who."""
    TIMED_OUT = "TIMED_OUT"
    """Its own time limit passed."""
    OOM_KILLED = "OOM_KILLED"
    """The kernel killed it for want of memory."""
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    """It wrote more output than it may, and its policy says that this ends it."""
    START_FAILED = "START_FAILED"
    """The command could not be executed; nothing of it ran."""
    LOST = "LOST"
    """No record of the ending can exist: the machine went down, or the shim was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The account of a job's end.  At most one of ``exit_code`` and ``signal`` is set."""

    reason: EndReason
    exit_code: int | None = None
    """Of the main process, 0-255; ``None`` if it did not exit by itself."""
    signal: int | None = None
    """That killed the main process."""
    stopped_by: str = ""
    """Who asked for the stop; "" if nobody did."""
    message: str = ""
    """One sentence for people: why, with the evidence."""
    usage: Usage = field(default_factory=Usage)
    """At the end, over the whole life."""
    output: OutputTotals = field(default_factory=OutputTotals)
