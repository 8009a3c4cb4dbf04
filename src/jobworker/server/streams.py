"""Calls that last: how many there may be, and when they must end.

Owns: the bounds on open streams, and ending them at the moment at which their certificate expires,
is revoked or loses its CA, or the service shuts down.  Whatever a stream waits for just then
(output, a change, a client that does not read), the wait is cut off.

The expiry is a timer; revocations arrive by ``recheck``, which whoever reloads the trust files
calls.  Besides, each stream asks again from time to time while it sends, for the day when a clock
was set forward or a change of the files was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from jobworker.errors import JobWorkerError, ResourceExhaustedError, UnavailableError
from jobworker.model.ids import UserName
from jobworker.security.identity import Authenticator
from jobworker.server.calls import Call

#: After the certificate's last moment, so that asking finds it expired: clocks are read in steps.
_AFTER: Final = datetime.timedelta(milliseconds=20)
#: A stream of data asks again so often, an idle one at each sign of life.
_RECHECK_S: Final = 5.0
_GOING_DOWN: Final = "the service is shutting down"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBounds:
    """How many streams may be open at one time."""

    total: int
    per_user: int


class OpenStream:
    """One of them.  Its task runs inside of ``scope``."""

    def __init__(self, call: Call, authenticator: Authenticator, scope: asyncio.Timeout) -> None:
        self.call = call
        self.scope = scope
        self.reason: JobWorkerError | None = None
        """Why it was ended from outside."""
        self._authenticator = authenticator
        self._checked_at = time.monotonic()

    def recheck_when_due(self) -> None:
        """For each message: asks again every few seconds."""
        if time.monotonic() - self._checked_at >= _RECHECK_S:
            self.recheck()

    def recheck(self) -> None:
        """End it if its certificate is no longer good."""
        self._checked_at = time.monotonic()
        try:
            self._authenticator.authenticate(self.call.certificate)
        except JobWorkerError as error:
            self.end(error)

    def end(self, reason: JobWorkerError) -> None:
        """Cut off whatever it waits for; the client is told the reason.  No-op after the first."""
        if self.reason is None and not self.scope.expired():
            self.reason = reason
            self.scope.reschedule(asyncio.get_running_loop().time())


class OpenStreams:
    """All of them.  Belongs to one event loop."""

    def __init__(self, bounds: StreamBounds, authenticator: Authenticator) -> None:
        self._bounds = bounds
        self._authenticator = authenticator
        self._open: set[OpenStream] = set()
        self._by_user: Counter[UserName] = Counter()
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def admit(self, call: Call) -> AsyncIterator[OpenStream]:
        """Run a stream in the block, as long as it may last.

        Raises ResourceExhaustedError if there are too many; later, from inside the block,
        UnauthenticatedError when the certificate is no longer good and UnavailableError when the
        service shuts down.
        """
        self._check_room(call.principal.name)
        scope = asyncio.timeout_at(_loop_time(call.identity.not_after + _AFTER))
        stream = OpenStream(call, self._authenticator, scope)
        self._open.add(stream)
        self._by_user[call.principal.name] += 1
        try:
            async with scope:
                yield stream
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise self._reason(stream) from error
        finally:
            self._open.discard(stream)
            self._by_user -= Counter([call.principal.name])

    def recheck(self) -> None:
        """End the streams whose certificate is no longer good."""
        for stream in tuple(self._open):
            stream.recheck()

    def close(self) -> None:
        """End all streams, and admit no more."""
        self._is_closed = True
        for stream in tuple(self._open):
            stream.end(UnavailableError("go on with the stream", _GOING_DOWN))

    def _check_room(self, user: UserName) -> None:
        if self._is_closed:
            raise UnavailableError("open a stream", _GOING_DOWN)
        if self._by_user[user] >= self._bounds.per_user:
            why = f"{user} has {self._bounds.per_user} open, which is the most"
            raise ResourceExhaustedError("open a stream", why)
        if len(self._open) >= self._bounds.total:
            why = f"{self._bounds.total} are open, which is the most"
            raise ResourceExhaustedError("open a stream", why)

    def _reason(self, stream: OpenStream) -> JobWorkerError:
        if stream.reason is not None:
            return stream.reason
        try:
            self._authenticator.authenticate(stream.call.certificate)
        except JobWorkerError as error:
            return error
        # The clock was set back meanwhile: the client may go on with a new call.
        return UnavailableError("go on with the stream", "the clock of the service was set")


def _loop_time(moment: datetime.datetime) -> float:
    """The moment on the clock of the event loop."""
    rest = moment - datetime.datetime.now(datetime.UTC)
    return asyncio.get_running_loop().time() + rest.total_seconds()
