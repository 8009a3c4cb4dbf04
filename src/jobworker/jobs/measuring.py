"""What a live job uses and has written now."""

from __future__ import annotations

import errno
from dataclasses import replace

from jobworker.errors import errno_text
from jobworker.jobs.live import LiveJob
from jobworker.jobs.registry import Registry
from jobworker.model.job import Job, JobPage
from jobworker.model.state import JobState
from jobworker.model.usage import Usage
from jobworker.output.reader import read_board


class Meter:
    """Reads cgroups and boards.  Its calls wait for the kernel: run them in a thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def measure_page(self, page: JobPage) -> JobPage:
        """In a thread: the live jobs of a page."""
        live = self._registry.live
        jobs = tuple(
            self.measure(live[job.id], job) if job.id in live else job for job in page.jobs
        )
        return replace(page, jobs=jobs)

    def measure(self, live: LiveJob, job: Job) -> Job:
        """In a thread: what a live job uses and has written now."""
        if job.state is JobState.ENDED:
            return job
        try:
            with self._registry.directories.open_job(job.id) as directory:
                output, blocked_errno = read_board(directory)
        except OSError:
            # One of which nothing can be read does not keep a list from all the others.
            return job
        usage = Usage() if live.cgroup is None else live.cgroup.usage()
        conditions = (_blocked_text(blocked_errno),) if blocked_errno else ()
        return replace(job, usage=usage, output=output, conditions=conditions)


def _blocked_text(number: int) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "output blocked: no space"
    return f"output blocked: {errno_text(number)}"
