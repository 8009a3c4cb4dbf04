"""What tells two requests with the same ``request_id`` apart."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from jobworker.model.spec import JobSpec


def fingerprint(spec: JobSpec) -> bytes:
    """The same for equal specs, in every version of the worker.

    Only what is given counts: a version that knows one more field must take a request that an older
    one has recorded for the same.
    """
    given: dict[str, Any] = msgspec.to_builtins(spec)
    given["limits"] = _without_defaults(given["limits"])
    text = msgspec.json.encode(_without_defaults(given), order="sorted")
    return hashlib.sha256(text).digest()


def _without_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", {})}
