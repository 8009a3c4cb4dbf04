"""What the starting process hands to the shim: a few numbers and the descriptors to go on with.

Small on purpose: whatever the shim unpacks becomes memory of its own.

Source: unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import marshal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobworker.cgroup.interface import CgroupPlan
from jobworker.model.spec import OnOutputLimit

#: Paths of a few cgroups, and an answer of some 100 bytes for each limited disk.
_MESSAGE_BYTES: Final = 128 * 1024
_FDS_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A command that runs, as its shim needs to know it."""

    pid: int
    cgroup: CgroupPlan
    timeout_s: float | None
    grace_s: float
    max_output_bytes: int | None
    on_output_limit: OnOutputLimit
    has_init: bool
    """``pid`` is an init that tells how the command ended through a pipe."""
    answer: bytes
    """For the worker that ordered the start."""


def send_handoff(to_shim: socket.socket, handoff: Handoff, fds: Sequence[int]) -> None:
    """fds: the job's directory, the line to the worker; board, output, index; the read ends of
    stdout and stderr, and with an init that of the command's status.  Borrowed.
    """
    message = marshal.dumps(
        (
            handoff.pid,
            handoff.cgroup.to_json(),
            handoff.timeout_s,
            handoff.grace_s,
            handoff.max_output_bytes,
            handoff.on_output_limit.value,
            handoff.has_init,
            handoff.answer,
        )
    )
    socket.send_fds(to_shim, [message], fds)


def receive_handoff(from_start: socket.socket) -> tuple[Handoff, list[int]] | None:
    """None if the other end is closed without one.  The caller owns the descriptors."""
    message, fds, _, _ = socket.recv_fds(from_start, _MESSAGE_BYTES, _FDS_MAX)
    if not message:
        return None
    # From our own child, over a socket that nobody else has.
    values = marshal.loads(message)  # noqa: S302
    pid, plan, timeout_s, grace_s, most, on_limit, has_init, answer = values
    handoff = Handoff(
        pid=pid,
        cgroup=CgroupPlan.from_json(plan),
        timeout_s=timeout_s,
        grace_s=grace_s,
        max_output_bytes=most,
        on_output_limit=OnOutputLimit(on_limit),
        has_init=has_init,
        answer=answer,
    )
    return handoff, fds
