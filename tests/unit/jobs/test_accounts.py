"""Which ids of this machine jobs may be given."""

from __future__ import annotations

import pytest

from jobworker.errors import InvalidArgumentError
from jobworker.shim.order import ID_MAX, Account
from jobworker.worker import WorkerSettings


@pytest.mark.parametrize(("first", "count"), [(ID_MAX, 2), (ID_MAX + 1, 1), (0, 1), (1, 0)])
def test_a_range_with_what_is_no_user_id_is_refused(first: int, count: int) -> None:
    """-1 as 32 bits is "leave it as it is" for setresuid(2): such a job would run as root."""
    with pytest.raises(InvalidArgumentError, match="cannot use uid_"):
        WorkerSettings(uid_first=first, uid_count=count)


@pytest.mark.parametrize("number", [-1, ID_MAX + 1])
def test_no_order_is_given_for_what_is_no_id(number: int) -> None:
    for ids in ({"uid": number, "gid": 1}, {"uid": 1, "gid": number}):
        with pytest.raises(ValueError, match=f"as user or group {number}: it is no id"):
            Account(**ids)
