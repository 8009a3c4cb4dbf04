"""What the starting process hands to the shim: a few numbers and the descriptors to go on with.

Small on purpose: whatever the shim unpacks becomes memory of its own.

Source: unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import marshal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobworker.model.spec import OnOutputLimit

#: An answer of some 100 bytes for each limited disk, or a refusal with a path.
_MESSAGE_BYTES: Final = 128 * 1024
_FDS_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A command that is about to be executed, as its shim needs to know it."""

    pid: int
    timeout_s: float | None
    grace_s: float
    max_output_bytes: int | None
    on_output_limit: OnOutputLimit
    has_init: bool
    """``pid`` is an init that tells how the command ended through a pipe."""
    answer: bytes
    """For the worker that ordered the start, once the command is executed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The command will not be executed."""

    answer: Mapping[str, Any]
    """As ``RefusedError.answer``."""


def send_handoff(to_shim: socket.socket, handoff: Handoff, fds: Sequence[int]) -> None:
    """fds: the job's directory, the command's error pipe; board, output, index; the read ends of
    stdout and stderr, and with an init that of the command's status and the one it waits for.
    Borrowed.
    """
    message = (
        handoff.pid,
        handoff.timeout_s,
        handoff.grace_s,
        handoff.max_output_bytes,
        handoff.on_output_limit.value,
        handoff.has_init,
        handoff.answer,
    )
    socket.send_fds(to_shim, [marshal.dumps(message)], fds)


def send_refusal(to_shim: socket.socket, answer: Mapping[str, Any], directory: int) -> None:
    """answer: as ``RefusedError.answer``.  directory: of the job; borrowed."""
    socket.send_fds(to_shim, [marshal.dumps(dict(answer))], [directory])


def receive_handoff(from_start: socket.socket) -> tuple[Handoff | Refusal | None, list[int]]:
    """None if the other end is closed without a word.  The caller owns the descriptors."""
    message, fds, _, _ = socket.recv_fds(from_start, _MESSAGE_BYTES, _FDS_MAX)
    if not message:
        return None, fds
    # From our own child, over a socket that nobody else has.
    values = marshal.loads(message)  # noqa: S302
    if isinstance(values, dict):
        return Refusal(values), fds
    pid, timeout_s, grace_s, most, on_limit, has_init, answer = values
    handoff = Handoff(
        pid=pid,
        timeout_s=timeout_s,
        grace_s=grace_s,
        max_output_bytes=most,
        on_output_limit=OnOutputLimit(on_limit),
        has_init=has_init,
        answer=answer,
    )
    return handoff, fds
