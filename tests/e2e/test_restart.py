"""The service goes away and comes back: jobs run on, clients miss nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.daemon import PATIENCE_S, serving, shell

pytestmark = pytest.mark.kernel

LINES = 3000
#: Some seconds of numbered lines, so that a lost or a doubled one is seen.
COUNT = f"""
i=0
while [ $i -lt {LINES} ]; do
  echo $i; i=$((i + 1)); [ $((i % 100)) -gt 0 ] || sleep 0.1
done
exit 3
"""
WHOLE = "".join(f"{number}\n" for number in range(LINES)).encode()


def test_run_and_logs_get_each_byte_once_through_kills_of_the_service(cgroup: str) -> None:
    with serving(cgroup=f"{cgroup}-kills") as daemon:
        admin = daemon.client("root")
        with admin.running("run", "--label=test=kill", *shell(COUNT)) as run:
            assert run.stdout is not None
            received = run.stdout.readline()
            (job,) = admin("list", "--label=test=kill", "-o", "json").json
            with admin.running("logs", "-f", job["id"]) as logs:
                assert logs.stdout is not None
                followed = logs.stdout.readline()
                for _ in range(3):
                    received += b"".join(run.stdout.readline() for _ in range(300))
                    daemon.restart()
                out, err = run.communicate(timeout=PATIENCE_S)
                followed += logs.communicate(timeout=PATIENCE_S)[0]
        assert received + out == WHOLE
        assert followed == WHOLE
        assert (run.returncode, logs.returncode) == (3, 0)
        assert b"cannot" not in err
        assert admin("logs", job["id"]).out == WHOLE


def test_an_orderly_restart_goes_by(cgroup: str) -> None:
    with serving(cgroup=f"{cgroup}-orderly") as daemon:
        alice = daemon.client("alice")
        script = shell("echo before; sleep 1; echo after; exit 4")
        with alice.running("run", *script) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"before\n"
            daemon.terminate()
            daemon.start()
            out, _ = run.communicate(timeout=PATIENCE_S)
        assert (run.returncode, out) == (4, b"after\n")


def test_a_job_that_ends_while_nobody_serves_has_its_exit_code(cgroup: str) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        serving(cgroup=f"{cgroup}-absent") as daemon,
    ):
        Path(folder).chmod(0o711)
        go = Path(folder) / "go"
        alice = daemon.client("alice")
        script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo late; exit 5"
        job_id = alice.start(*shell(script))
        with alice.running("wait", job_id) as waiting:
            daemon.await_audited("WatchJobs")
            daemon.kill()
            go.touch()
            daemon.await_shim_gone(job_id)
            daemon.start()
            assert waiting.wait(PATIENCE_S) == 5
        assert alice("logs", job_id).out == b"begun\nlate\n"
        assert alice.status(job_id)["ending"]["reason"] == "EXITED"


def test_a_change_of_limits_is_told_after_a_kill_of_the_service(cgroup: str) -> None:
    with serving(cgroup=f"{cgroup}-limits") as daemon:
        alice, root = daemon.client("alice"), daemon.client("root")
        job_id = alice.start(*shell("sleep 60"))
        assert root("update", job_id, "--pids", "20").code == 0
        before = alice.status(job_id)["limits"]
        assert [change["changed_by"] for change in before["changes"]] == ["root"]
        daemon.restart()
        assert alice.status(job_id)["limits"] == before
        assert alice("stop", "--kill", job_id).code == 0
        assert alice.status(job_id)["limits"] == before


def test_a_request_id_holds_across_a_restart(cgroup: str) -> None:
    with serving(cgroup=f"{cgroup}-request") as daemon:
        alice = daemon.client("alice")
        job_id = alice.start("--request-id", "r1", *shell("sleep 60"))
        daemon.restart()
        assert alice.start("--request-id", "r1", *shell("sleep 60")) == job_id
        assert alice("stop", job_id).code == 0
