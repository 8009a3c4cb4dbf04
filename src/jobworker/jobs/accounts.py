"""Which user of this machine runs the jobs of an owner."""

from __future__ import annotations

import os
import pwd

from jobworker.errors import FailedPreconditionError, ResourceExhaustedError
from jobworker.jobs import catalog
from jobworker.jobs.journal import Journal
from jobworker.jobs.settings import WorkerSettings
from jobworker.model.ids import UserName
from jobworker.shim.order import Account


class Accounts:
    """Mapped accounts first, else a user id of the range, given once and kept for good."""

    def __init__(self, settings: WorkerSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._known: dict[UserName, Account] = {}

    async def find(self, owner: UserName) -> Account | None:
        """None: the worker's own user, since it is not root or was told to.

        Raises FailedPreconditionError if a mapped account is not there, ResourceExhaustedError if
        all ids of the range are given out.
        """
        first = self._settings.uid_first
        if os.geteuid() != 0:
            return None
        if owner in self._known:
            return self._known[owner]
        mapped = self._settings.accounts.get(owner)
        if mapped is not None:
            account = _local_account(owner, mapped)
        elif first is None:
            return None
        else:
            count = self._settings.uid_count
            uid = await self._journal.run(
                lambda connection: catalog.uid_of(connection, owner, first, count), durable=True
            )
            if uid is None:
                why = f"all {count} user ids from {first} on are given out"
                raise ResourceExhaustedError(f"run jobs of {owner}", why)
            account = Account(uid=uid, gid=uid)
        self._known[owner] = account
        return account


def _local_account(owner: UserName, name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        why = f"the account {name!r} that the configuration gives them does not exist"
        raise FailedPreconditionError(f"run jobs of {owner}", why) from error
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)
