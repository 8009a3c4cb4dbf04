"""jobctl start, status, list, stop, wait, rm, update, top, whoami."""

from __future__ import annotations

import datetime

import pytest

from support.daemon import ADMIN, PATIENCE_S, shell

pytestmark = pytest.mark.kernel

UNKNOWN = "zzzzzzzzzzzzzzzzzzzz"
SLEEP = ("--", "sleep", "600")


def instant(text: str) -> datetime.datetime:
    assert text.endswith("Z")
    return datetime.datetime.fromisoformat(text)


# -- what a job looks like


def test_the_json_of_a_running_job(alice) -> None:
    job_id = alice.start("--name", "n", "--label", "k=v", "--timeout", "1h", *SLEEP)
    job = alice.status(job_id)
    alice("stop", "--kill", job_id)
    assert (job["id"], job["owner"], job["state"]) == (job_id, "alice", "RUNNING")
    assert (job["argv"], job["name"], job["labels"]) == (["sleep", "600"], "n", {"k": "v"})
    assert (job["ended_at"], job["ending"], job["timeout_s"]) == (None, None, 3600)
    assert instant(job["created_at"]) <= instant(job["started_at"])
    assert job["output"] == {
        "bytes": 0, "stdout_bytes": 0, "stderr_bytes": 0, "dropped_bytes": 0,
    }  # fmt: skip
    assert job["limits"]["requested"]["cpu_millis"] == 500
    assert {limit["resource"] for limit in job["limits"]["effective"]} >= {"CPU", "MEMORY", "TASKS"}
    for key in ("cpu_seconds", "memory_peak_bytes", "io_read_bytes", "io_write_bytes"):
        assert key in job["usage"]


def test_the_json_of_an_ended_job(alice) -> None:
    job = alice.wait_ended(alice.start(*shell("echo out; echo err >&2; exit 3")))
    assert job["state"] == "ENDED"
    assert job["ending"] == {
        "reason": "EXITED", "exit_code": 3, "signal": None, "stopped_by": None,
        "message": "exited with code 3",
    }  # fmt: skip
    assert instant(job["started_at"]) <= instant(job["ended_at"])
    assert (job["output"]["bytes"], job["output"]["stderr_bytes"]) == (8, 4)
    assert job["usage"]["cpu_seconds"] >= 0
    assert job["usage"]["memory_peak_bytes"] > 0


def test_status_for_people_says_what_and_why(alice) -> None:
    job_id = alice.start("--name", "nightly", *shell("printf '\033[2J'; exit 3"))
    alice("wait", job_id)
    done = alice("status", job_id)
    text = done.out.decode()
    assert done.code == 0
    for part in ("EXITED 3: exited with code 3", "nightly", "alice", "256M", "IN FORCE"):
        assert part in text
    assert "\x1b" not in text


def test_start_prints_the_id_or_the_job(alice) -> None:
    job = alice("start", "-o", "json", "--", "true").json
    assert len(job["id"]) == 20
    assert job["argv"] == ["true"]
    assert alice.start("--", "true") != job["id"]


# -- list


def test_list_finds_by_state_and_label_newest_first(alice) -> None:
    label = "--label=test=list"
    ended = [alice.start(label, "--", "true") for _ in range(3)]
    alice("wait", *ended)
    running = alice.start(label, *SLEEP)
    try:
        found = [job["id"] for job in alice("list", label, "-o", "json").json]
        assert found == [running, *reversed(ended)]
        only = alice("list", label, "--state", "running", "-o", "json").json
        assert [job["id"] for job in only] == [running]
        some = alice("list", label, "--limit", "2", "-o", "json").json
        assert [job["id"] for job in some] == found[:2]
        assert alice("list", "--label=test=other", "-o", "json").json == []
        table = alice("list", label).out.decode().splitlines()
        assert table[0].split()[:3] == ["ID", "OWNER", "STATE"]
        assert [line.split()[0] for line in table[1:]] == found
    finally:
        alice("stop", "--kill", running)


# -- who sees what


def test_another_users_job_answers_as_one_that_does_not_exist(alice, bob) -> None:
    job_id = alice.start(*SLEEP)
    try:
        for verb in ("status", "logs", "stop", "wait", "rm"):
            theirs, nobodys = bob(verb, job_id), bob(verb, UNKNOWN)
            assert theirs.code == nobodys.code == 125
            assert theirs.err.replace(job_id, UNKNOWN) == nobodys.err
            assert theirs.err == f"jobctl: cannot find job '{job_id}'\n"
        assert job_id not in bob("list").out.decode()
        assert bob("status", job_id[:8]).err == f"jobctl: cannot find job '{job_id[:8]}'\n"
        assert alice.status(job_id)["state"] == "RUNNING"
    finally:
        alice("stop", "--kill", job_id)


def test_an_admin_sees_and_stops_any_job(alice, admin) -> None:
    job_id = alice.start(*SLEEP)
    owned = admin("list", "--owner", "alice", "--state", "running", "-o", "json").json
    assert job_id in [job["id"] for job in owned]
    assert {job["owner"] for job in owned} == {"alice"}
    job = admin("stop", job_id, "-o", "json").json
    assert (job["ending"]["reason"], job["ending"]["stopped_by"]) == ("STOPPED", ADMIN)


def test_two_users_run_at_once(alice, bob) -> None:
    script = shell("echo $JOB_ID; id -u; sleep 60")
    with alice.running("run", *script) as first, bob.running("run", *script) as second:
        ids = [run.stdout.readline().decode().strip() for run in (first, second)]
        uids = [run.stdout.readline() for run in (first, second)]
        assert len(set(ids)) == len(set(uids)) == 2
        assert alice("stop", ids[0]).code == bob("stop", ids[1]).code == 0
        assert first.wait(PATIENCE_S) == second.wait(PATIENCE_S) == 143


def test_whoami(alice, admin) -> None:
    me = alice("whoami", "-o", "json").json
    assert (me["user"], me["role"]) == ("alice", "user")
    assert instant(me["certificate_not_after"]) > datetime.datetime.now(datetime.UTC)
    assert b"admin" in admin("whoami").out


# -- naming a job


def test_a_unique_beginning_of_the_id_will_do(alice) -> None:
    job_id = alice.start("--", "true")
    assert alice.status(job_id[:12])["id"] == job_id
    assert alice.status(job_id[:12].upper())["id"] == job_id


def test_an_ambiguous_beginning_names_the_candidates(alice) -> None:
    first: list[str] = []
    while len(set(first)) == len(first):  # ends after 33 jobs: there are 32 letters
        first.append(alice.start("--", "true")[0])
    twice = first[-1]
    done = alice("status", twice)
    assert done.code == 125
    assert "several jobs begin so (" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "no such job", "i", "../../etc", UNKNOWN + "z", "\x1b[2J"])
def test_what_is_no_id_is_not_found(alice, text: str) -> None:
    done = alice("status", text)
    assert done.code == 125
    assert done.err.startswith("jobctl: cannot find job ")
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err


# -- stop


def test_stop_waits_and_is_idempotent(alice) -> None:
    job_id = alice.start(*SLEEP)
    first = alice("stop", job_id)
    assert first.code == 0
    assert first.out.decode().startswith(f"{job_id} STOPPED: stopped by 'alice'")
    assert alice("stop", job_id).out == first.out


def test_stop_kill_does_not_ask(alice) -> None:
    job_id = alice.start(*shell("trap '' TERM; sleep 600; sleep 600"))
    ending = alice("stop", "--kill", job_id, "-o", "json").json["ending"]
    assert (ending["reason"], ending["signal"]) == ("STOPPED", 9)


def test_the_grace_is_kept(alice) -> None:
    job_id = alice.start(*shell("trap '' TERM; while :; do sleep 0.1; done"))
    began = datetime.datetime.now(datetime.UTC)
    ending = alice("stop", "--grace", "700ms", job_id, "-o", "json").json["ending"]
    assert datetime.datetime.now(datetime.UTC) - began >= datetime.timedelta(seconds=0.7)
    assert "forced after the grace period" in ending["message"]


def test_no_wait_returns_while_the_job_still_ends(alice) -> None:
    job_id = alice.start(*shell("trap '' TERM; echo ready; sleep 600; sleep 600"))
    with alice.running("logs", "-f", job_id) as logs:
        assert logs.stdout.readline() == b"ready\n"
    done = alice("stop", "--no-wait", job_id)
    assert (done.code, done.out.decode()) == (0, f"{job_id} STOPPING\n")
    assert alice("stop", "--kill", job_id).code == 0


def test_several_jobs_are_stopped_and_one_that_is_not_there_is_told(alice) -> None:
    ids = [alice.start(*SLEEP) for _ in range(3)]
    done = alice("stop", ids[0], UNKNOWN, *ids[1:])
    assert done.code == 125
    assert done.err == f"jobctl: cannot find job '{UNKNOWN}'\n"
    assert [line.split()[0] for line in done.out.decode().splitlines()] == ids
    assert all(alice.status(job_id)["state"] == "ENDED" for job_id in ids)


# -- wait


def test_wait_exits_as_the_last_job(alice) -> None:
    seven, zero = alice.start(*shell("exit 7")), alice.start("--", "true")
    assert alice("wait", zero, seven).code == 7
    assert alice("wait", seven, zero).code == 0
    shown = alice("wait", seven, "-o", "json").json
    assert shown["ending"]["exit_code"] == 7


def test_wait_returns_when_the_job_ends_and_not_before(alice) -> None:
    job_id = alice.start(*SLEEP)
    with alice.running("wait", job_id) as waiting:
        assert alice.status(job_id)["state"] == "RUNNING"
        assert waiting.poll() is None
        alice("stop", job_id)
        assert waiting.wait(PATIENCE_S) == 143


@pytest.mark.parametrize("attempt", range(5))
def test_waiting_for_a_short_job_is_short(alice, attempt: int) -> None:
    """However the end falls between the questions of the client."""
    began = datetime.datetime.now(datetime.UTC)
    job_id = alice.start(*shell(f"sleep 0.{attempt}"))
    assert alice("wait", job_id).code == 0
    assert datetime.datetime.now(datetime.UTC) - began < datetime.timedelta(seconds=5)


# -- rm, update, top


def test_rm_removes_ended_jobs_only(alice) -> None:
    ended, running = alice.start("--", "true"), alice.start(*SLEEP)
    alice("wait", ended)
    done = alice("rm", ended, running)
    assert (done.code, done.out.decode()) == (125, f"{ended}\n")
    assert done.err.startswith("jobctl: cannot ")
    assert alice("status", ended).err == f"jobctl: cannot find job '{ended}'\n"
    alice("stop", "--kill", running)
    assert alice("rm", running).code == 0


def test_update_changes_limits_of_a_running_job(alice, admin) -> None:
    job_id = alice.start(*SLEEP)
    try:
        refused = alice("update", job_id, "--cpu", "2")
        assert (refused.code, refused.err.count("\n")) == (125, 1)
        assert "cannot change the limits" in refused.err
        done = admin("update", job_id, "--cpu", "0.25", "--memory", "128M", "-o", "json")
        assert done.code == 0, done.err
        requested = alice.status(job_id)["limits"]["requested"]
        assert (requested["cpu_millis"], requested["memory_bytes"]) == (250, 128 << 20)
        assert admin("update", job_id).code == 125
        (change,) = alice.status(job_id)["limits"]["changes"]
        assert (change["changed_by"], change["outcome_unknown"]) == (ADMIN, False)
        assert instant(change["changed_at"]) > instant(alice.status(job_id)["started_at"])
        assert change["before"] == {"cpu_millis": 500, "memory_bytes": 256 << 20}
        assert change["after"] == {"cpu_millis": 250, "memory_bytes": 128 << 20}
        assert [limit["effective"] for limit in change["effective"]] == [250, 128 << 20]
        told = [
            line for line in alice("status", job_id).out.decode().splitlines() if "change" in line
        ]
        assert len(told) == 1
        assert told[0].endswith(f" by {ADMIN}: CPU 0.5 to 0.25, memory 256M to 128M")
    finally:
        alice("stop", "--kill", job_id)
    late = admin("update", job_id, "--cpu", "1")
    assert late.code == 125
    assert "it does not run" in late.err


def test_top_shows_running_jobs_once_when_piped(alice) -> None:
    job_id = alice.start("--name", "busy", *shell("while :; do :; done"))
    try:
        done = alice("top")
        header, *rows = done.out.decode().splitlines()
        assert header.split()[:2] == ["ID", "OWNER"]
        assert job_id in [row.split()[0] for row in rows]
        assert "\x1b" not in done.out.decode()
        assert job_id in [job["id"] for job in alice("top", "-o", "json").json]
    finally:
        alice("stop", "--kill", job_id)
