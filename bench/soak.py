"""``bench/soak``: kill the daemon a thousand times under load, and print what was lost: nothing.

The play itself and its accounts are those of the test suite (tests/faults/soak.py).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from faults.soak import Tally, describe, run_soak

#: Kills between two lines of progress.
_TELL_EVERY = 50


def main() -> int:
    """0 if nothing was lost, doubled or left."""
    parser = argparse.ArgumentParser(prog="bench/soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N")
    arguments = parser.parse_args()
    # That the service is away is what the client tells all the time here.
    logging.getLogger("jobworker.client").setLevel(logging.ERROR)
    # Not below /tmp, which may be closed to the users that jobs run as.
    folder = Path(tempfile.mkdtemp(prefix="jobworker-soak-", dir="/var/tmp"))
    folder.chmod(0o711)
    began = time.monotonic()
    run = run_soak(
        folder,
        kills=arguments.kills,
        seed=arguments.seed,
        cgroup_name=f"jobworker-soak-{os.getpid()}",
        progress=_tell,
    )
    tally = asyncio.run(run)
    print(describe(tally))
    print(f"{time.monotonic() - began:.0f} s")
    if not tally.is_clean:
        print(f"what it wrote is in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _tell(tally: Tally) -> None:
    count = sum(tally.kills.values())
    if count % _TELL_EVERY == 0:
        faults = len(tally.faults)
        print(f"{count} kills, {tally.jobs} jobs, {faults} faults", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
