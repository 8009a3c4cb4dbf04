"""Run a command in the cgroups of a plan, the way a shim does: ``in_job.py PLAN COMMAND [ARG…]``.

A process of its own, because clone3 may be called only where there is one thread.  Ends as the
command did, 128 + n for a signal.
"""

from __future__ import annotations

import json
import os
import sys

from jobworker.cgroup.choose import open_job
from jobworker.cgroup.interface import CgroupPlan
from jobworker.kernel.clone import fork_into


def main(plan: str, *argv: str) -> int:
    job = open_job(CgroupPlan.from_json(json.loads(plan)))
    job.join_shim()
    cgroup, joins = job.clone_fd(), job.open_joins()
    if (os.fork() if cgroup is None else fork_into(cgroup)) == 0:
        for join in joins:
            os.write(join, b"0")
        os.execv(argv[0], argv)
    _, status = os.wait()
    if "REMOVE" in os.environ:
        job.remove()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
