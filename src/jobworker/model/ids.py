"""Names of things: jobs, owners, requests.  Strings that must not be mixed are NewTypes."""

from __future__ import annotations

import os
import re
from typing import Final, NewType

from jobworker.errors import InvalidArgumentError

JobId = NewType("JobId", str)
"""20 characters of ``JOB_ID_ALPHABET``: 100 random bits, so that a short prefix is often unique."""

UserName = NewType("UserName", str)
"""Who owns a job: the common name of a certificate, or the account that uses the library."""

RequestId = NewType("RequestId", str)
"""Chosen by the caller; a repeated start with the same one returns the same job."""

#: Digits and lower-case letters without i, l, o, u: nothing to misread, no words by accident.
JOB_ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
JOB_ID_CHARS: Final = 20
REQUEST_ID_CHARS_MAX: Final = 128

_JOB_ID = re.compile(rf"[{JOB_ID_ALPHABET}]{{1,{JOB_ID_CHARS}}}")
#: What a user name may be made of: safe in a file name, a log line and an account name.
_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_REQUEST_ID = re.compile(rf"[!-~]{{1,{REQUEST_ID_CHARS_MAX}}}")


def new_job_id() -> JobId:
    """A name that no other job has: 100 bits from the kernel's generator."""
    # Each byte is an even choice: 256 is a multiple of the 32 characters.
    return JobId("".join(JOB_ID_ALPHABET[byte % 32] for byte in os.urandom(JOB_ID_CHARS)))


def is_job_id(text: str) -> bool:
    """Is it the whole id of a job, and not only the beginning of one?"""
    return len(text) == JOB_ID_CHARS and _JOB_ID.fullmatch(text) is not None


def is_job_id_prefix(text: str) -> bool:
    """Could the id of a job begin like this?  A whole id does."""
    return _JOB_ID.fullmatch(text) is not None


def parse_user_name(text: str) -> UserName:
    """Raises InvalidArgumentError for anything but 1-64 letters, digits and ``._@-``."""
    if _USER_NAME.fullmatch(text) is None:
        raise InvalidArgumentError(
            "user name",
            text,
            "it takes 1-64 letters, digits, '.', '_', '@', '-', a letter or digit first",
        )
    return UserName(text)


def parse_request_id(text: str) -> RequestId:
    """Raises InvalidArgumentError unless it is 1-128 printable ASCII characters without spaces."""
    if _REQUEST_ID.fullmatch(text) is None:
        raise InvalidArgumentError(
            "request_id",
            text,
            f"it takes 1-{REQUEST_ID_CHARS_MAX} printable ASCII characters, no spaces",
        )
    return RequestId(text)
