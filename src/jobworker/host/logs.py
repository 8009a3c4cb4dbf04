"""The daemon's messages on standard error: one line each, ``key=value``.

With a journal at the other end the lines carry no time and no level of their own: the former is the
journal's, the latter goes in front as sd-daemon(3) has it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import Final

#: sd-daemon(3): the journal's priorities.
_PRIORITIES: Final = {
    logging.CRITICAL: "<2>",
    logging.ERROR: "<3>",
    logging.WARNING: "<4>",
    logging.INFO: "<6>",
    logging.DEBUG: "<7>",
}
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")
#: What every record has; the rest was given as ``extra``.
_STANDARD: Final = frozenset(
    [*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"]
)


class KeyValueFormatter(logging.Formatter):
    """``2026-01-02T03:04:05 ERROR jobworker.jobs: message job_id=… why="…"``."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        if self._for_journal:
            head = f"{_PRIORITIES.get(record.levelno, '<6>')}{record.name}:"
        else:
            head = f"{self.formatTime(record, self.datefmt)} {record.levelname} {record.name}:"
        words = [head, record.getMessage()]
        words += [
            f"{name}={_shown(value)}"
            for name, value in record.__dict__.items()
            if name not in _STANDARD
        ]
        if record.exc_info:
            words.append(f"traceback={_shown(self.formatException(record.exc_info))}")
        return " ".join(words)


def set_up_logging(level: int = logging.INFO) -> None:
    """Send the messages of all modules to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    # Set by systemd where standard error is the journal: systemd.exec(5), $JOURNAL_STREAM.
    handler.setFormatter(KeyValueFormatter(for_journal="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _shown(value: object) -> str:
    """Quoted unless it is one plain word, so that a line stays a line."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
