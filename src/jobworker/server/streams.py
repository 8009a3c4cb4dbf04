"""Calls that last: how many there may be, and when they must end.

Owns: the bounds on open streams and on stops that wait, and ending streams at the moment at which
their certificate expires, is revoked or loses its CA, or the service shuts down.  A wait for the
next message is cut off then.  A write is not: gRPC takes no status while it still holds a message,
so a client that does not read is told once it reads on, and gets nothing more before that.

The expiry is a timer; revocations arrive by ``recheck``, which whoever reloads the trust files
calls: asking looks at no file (watch.py of the package security sees to that).  Besides, each
stream asks again from time to time while it sends, for the day when a clock was set forward.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from jobworker.errors import JobWorkerError, ResourceExhaustedError, UnavailableError
from jobworker.model.ids import UserName
from jobworker.security.identity import Authenticator
from jobworker.server.calls import Call

_MessageT = TypeVar("_MessageT")

#: After the certificate's last moment, so that asking finds it expired: clocks are read in steps.
_AFTER: Final = datetime.timedelta(milliseconds=20)
#: A stream of data asks again so often, an idle one at each sign of life.
_RECHECK_S: Final = 5.0
_GOING_DOWN: Final = "the service is shutting down"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBounds:
    """How many streams and waiting stops there may be at one time."""

    total: int
    per_user: int


class OpenStream:
    """One of them.  Made by ``OpenStreams.admit``."""

    def __init__(self, call: Call, authenticator: Authenticator) -> None:
        self.call = call
        self._authenticator = authenticator
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + _seconds_until(call.identity.not_after + _AFTER)
        self._checked_at = self._loop.time()
        self._waiting: asyncio.Timeout | None = None
        self._reason: JobWorkerError | None = None

    async def messages(
        self, source: AsyncGenerator[_MessageT, None]
    ) -> AsyncGenerator[_MessageT, None]:
        """Those of ``source``, which is closed at the end, for as long as the stream may last.

        Raises UnauthenticatedError when the certificate is no longer good and UnavailableError when
        the service shuts down.
        """
        async with contextlib.aclosing(source):
            # Messages may be large, and are kept by no variable once they are handed on.
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield await self._next(source)

    def recheck(self) -> None:
        """End it if its certificate is no longer good."""
        self._checked_at = self._loop.time()
        try:
            self._authenticator.authenticate(self.call.certificate)
        except JobWorkerError as error:
            self.end(error)

    def end(self, reason: JobWorkerError) -> None:
        """Cut off its wait; the client is told the reason.  No-op after the first."""
        if self._reason is not None:
            return
        self._reason = reason
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._loop.time())

    async def _next(self, source: AsyncGenerator[_MessageT, None]) -> _MessageT:
        now = self._loop.time()
        if now - self._checked_at >= _RECHECK_S:
            self.recheck()
        # A source that never waits would not notice the timer.
        if self._reason is not None or now >= self._until:
            raise self._why()
        waiting = self._waiting = asyncio.timeout_at(self._until)
        try:
            async with waiting:
                return await anext(source)
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise self._why() from error
        finally:
            self._waiting = None

    def _why(self) -> JobWorkerError:
        if self._reason is None:
            self.recheck()
        # Otherwise the clock was set back meanwhile: the client may go on with a new call.
        return self._reason or UnavailableError(
            "go on with the stream", "the clock of the service was set"
        )


class OpenStreams:
    """All of them.  Belongs to one event loop."""

    def __init__(self, bounds: StreamBounds, authenticator: Authenticator) -> None:
        self._bounds = bounds
        self._authenticator = authenticator
        self._open: set[OpenStream] = set()
        self._by_user: Counter[UserName] = Counter()
        self._is_closed = False

    @contextlib.contextmanager
    def admit(
        self, call: Call, *, action: str = "open a stream", advice: str | None = None
    ) -> Iterator[OpenStream]:
        """Count a call that lasts for the length of the block.

        Raises ResourceExhaustedError if there are too many: the action cannot be done, and the
        advice is what can.
        """
        user = call.principal.name
        self._check_room(user, action, advice)
        stream = OpenStream(call, self._authenticator)
        self._open.add(stream)
        self._by_user[user] += 1
        try:
            yield stream
        finally:
            self._open.discard(stream)
            self._by_user -= Counter([user])

    def recheck(self) -> None:
        """End the streams whose certificate is no longer good."""
        for stream in tuple(self._open):
            stream.recheck()

    def count(self) -> int:
        """How many are open.  Safe to call in a thread."""
        return len(self._open)

    def close(self) -> None:
        """End all streams, and admit no more."""
        self._is_closed = True
        for stream in tuple(self._open):
            stream.end(UnavailableError("go on with the stream", _GOING_DOWN))

    def _check_room(self, user: UserName, action: str, advice: str | None) -> None:
        if self._is_closed:
            raise UnavailableError(action, _GOING_DOWN)
        if self._by_user[user] >= self._bounds.per_user:
            why = f"{user} has {self._bounds.per_user} streams and waiting stops, which is the most"
        elif len(self._open) >= self._bounds.total:
            why = f"there are {self._bounds.total} streams and waiting stops, which is the most"
        else:
            return
        raise ResourceExhaustedError(action, why if advice is None else f"{why}; {advice}")


def _seconds_until(moment: datetime.datetime) -> float:
    return (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
