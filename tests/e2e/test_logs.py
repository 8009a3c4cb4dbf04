"""jobctl logs: the past, the present, and the exact byte."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.daemon import PATIENCE_S, Jobctl, shell

pytestmark = pytest.mark.kernel

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "


def ended(user: Jobctl, script: str) -> str:
    job_id = user.start(*shell(script))
    user("wait", job_id)
    return job_id


def test_logs_are_what_run_showed(alice) -> None:
    job_id = ended(alice, "printf 'a\\000b'; echo err >&2; printf '\\377'")
    done = alice("logs", job_id)
    assert (done.code, done.out, done.err) == (0, b"a\0b\xff", "err\n")


def test_one_stream_alone(alice) -> None:
    job_id = ended(alice, "echo out; echo err >&2; echo out")
    assert alice("logs", "--stdout", job_id).err == ""
    assert alice("logs", "--stdout", job_id).out == b"out\nout\n"
    only = alice("logs", "--stderr", job_id)
    assert (only.out, only.err) == (b"", "err\n")


def test_the_exit_code_is_that_of_logs(alice) -> None:
    job_id = ended(alice, "exit 3")
    assert alice("logs", job_id).code == 0
    assert alice("logs", "-f", job_id).code == 0


def test_logs_of_a_running_job_end_with_what_there_is(alice) -> None:
    job_id = alice.start(*shell("echo now; sleep 600"))
    with alice.running("logs", "-f", job_id) as following:
        assert following.stdout.readline() == b"now\n"
        done = alice("logs", job_id)
        assert (done.code, done.out) == (0, b"now\n")
        assert following.poll() is None
        alice("stop", job_id)
        assert following.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("count", "out"),
    [("0", b""), ("1", b"c"), ("2", b"b\nc"), ("3", b"a\nb\nc"), ("99", b"a\nb\nc")],
)
def test_tail_takes_the_last_lines(alice, count: str, out: bytes) -> None:
    job_id = ended(alice, "printf 'a\\nb\\nc'")
    assert alice("logs", "--tail", count, job_id).out == out


def test_tail_of_a_million_lines(admin) -> None:
    job_id = ended(admin, "seq 1000000")
    assert admin("logs", "--tail", "3", job_id).out == b"999998\n999999\n1000000\n"


def test_since_leaves_out_what_is_older(alice) -> None:
    job_id = ended(alice, "echo old; sleep 1.5; echo new")
    job = alice.status(job_id)
    assert alice("logs", "--since", "1h", job_id).out == b"old\nnew\n"
    assert alice("logs", "--since", job["started_at"], job_id).out == b"old\nnew\n"
    stamped = alice("logs", "--timestamps", job_id).out
    later = stamped.splitlines()[1].split(b" ")[0].decode()
    assert alice("logs", "--since", later, job_id).out == b"new\n"
    assert alice("logs", "--since", job["ended_at"], job_id).out == b""


def test_timestamps_stand_before_each_line_of_each_stream(alice) -> None:
    job_id = ended(alice, "printf 'a\\nb'; printf 'err' >&2; echo c; echo 2 >&2")
    done = alice("logs", "--timestamps", job_id)
    assert re.fullmatch(STAMP + b"a\n" + STAMP + b"bc\n", done.out)
    assert re.fullmatch(STAMP + b"err2\n", done.err.encode())


def test_timestamps_tell_when_it_was_written(alice) -> None:
    job_id = ended(alice, "echo 1; sleep 0.5; echo 2; sleep 0.5; echo 3")
    lines = alice("logs", "--timestamps", job_id).out.splitlines()
    times = [line.split(b" ")[0] for line in lines]
    assert len(set(times)) == 3
    assert times == sorted(times)


def test_several_followers_see_the_same(alice) -> None:
    job_id = alice.start(*shell("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"))
    followers = [subprocess.Popen(alice.command("logs", "-f", job_id), stdout=-1) for _ in range(3)]
    for follower in followers:
        out, _ = follower.communicate(timeout=PATIENCE_S)
        assert (follower.returncode, out) == (0, b"1\n2\n3\n4\n5\n")


def test_a_reader_that_has_enough_ends_logs_quietly(admin) -> None:
    job_id = ended(admin, "seq 1000000")
    with admin.running("logs", job_id) as logs:
        assert logs.stdout.read(2) == b"1\n"
        logs.stdout.close()
        assert logs.wait(PATIENCE_S) == 141
        assert logs.stderr.read() == b""


def test_ctrl_c_leaves_the_job_alone(alice) -> None:
    job_id = alice.start(*shell("echo ready; sleep 600"))
    with alice.running("logs", "-f", job_id) as logs:
        assert logs.stdout.readline() == b"ready\n"
        logs.send_signal(2)
        assert logs.wait(PATIENCE_S) == 130
        assert logs.stderr.read() == b""
    assert alice.status(job_id)["state"] == "RUNNING"
    alice("stop", "--kill", job_id)


def test_what_the_limit_cut_off_is_marked(alice) -> None:
    options = ("--max-output", "3", "--on-output-limit", "discard")
    job_id = alice.start(*options, *shell("printf 12345"))
    alice("wait", job_id)
    done = alice("logs", job_id)
    assert done.out == b"123"
    assert done.err == "jobctl: 2 bytes of output were beyond the job's limit and not kept\n"


def test_logs_of_a_start_that_failed_are_empty(alice) -> None:
    alice("run", "--label=test=failed", "--", "/nonexistent")
    (job,) = alice("list", "--label=test=failed", "-o", "json").json
    assert job["ending"]["reason"] == "START_FAILED"
    done = alice("logs", "-f", job["id"])
    assert (done.code, done.out, done.err) == (0, b"", "")


@pytest.mark.parametrize(
    "options", [["--tail=-1"], ["--tail=x"], ["--since=yesterday"], ["-o", "json"]]
)
def test_faulty_options_are_told_in_one_line(alice, options: list[str]) -> None:
    done = alice("logs", "abc", *options)
    assert (done.code, done.err.count("\n")) == (125, 1)
    assert done.err.startswith("jobctl: cannot ")
