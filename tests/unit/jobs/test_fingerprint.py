"""Which requests are the same one."""

from __future__ import annotations

import pytest

from jobworker.jobs.fingerprint import fingerprint
from jobworker.model import Isolation, JobSpec, Limits

SPEC = JobSpec(argv=("make", "all"), env={"A": "1", "B": ""}, limits=Limits(tasks=7))


def test_what_is_not_given_leaves_no_mark() -> None:
    """So that a field which a later version adds does not change it."""
    # The SHA-256 of {"argv":["make","all"],"env":{"A":"1","B":""},"limits":{"tasks":7}}.
    assert fingerprint(SPEC).hex() == (
        "ce2da248a84a65d9861d5fd9f77754f7fc1b418f888745bcf8cfa36c6262593f"
    )


def test_the_order_of_variables_does_not_count() -> None:
    assert fingerprint(JobSpec(argv=("x",), env={"A": "1", "B": "2"})) == fingerprint(
        JobSpec(argv=("x",), env={"B": "2", "A": "1"})
    )


@pytest.mark.parametrize(
    "other",
    [
        JobSpec(argv=("make",)),
        JobSpec(argv=("make", "all"), env={"A": "1"}, limits=Limits(tasks=7)),
        JobSpec(argv=("make", "all"), env={"A": "1", "B": ""}),
        JobSpec(argv=("make", "all", ""), env={"A": "1", "B": ""}, limits=Limits(tasks=7)),
        JobSpec(
            argv=("make", "all"),
            env={"A": "1", "B": ""},
            limits=Limits(tasks=7),
            isolation=Isolation.NONE,
        ),
        JobSpec(
            argv=("make", "all"),
            env={"A": "1", "B": ""},
            limits=Limits(tasks=7),
            max_output_bytes=0,
        ),
    ],
)
def test_whatever_is_given_counts(other: JobSpec) -> None:
    assert fingerprint(other) != fingerprint(SPEC)
