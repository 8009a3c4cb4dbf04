"""Why a start failed, as an error for whoever asked for it."""

from __future__ import annotations

import errno
from typing import Any, Final

from jobworker.errors import (
    JobWorkerError,
    ResourceExhaustedError,
    StartFailedError,
    UnavailableError,
    UnenforceableLimitError,
    errno_text,
)

_SPACE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def refusal_error(refusal: dict[str, Any], job_id: str) -> JobWorkerError:
    """refusal: what was said of it by those who did not execute the command."""
    if refusal["resource"]:
        return UnenforceableLimitError(refusal["resource"], refusal["why"])
    if refusal["errno"] in _SPACE_ERRNOS:
        return ResourceExhaustedError("start the command", refusal["why"])
    return StartFailedError(
        refusal["why"],
        errno=refusal["errno"],
        path=refusal["path"],
        job_id=job_id,
        at_program=refusal["at_program"],
    )


def storage_error(error: OSError) -> JobWorkerError:
    """error: of the disk that holds the jobs."""
    why = errno_text(error.errno or 0)
    if error.errno in _SPACE_ERRNOS:
        return ResourceExhaustedError("start the command", f"no space to record it: {why}")
    return UnavailableError("start the command", f"it cannot be prepared: {why}")
