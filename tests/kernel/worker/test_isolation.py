"""A job inherits nothing, and reaches nothing that is not its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.errors import (
    FailedPreconditionError,
    ResourceExhaustedError,
    UnenforceableLimitError,
)
from jobworker.kernel.process import open_pid
from jobworker.model import EndReason, JobSpec, Limits, UserName
from jobworker.shim.order import ID_MAX
from jobworker.worker import RequireLimits
from support.guards import need
from support.worker import (
    ALICE,
    BOB,
    WorkerPlace,
    output_of,
    python,
    read_until,
    run,
    sh,
)

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]


@contextlib.contextmanager
def _left_open() -> Iterator[None]:
    """A descriptor that the program around the worker left open for its children."""
    fd = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        yield
    finally:
        os.close(fd)


_SELF = """
import json, os, resource
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "status": {name: value.strip() for name, value in status.items()},
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": os.umask(0),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "is_leader": os.getsid(0) == os.getpgrp() == os.getpid(),
    "stdin": os.readlink("/proc/self/fd/0"),
}))
"""


async def test_a_job_is_given_nothing_of_the_daemons(
    place: WorkerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBWORKER_SECRET", "not for jobs")
    async with place.open() as worker:
        with _left_open():
            job, output = await run(worker, python(_SELF, env={"MINE": "1", "LANG": "C"}))
            fds = await output_of(worker, JobSpec(argv=("/bin/ls", "/proc/self/fd")))
    seen = json.loads(output.stdout)
    scratch = str(place.state_dir / "scratch" / job.id)
    env = seen["env"]
    env.pop("LC_CTYPE", None)  # set by the interpreter itself
    assert env.pop("PATH").endswith("/usr/sbin:/usr/bin:/sbin:/bin")
    assert env == {
        "HOME": scratch,
        "USER": ALICE,
        "LOGNAME": ALICE,
        "SHELL": "/bin/sh",
        "LANG": "C",
        "JOB_ID": job.id,
        "MINE": "1",
    }
    # ls has the listing open as its fourth.
    assert fds.split() == ["0", "1", "2", "3"]
    assert seen["cwd"] == scratch
    assert seen["umask"] == 0o022
    assert seen["core"] == [0, 0]
    assert seen["files"] == 1024
    assert seen["is_leader"] is True
    assert seen["stdin"] == "/dev/null"
    assert list((place.state_dir / "scratch").iterdir()) == []


async def test_a_job_has_no_privileges_and_default_signals(place: WorkerPlace) -> None:
    # Not Python, which sets dispositions of its own.
    async with place.open() as worker:
        text = await output_of(worker, JobSpec(argv=("/bin/cat", "/proc/self/status")))
    status = {
        name: value.strip() for name, value in (line.split(":", 1) for line in text.splitlines())
    }
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk", "SigIgn", "SigCgt"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"] == ""
    uids, gids = set(status["Uid"].split()), set(status["Gid"].split())
    assert len(uids) == len(gids) == 1
    assert int(*uids) >= 1_900_000_000
    assert status["TracerPid"] == "0"


async def test_what_is_not_a_jobs_own_is_closed_to_it(place: WorkerPlace) -> None:
    async with place.open() as worker:
        other = await worker.start(sh("echo $$; echo secret > note; exec sleep 60"), owner=BOB)
        pid = await read_until(worker, other.id, lambda data: data.endswith(b"\n"))
        shim = place.shim_pid(other.id)
        state = place.state_dir
        refused = [
            f"ls {state}",
            f"ls {state}/jobs",
            f"cat {state}/journal.sqlite",
            f"cat {state}/starting.lock",
            f"cat {state}/jobs/{other.id}/output",
            f"cat {state}/jobs/$JOB_ID/spec.json",
            f"ls {state}/scratch",
            f"cat {state}/scratch/{other.id}/note",
            f"echo x > {state}/scratch/planted",
            f"cat /proc/{shim}/environ",
            f"ls /proc/{shim}/fd",
            f"kill -0 {shim}",
            f"kill -KILL {int(pid)}",
            f"cat /proc/{int(pid)}/environ",
            f"kill -0 {os.getpid()}",
            f"find /sys/fs/cgroup -path '*/{other.id}*' -writable 2>/dev/null | grep -q .",
            'find /sys/fs/cgroup -path "*/$JOB_ID*" -writable 2>/dev/null | grep -q .',
            "dd if=/dev/zero of=/etc/planted count=1",
            "mount -t tmpfs none /mnt",
            "chown 0 .",
        ]
        for script in refused:
            job, output = await run(worker, sh(f"{{ {script}; }} 2>&1"))
            assert job.ending is not None
            assert job.ending.reason is EndReason.EXITED, (script, job.ending)
            assert job.ending.exit_code != 0, (script, output.whole)
        assert (await worker.get(other.id)).ending is None
        assert await output_of(worker, sh("id -G; touch mine; ls -A")) != ""


async def test_a_set_user_id_program_gives_nothing(place: WorkerPlace) -> None:
    su = next((path for path in map(Path, ("/bin/su", "/usr/bin/su")) if path.exists()), None)
    need(su is not None and su.stat().st_mode & 0o4000, "set-user-id program")
    async with place.open() as worker:
        text = await output_of(worker, sh("su --help >/dev/null; su -c id </dev/null; id -u"))
    assert int(text.split()[-1]) >= 1_900_000_000


async def test_an_owner_keeps_one_user_for_good(place: WorkerPlace) -> None:
    names = (ALICE, BOB, UserName("carol"))
    async with place.open() as worker:
        first = [await output_of(worker, sh("id -u; id -g"), owner=owner) for owner in names]
        assert await output_of(worker, sh("id -u; id -g"), owner=ALICE) == first[0]
    async with place.open() as worker:
        again = [
            await output_of(worker, sh("id -u; id -g"), owner=owner) for owner in reversed(names)
        ]
    assert again == list(reversed(first))
    assert len(set(first)) == 3


async def test_accounts_are_mapped_and_the_range_has_an_end(place: WorkerPlace) -> None:
    accounts = {ALICE: "nobody", BOB: "no-such-account"}
    async with place.open(accounts=accounts, uid_count=1) as worker:
        assert (await output_of(worker, sh("id -un"))).strip() == "nobody"
        with pytest.raises(FailedPreconditionError, match="'no-such-account'"):
            await worker.start(sh("true"), owner=BOB)
        await output_of(worker, sh("true"), owner=UserName("carol"))
        with pytest.raises(ResourceExhaustedError, match="all 1 user ids"):
            await worker.start(sh("true"), owner=UserName("dave"))


async def test_the_last_user_id_that_there_is_can_be_given(place: WorkerPlace) -> None:
    async with place.open(uid_first=ID_MAX, uid_count=1) as worker:
        assert (await output_of(worker, sh("id -u; id -g"))).split() == [str(ID_MAX)] * 2


async def test_without_any_cgroup_a_job_is_its_process_group(place: WorkerPlace) -> None:
    script = "trap '' TERM; sleep 61 & echo $! $$; wait; wait"
    no_name_of_a_cgroup = "no\nname"
    async with place.open(cgroup_parent=no_name_of_a_cgroup) as worker:
        assert worker.hierarchy.mode is Mode.NONE
        job = await worker.start(sh("sleep 61 & exec sleep 61"), owner=ALICE)
        ended = await worker.stop(job.id, stopped_by=ALICE)
        assert ended.ending is not None
        told = (ended.ending.reason, ended.ending.signal)
        assert told == (EndReason.STOPPED, signal.SIGTERM)

        deaf = await worker.start(sh(script), owner=ALICE)
        pids = await read_until(worker, deaf.id, lambda data: data.endswith(b"\n"))
        ended = await worker.stop(deaf.id, stopped_by=ALICE, grace_s=0.05)
        assert ended.ending is not None
        assert ended.ending.signal == signal.SIGKILL
        leaves, output = await run(worker, sh("sleep 61 >&- 2>&- & echo $!"))
        assert leaves.ending is not None
        assert leaves.ending.reason is EndReason.EXITED
        for pid in (*pids.split(), *output.stdout.split()):
            await asyncio.to_thread(_wait_gone, int(pid))
        with pytest.raises(UnenforceableLimitError, match="cannot limit tasks"):
            await worker.start(sh("true", limits=Limits(tasks=5)), owner=ALICE)
    async with place.open(
        cgroup_parent=no_name_of_a_cgroup, require_limits=RequireLimits.WARN
    ) as worker:
        job, _ = await run(worker, sh("true", limits=Limits(tasks=5)))
        assert [limit.is_enforced for limit in job.effective] == [False]
        assert job.effective[0].note


def _wait_gone(pid: int) -> None:
    pidfd = open_pid(pid)
    if pidfd is not None:
        try:
            assert select.select([pidfd], [], [], 10)[0], f"process {pid} lives on"
        finally:
            os.close(pidfd)
