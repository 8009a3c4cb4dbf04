"""Telling readers that a log grew.

Writers are not asked: one inotify instance tells all readers of all jobs.

Source: inotify(7).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from jobworker.kernel.readiness import IN_MODIFY, IN_Q_OVERFLOW, Inotify
from jobworker.output.log import INDEX_FILE
from jobworker.output.turns import Turns


class Signal:
    """Tells any number of waiters that something changed.  Take it before you look."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def take(self) -> asyncio.Event:
        """Set at the next change after this call."""
        return self._event

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class LogWatcher:
    """One inotify instance for all logs that are followed.  Made inside a running loop."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._signals: dict[int, Signal] = {}
        self._users: dict[int, int] = {}
        self.turns = Turns()
        """For all readers together."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fileno(), self._on_events)

    def close(self) -> None:
        """Who still follows a log need not unwatch it."""
        self._users.clear()
        self._signals.clear()
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()

    def watch(self, job_directory: Path, changed: Signal) -> int:
        """Notify ``changed`` whenever the log grows; a number for ``unwatch``.

        All readers of one log give the same Signal.  Raises FileNotFoundError.
        """
        number = self._inotify.watch(job_directory / INDEX_FILE, IN_MODIFY)
        self._users[number] = self._users.get(number, 0) + 1
        self._signals[number] = changed
        return number

    def unwatch(self, number: int) -> None:
        """No-op after ``close``: the descriptor may be somebody else's by then."""
        if number not in self._users:
            return
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number], self._signals[number]
            self._inotify.unwatch(number)

    def _on_events(self) -> None:
        for number, mask in self._inotify.read():
            if mask & IN_Q_OVERFLOW:
                for signal in self._signals.values():
                    signal.notify()
            elif number in self._signals:
                self._signals[number].notify()
