"""A hostile job tries to reach all that is not its own; every attempt is refused, and listed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.model import EndReason, Limits
from support.certificates import make_installation
from support.guards import need
from support.triggers import start_waiting, when_told
from support.worker import BOB, WorkerPlace, python, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

PROGRAM = Path(__file__).with_name("attempts.py").read_text()
#: "No such file" where the attempt would have begun by a step that is refused, "no such process"
#: where there is no group of that number, "read-only" for parts of /proc and of cgroup mounts.
REFUSALS = frozenset({"EACCES", "EPERM", "ENOENT", "ESRCH", "EROFS"})
#: A number of control files that any host exceeds, so that the test has seen something.
CONTROL_FILES_MIN = 20


@pytest.fixture
def outside() -> Iterator[Path]:
    """Things that are not the worker's: keys as ``jobworker init`` makes them, a root program."""
    folder = Path(tempfile.mkdtemp(prefix="jobworker-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    program = folder / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    make_installation(folder / "pki")
    yield folder
    shutil.rmtree(folder)


def _as_root_for_anybody(program: Path) -> bool:
    """Does the set-user-id program work where nothing forbids it?"""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(program), "-u"]
    return subprocess.run(command, capture_output=True, check=True).stdout == b"0\n"


def _parent(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


async def test_every_attempt_is_refused(place: WorkerPlace, outside: Path) -> None:
    need(_as_root_for_anybody(outside / "id"), "file system with set-user-id programs")
    spare = outside / "spare"
    spare.mkdir()
    (spare / "note").write_text("not to be removed")
    async with place.open() as worker:
        other = await worker.start(
            sh("umask 0; echo secret >note; echo $$; exec sleep 60"), owner=BOB
        )
        pid = int(await read_until(worker, other.id, lambda data: data.endswith(b"\n")))
        shim = place.shim_pid(other.id)
        state = place.state_dir
        number = state.stat().st_dev
        targets = {
            "directories": [
                *map(str, (state, state / "jobs", place.job_directory(other.id))),
                *map(str, (state / "scratch", state / "scratch" / other.id, outside / "pki")),
            ],
            "files": [
                *map(str, (state / "journal.sqlite", state / "daemon.lock")),
                *map(str, place.job_directory(other.id).iterdir()),
                str(state / "scratch" / other.id / "note"),
                *map(str, (outside / "pki").glob("*.key")),
            ],
            "processes": {
                "another's job": pid,
                "another's shim": shim,
                "launcher": _parent(shim),
                "daemon": os.getpid(),
            },
            "disk": [os.major(number), os.minor(number)],
            "set_user_id": str(outside / "id"),
            "spare": str(spare),
        }
        job, output = await run(worker, python(PROGRAM, json.dumps(targets)))
        assert job.ending is not None
        assert (job.ending.reason, job.ending.exit_code) == (EndReason.EXITED, 0), output.stderr
        assert (await worker.get(other.id)).ending is None
    results: dict[str, object] = json.loads(output.stdout)
    for name, result in results.items():  # for people: pytest -s shows it
        print(f"{result!s:20} {name}")
    assert results.pop("cgroup files tried") >= CONTROL_FILES_MIN  # type: ignore[operator] # JSON
    uid = str(results.pop("set-user-id program"))
    assert int(uid.removeprefix("uid ")) >= 1_900_000_000
    assert results.pop("through a user name space") == "nothing reached"
    for name in ("core dumps", "open files"):
        assert str(results.pop(name)).startswith("ValueError: not allowed"), name
    passed = {name: result for name, result in results.items() if result not in REFUSALS}
    assert passed == {}
    assert len(results) > 100
    assert (spare / "note").read_text() == "not to be removed"
    assert list((place.state_dir / "scratch").iterdir()) == []


async def test_a_job_cannot_free_itself_of_a_limit(place: WorkerPlace) -> None:
    """Whatever files it has written to before: the limit still bites afterwards."""
    script = """
    for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/*/memory.max \
        $(find /sys/fs/cgroup -path "*$JOB_ID*" 2>/dev/null); do
      echo max >"$file"
    done 2>/dev/null
    ulimit -u unlimited 2>/dev/null
    exec dd if=/dev/zero of=/dev/null bs=128M count=1
    """
    async with place.open() as worker:
        job, _ = await run(worker, sh(script, limits=Limits(memory_bytes=32 << 20)))
    assert job.ending is not None
    assert job.ending.reason is EndReason.OOM_KILLED


async def test_a_job_of_the_same_owner_is_not_a_stranger(place: WorkerPlace) -> None:
    """The border is the identity: jobs of one owner run as one user, and may signal each other."""
    async with place.open() as worker:
        first = await start_waiting(worker, when_told("exit 3"))
        job, _ = await run(worker, sh('kill -USR1 "$1"', str(first.pid)))
        assert job.ending is not None
        assert job.ending.exit_code == 0
        ended = await worker.wait(first.job.id)
        assert ended.ending is not None
        assert ended.ending.exit_code == 3
