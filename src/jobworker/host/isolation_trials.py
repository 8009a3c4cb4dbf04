"""What a job may not reach and what reaches it, tried with jobs that attempt it.

Owns: the attempts, and what counts as kept.  They are made with the shell, cat and ls.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from jobworker.host.trial import OWNER, PATIENCE_S, Bench, Finding, NotTriedError, Outcome, found
from jobworker.model.job import Job
from jobworker.model.output import Chunk, Stream

KILL: Final = "kill"
USER: Final = "user"
SCRATCH: Final = "scratch"
STATE: Final = "state"

_GRACE_S: Final = 0.2
#: A session of its own, a process whose parent is gone, and the main process; all deaf to SIGTERM.
_TREE: Final = """
trap '' TERM
setsid sh -c 'echo $$; sleep 60 & echo $!; wait; sleep 60' &
( setsid sh -c 'echo $$; sleep 60; sleep 60' & )
echo $$
wait
sleep 60
"""
_TREE_PIDS: Final = 4
_OPEN: Final = """
for path do
  if [ -d "$path" ]; then ls "$path"; else cat "$path"; fi >/dev/null 2>&1 && echo "$path"
done
exit 0
"""
_CAPABILITY_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


async def _try_kill(bench: Bench) -> Finding:
    """Stop a tree that does all it can not to be stopped."""
    job = await bench.start(_TREE, timeout_s=PATIENCE_S)
    with _held(await _read_pids(bench, job)) as pidfds:
        began = time.monotonic()
        await bench.worker.stop(job.id, stopped_by=OWNER, grace_s=_GRACE_S)
        took_s = time.monotonic() - began
        gone, _, _ = select.select(pidfds, [], [], 0)
        left = len(pidfds) - len(gone)
    what = f"{_TREE_PIDS} processes, deaf to SIGTERM, two of them in sessions of their own"
    if left:
        reason = f"{left} of them lived on after the stop"
        return Finding(name=KILL, outcome=Outcome.DOES_NOT_HOLD, measured=what, reason=reason)
    measured = f"{what}: all gone {took_s:.2f} s after a stop with {_GRACE_S} s grace"
    return Finding(name=KILL, outcome=Outcome.HOLDS, measured=measured)


async def _read_pids(bench: Bench, job: Job) -> list[int]:
    """What the tree says of itself.  Raises NotTriedError if it ends before."""
    text = b""
    async with contextlib.aclosing(bench.worker.follow(job.id, stream=Stream.STDOUT)) as events:
        async for event in events:
            text += event.data if isinstance(event, Chunk) else b""
            if text.count(b"\n") >= _TREE_PIDS:
                return [int(line) for line in text.splitlines()[:_TREE_PIDS]]
    said = (await bench.finish(job)).stderr.strip()
    raise NotTriedError(f"the processes of the trial did not start: {said}")


@contextlib.contextmanager
def _held(pids: Sequence[int]) -> Iterator[list[int]]:
    """pidfds; whoever is left at the end is killed."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        yield pidfds
    finally:
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


async def _try_user(bench: Bench) -> Finding:
    """Look at what a job is."""
    ended = await bench.run("exec cat /proc/self/status")
    ended.require_success()
    lines = (line.partition(":")[::2] for line in ended.stdout.splitlines())
    status = {name: value.split() for name, value in lines}
    uid = int(status["Uid"][0])
    flaws = []
    if uid in {0, os.geteuid()}:
        flaws.append("jobs run as the service's own user")
    if any(int(status[name][0], 16) for name in _CAPABILITY_SETS if name in status):
        flaws.append("jobs have capabilities")
    if status["NoNewPrivs"] != ["1"]:
        flaws.append("set-user-id programs raise what jobs may do")
    if status["Groups"] and uid != os.geteuid():
        flaws.append("jobs have supplementary groups")
    return Finding(
        name=USER,
        outcome=Outcome.DOES_NOT_HOLD if flaws else Outcome.HOLDS,
        measured="" if flaws else f"uid {uid}, no capabilities, no_new_privs",
        reason="; ".join(flaws),
    )


async def _try_scratch(bench: Bench) -> Finding:
    """Use the working directory by its path."""
    ended = await bench.run('echo kept >"$HOME/note" && cat "$HOME/note" && pwd')
    said = ended.stdout.split("\n")
    if ended.ending.exit_code == 0 and said[0] == "kept":
        return Finding(name=SCRATCH, outcome=Outcome.HOLDS, measured=str(Path(said[1]).parent))
    reason = ended.stderr.strip() or ended.ending.message
    return Finding(name=SCRATCH, outcome=Outcome.DOES_NOT_HOLD, reason=reason)


async def _try_state(bench: Bench, secrets: Sequence[Path]) -> Finding:
    """Try to read what belongs to the service."""
    own = (".", "jobs", "scratch", "journal.sqlite", "starting.lock", "daemon.lock")
    paths = [bench.state_dir / name for name in own]
    paths += [path for path in secrets if path.exists()]
    ended = await bench.run(_OPEN, *map(str, paths))
    ended.require_success()
    opened = ended.stdout.split("\n")[:-1]
    return Finding(
        name=STATE,
        outcome=Outcome.DOES_NOT_HOLD if opened else Outcome.HOLDS,
        measured=f"{len(paths) - len(opened)} of {len(paths)} files and directories refused",
        reason=f"a job can read {', '.join(opened)}" if opened else "",
    )


async def try_isolation(bench: Bench, secrets: Sequence[Path]) -> tuple[Finding, ...]:
    """A finding for each promise.

    secrets: paths of the configured service; those that are there must be closed too.
    """
    return (
        await found(KILL, _try_kill(bench)),
        await found(USER, _try_user(bench)),
        await found(SCRATCH, _try_scratch(bench)),
        await found(STATE, _try_state(bench, secrets)),
    )
