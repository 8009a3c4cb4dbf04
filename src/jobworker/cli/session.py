"""What most verbs begin with: a client of the service that is meant, and a job's whole id."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final

from jobworker.cli import console
from jobworker.cli.arguments import UsageError
from jobworker.cli.profiles import FIELDS, find_profile
from jobworker.client import Client, Target, connect
from jobworker.errors import InvalidArgumentError, JobNotFoundError
from jobworker.model.ids import JOB_ID_CHARS, JobId, is_job_id, is_job_id_prefix
from jobworker.model.job import JobFilter

#: Jobs that are named when a beginning of an id fits several; one more is asked for.
_CANDIDATES: Final = 5


@contextlib.asynccontextmanager
async def open_client(options: argparse.Namespace) -> AsyncIterator[Client]:
    """A client of the service that options, variables and profile name."""
    given = {name: getattr(options, name, None) for name in ("profile", *FIELDS)}
    profile = find_profile(given)
    target = Target(server=profile.server, ca=profile.ca, cert=profile.cert, key=profile.key)
    async with connect(target) as client:
        yield client


async def find_job(client: Client, text: str) -> JobId:
    """The job whose id begins so; raises JobNotFoundError, or if there are several."""
    wanted = text.lower()
    if is_job_id(wanted):
        return JobId(wanted)
    if not is_job_id_prefix(wanted):
        raise JobNotFoundError(text)
    page = await client.list(JobFilter(id_prefix=wanted), page_size=_CANDIDATES + 1)
    match [job.id for job in page.jobs]:
        case []:
            raise JobNotFoundError(text)
        case [job_id]:
            return job_id
        case several:
            names = ", ".join(several[:_CANDIDATES])
            more = " and more" if len(several) > _CANDIDATES else ""
            why = (
                f"several jobs begin so ({names}{more}): give more of its {JOB_ID_CHARS} characters"
            )
            raise InvalidArgumentError("job", text, why)


def is_json(options: argparse.Namespace) -> bool:
    """Is JSON asked for?"""
    return getattr(options, "output", None) == "json"


def refuse_json(options: argparse.Namespace) -> None:
    """For verbs that hand on a job's bytes as they are."""
    if is_json(options):
        raise UsageError(f"print the output of a job as JSON: {options.verb} takes no -o json")


def show_json(value: object) -> None:
    """One JSON value on standard output."""
    console.show(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
