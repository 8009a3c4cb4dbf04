"""Exit codes of jobctl: the one table from errors and endings to numbers.

Source: 124 is that of timeout(1); 125, 126 and 127 are those of env(1) and docker-run(1); 128+n is
what shells give for a signal (POSIX.1-2017, Shell & Utilities, 2.8.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobworker.errors import JobWorkerError
    from jobworker.model.ending import Ending

OK: Final = 0
TIMED_OUT: Final = 124
FAILURE: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNAL_BASE: Final = 128
HANGUP: Final = SIGNAL_BASE + 1
INTERRUPTED: Final = SIGNAL_BASE + 2
KILLED: Final = SIGNAL_BASE + 9
BROKEN_PIPE: Final = SIGNAL_BASE + 13
TERMINATED: Final = SIGNAL_BASE + 15

HELP: Final = """\
exit codes:
  run and wait exit as the job did (wait: as the last job that it names):
    0-255   what the command exited with
    124     the job's time limit passed
    126     the command cannot be executed (wait: it was not started)
    127     the command was not found (run only)
    128+n   signal n ended the job: 137 for want of memory, 143 after a stop
            (an ending that others brought about is never 0, whatever the
            command made of it)
  everywhere:
    0       done
    125     jobctl or the service failed, also at entering the working directory;
            or the ending of the job is lost
    130     interrupted with Ctrl-C
    141     nobody reads the output any more
"""

_BY_REASON: Final = {
    "COMMAND_NOT_FOUND": NOT_FOUND,
    "COMMAND_NOT_EXECUTABLE": NOT_EXECUTABLE,
}

#: Where the command's own code is 0 or there is none: for endings that others brought about.
_BY_ENDING: Final = {
    "EXITED": OK,
    "SIGNALED": KILLED,
    "STOPPED": TERMINATED,
    "OOM_KILLED": KILLED,
    "OUTPUT_LIMIT": KILLED,
    "START_FAILED": NOT_EXECUTABLE,
}


def of_error(error: JobWorkerError) -> int:
    """For a call that failed: what the caller must do differently is in the message."""
    return _BY_REASON.get(error.reason, FAILURE)


def of_ending(ending: Ending) -> int:
    """For a job that has ended.  0 means that the command ended by itself, and well."""
    reason = ending.reason.value
    if reason == "LOST":
        return FAILURE
    if reason == "TIMED_OUT":
        return TIMED_OUT
    if ending.signal is not None:
        return SIGNAL_BASE + ending.signal
    return ending.exit_code or _BY_ENDING[reason]
