"""Exit codes: the whole table."""

from __future__ import annotations

import pytest

from jobworker.cli import exits
from jobworker.errors import (
    DataLossError,
    InvalidArgumentError,
    JobNotFoundError,
    PermissionDeniedError,
    StartFailedError,
    UnavailableError,
)
from jobworker.model import Ending, EndReason


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending(reason=EndReason.EXITED, exit_code=0), 0),
        (Ending(reason=EndReason.EXITED, exit_code=3), 3),
        (Ending(reason=EndReason.EXITED, exit_code=255), 255),
        (Ending(reason=EndReason.SIGNALED, signal=11), 139),
        (Ending(reason=EndReason.SIGNALED, signal=64), 192),
        (Ending(reason=EndReason.STOPPED, signal=15), 143),
        (Ending(reason=EndReason.STOPPED, signal=9), 137),
        (Ending(reason=EndReason.STOPPED, exit_code=7), 7),
        (Ending(reason=EndReason.STOPPED, exit_code=0), 143),
        (Ending(reason=EndReason.TIMED_OUT, signal=15), 124),
        (Ending(reason=EndReason.TIMED_OUT, exit_code=0), 124),
        (Ending(reason=EndReason.OOM_KILLED, signal=9), 137),
        (Ending(reason=EndReason.OUTPUT_LIMIT, signal=9), 137),
        (Ending(reason=EndReason.OUTPUT_LIMIT, exit_code=0), 137),
        (Ending(reason=EndReason.START_FAILED), 126),
        (Ending(reason=EndReason.LOST), 125),
        (Ending(reason=EndReason.LOST, exit_code=0), 125),
    ],
)
def test_the_code_of_an_ending(ending: Ending, code: int) -> None:
    assert exits.of_ending(ending) == code


@pytest.mark.parametrize("reason", EndReason)
def test_only_a_command_that_ended_well_by_itself_gives_zero(reason: EndReason) -> None:
    code = exits.of_ending(Ending(reason=reason, exit_code=0))
    assert (code == 0) == (reason is EndReason.EXITED)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StartFailedError("no such file", errno=2, at_program=True), 127),
        (StartFailedError("permission denied", errno=13, at_program=True), 126),
        (StartFailedError("no such directory", errno=2), 125),
        (StartFailedError("no cgroup"), 125),
        (InvalidArgumentError("cpu", "x", "no"), 125),
        (JobNotFoundError("x"), 125),
        (PermissionDeniedError("stop", "no"), 125),
        (UnavailableError("reach", "no"), 125),
        (DataLossError("read", "no"), 125),
    ],
)
def test_the_code_of_an_error(error, code: int) -> None:
    assert exits.of_error(error) == code
