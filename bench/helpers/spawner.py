"""Times commands from before their start to after their end.

Standard library only and small, so that forking it costs next to nothing: the peers are not made
to pay for a large parent.  Each request: ``argv``, optionally ``times`` and ``pause_s`` between.
"""

from __future__ import annotations

import json
import os
import sys
import time


def timed(argv: list[str]) -> float:
    """Seconds; the command must succeed."""
    began = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=_QUIET)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    if status:
        raise SystemExit(f"bench: cannot run {argv}: wait status {status}")
    return took


_QUIET = [
    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
]


def main() -> None:
    print(json.dumps("ready"), flush=True)
    count = 0
    for line in sys.stdin:
        request = json.loads(line)
        samples = []
        for _ in range(request.get("times", 1)):
            time.sleep(request.get("pause_s", 0.0))  # noqa: TID251 -- the pause is what is asked for
            count += 1
            # Containers take a name each.
            argv = [word.replace("{n}", f"{os.getpid()}-{count}") for word in request["argv"]]
            samples.append(timed(argv))
        print(json.dumps(samples), flush=True)


main()
