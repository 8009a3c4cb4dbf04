"""jobctl run: the bytes, the exit code and the manners of the command itself."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess

import pytest

from support.daemon import PATIENCE_S, shell

pytestmark = pytest.mark.kernel


# -- exit codes


@pytest.mark.parametrize("code", [0, 1, 3, 124, 125, 127, 255])
def test_the_exit_code_is_the_commands(alice, code: int) -> None:
    done = alice("run", *shell(f"exit {code}"))
    assert (done.code, done.out, done.err) == (code, b"", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, 34])
def test_a_signal_gives_128_more_and_one_line(alice, number: int) -> None:
    done = alice("run", *shell(f"kill -{int(number)} $$"))
    assert done.code == 128 + number
    assert done.err.startswith("jobctl: job ")
    assert done.err.count("\n") == 1
    assert f"signal {int(number)}" in done.err


def test_the_time_limit_gives_124(alice) -> None:
    done = alice("run", "--timeout", "300ms", "--", "sleep", "60")
    assert done.code == 124
    assert "time limit of 0.3 s" in done.err


def test_want_of_memory_gives_137_and_says_so(admin) -> None:
    done = admin("run", "--memory", "20M", "--", "awk", 'BEGIN { s = "x"; while (1) s = s s }')
    assert done.code == 137
    assert "killed by the kernel: out of memory" in done.err
    assert "its own limit of 20M" in done.err


def test_too_much_output_gives_137_and_keeps_what_is_allowed(alice) -> None:
    done = alice("run", "--max-output", "1000", *shell("yes"))
    assert done.code == 137
    assert done.out == b"y\n" * 500
    assert "output limit of 1000 bytes" in done.err


def test_output_that_is_thrown_away_is_marked(alice) -> None:
    options = ("--max-output", "10", "--on-output-limit", "discard")
    done = alice("run", *options, *shell("printf 0123456789abcde"))
    assert (done.code, done.out) == (0, b"0123456789")
    assert done.err == "jobctl: 5 bytes of output were beyond the job's limit and not kept\n"


def test_a_stop_by_somebody_else_is_never_success(alice, admin) -> None:
    with alice.running("run", *shell("trap 'exit 0' TERM; echo $JOB_ID; sleep 60 & wait")) as run:
        job_id = run.stdout.readline().decode().strip()
        admin("stop", job_id)
        _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 143
    assert b"stopped by 'root'" in err


# -- bytes


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("true", b""),
        ("printf x", b"x"),
        ("printf 'a\\nb'", b"a\nb"),
        ("printf '\\000\\377\\376\\r\\n\\033[2J'", b"\0\xff\xfe\r\n\x1b[2J"),
        ("head -c 1048576 /dev/zero | tr '\\0' x; echo", b"x" * 1048576 + b"\n"),
    ],
    ids=["nothing", "no newline", "no last newline", "not text", "a line of 1 MiB"],
)
def test_bytes_arrive_as_they_were_written(alice, script: str, out: bytes) -> None:
    done = alice("run", *shell(script))
    assert (done.code, done.out, done.err) == (0, out, "")


def test_the_two_streams_stay_apart(alice) -> None:
    done = alice("run", *shell("echo out; echo err >&2; echo out; printf err >&2"))
    assert (done.code, done.out, done.err) == (0, b"out\nout\n", "err\nerr")


def test_fifty_megabytes_arrive_whole_live_and_later(admin) -> None:
    script = "head -c 50000000 /dev/urandom >data; sha256sum <data >&2; cat data; echo $JOB_ID >&2"
    done = admin("run", *shell(script))
    assert done.code == 0
    digest, job_id = done.err.split()[0], done.err.split()[-1]
    assert len(done.out) == 50_000_000
    assert hashlib.sha256(done.out).hexdigest() == digest
    later = admin("logs", "--stdout", job_id)
    assert hashlib.sha256(later.out).hexdigest() == digest


def test_output_comes_while_the_command_runs(alice) -> None:
    with alice.running("run", *shell("echo first; read wait <fifo || sleep 60")) as run:
        assert run.stdout.readline() == b"first\n"
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=PATIENCE_S)


def test_what_a_background_process_still_writes_is_not_waited_for(alice) -> None:
    """The job ends with its main process; what it leaves behind is killed."""
    done = alice("run", *shell("(sleep 60; echo late) & echo early"))
    assert (done.code, done.out) == (0, b"early\n")


# -- arguments


def test_every_argument_arrives_as_it_stands(alice) -> None:
    words = ["", " ", "--", "-h", "--server", "a b", "$HOME", "*", "'", "\n", "ü€😀", "\x1b[0m"]
    done = alice("run", "--", "printf", r"<%s>", *words)
    assert done.out.decode() == "".join(f"<{word}>" for word in words)


def test_ten_thousand_arguments(alice) -> None:
    done = alice("run", "--", "sh", "-c", 'echo $# "$10000"', "sh", *map(str, range(1, 10_001)))
    assert done.out == b"10000 10000\n" or done.out.startswith(b"10000 ")


def test_without_dashes_the_command_begins_at_the_first_word(alice) -> None:
    assert alice("run", "echo", "-n", "--", "x").out == b"-- x"


def test_an_argument_that_is_not_utf8_is_refused_clearly(alice) -> None:
    done = alice("run", "--", "echo", b"\xff\xfe")
    assert done.code == 125
    assert "not valid Unicode" in done.err
    assert done.err.count("\n") == 1


def test_environment_directory_and_name_reach_the_job(alice) -> None:
    options = ("--env", "GREETING=hello world", "--cwd", "/usr", "--name", "n", "--label", "k=v")
    done = alice("run", *options, *shell('echo "$GREETING"; pwd'))
    assert done.out == b"hello world\n/usr\n"


def test_nothing_of_the_callers_environment_reaches_the_job(alice) -> None:
    done = alice("run", "--", "env", env={"SECRET": "1"})
    assert b"PATH=" in done.out
    assert b"SECRET" not in done.out


# -- commands that cannot be run


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("/nonexistent", 127, "No such file"),
        ("nonexistent-command", 127, "no such program in PATH"),
        ("/etc", 126, "Permission denied"),
        ("/etc/passwd", 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run(alice, command: str, code: int, reason: str) -> None:
    done = alice("run", "--", command)
    assert done.code == code
    assert done.err.startswith("jobctl: cannot start the command: ")
    assert reason in done.err
    assert command in done.err


def test_a_working_directory_that_is_not_there(alice) -> None:
    done = alice("run", "--cwd", "/nonexistent", "--", "true")
    assert done.code == 125
    assert "/nonexistent" in done.err


# -- limits


@pytest.mark.parametrize(
    "option",
    ["--cpu=1", "--memory=64M", "--pids=9", "--io-read=1M", "--io-write=1M", "--io-read-iops=9",
     "--io-write-iops=9"],
)  # fmt: skip
def test_a_standard_user_may_set_no_limits(alice, option: str) -> None:
    done = alice("run", option, "--", "true")
    assert done.code == 125
    assert done.err == "jobctl: cannot start a job with limits of its own: the role user may not\n"


@pytest.mark.parametrize(
    "option",
    ["--cpu=0", "--cpu=-1", "--cpu=9999999", "--memory=0", "--memory=-1", "--memory=1",
     "--memory=99999999P", "--pids=0", "--pids=99999999999", "--io-write=0",
     "--io-read-iops=99999999999", "--timeout=0", "--timeout=-5", "--max-output=x"],
)  # fmt: skip
def test_absurd_limits_are_refused_in_one_line(admin, option: str) -> None:
    done = admin("run", option, "--", "true")
    assert done.code == 125
    assert done.err.startswith("jobctl: cannot use ")
    assert done.err.count("\n") == 1


def test_an_admin_sets_limits_and_sees_them_in_force(admin) -> None:
    job_id = admin.start("--cpu=0.25", "--memory=64M", "--pids=50", "--io-write=5M", *shell(":"))
    limits = admin.wait_ended(job_id)["limits"]
    assert limits["requested"]["cpu_millis"] == 250
    effective = {limit["resource"]: limit for limit in limits["effective"]}
    assert effective["CPU"]["effective"] == 250
    assert effective["MEMORY"]["effective"] == 64 << 20
    assert effective["TASKS"]["effective"] == 50
    assert effective["IO_WRITE_BYTES"]["effective"] == 5 << 20
    assert effective["IO_WRITE_BYTES"]["device"]


# -- the same start again


def test_a_request_id_starts_one_job_only(alice) -> None:
    first = alice.start("--request-id", "only-once", *shell("echo hi"))
    assert alice.start("--request-id", "only-once", *shell("echo hi")) == first
    again = alice("run", "--request-id", "only-once", *shell("echo hi"))
    assert (again.code, again.out) == (0, b"hi\n")
    other = alice("start", "--request-id", "only-once", *shell("echo other"))
    assert other.code == 125
    assert "an earlier request with this id asked for something else" in other.err


def test_detach_is_start(alice) -> None:
    done = alice("run", "--detach", *shell("echo hi"))
    assert done.code == 0
    assert alice.wait_ended(done.out.decode().strip())["ending"]["exit_code"] == 0


# -- signals


READY_AND_TRAP = "trap 'echo caught; exit 5' TERM; echo ready $JOB_ID; sleep 60 & wait"
READY_AND_IGNORE = "trap '' TERM; echo ready $JOB_ID; sleep 60; sleep 60"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_job_and_its_last_words_are_heard(alice, number: int) -> None:
    with alice.running("run", *shell(READY_AND_TRAP)) as run:
        job_id = run.stdout.readline().decode().split()[1]
        run.send_signal(number)
        out, err = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, out) == (5, b"caught\n")
    assert err.startswith(b"jobctl: stopping the job; once more leaves it alone\n")
    ending = alice.status(job_id)["ending"]
    assert (ending["reason"], ending["stopped_by"]) == ("STOPPED", "alice")


def test_a_second_ctrl_c_leaves_the_job_alone(alice) -> None:
    with alice.running("run", *shell(READY_AND_IGNORE)) as run:
        job_id = run.stdout.readline().decode().split()[1]
        run.send_signal(signal.SIGINT)
        assert run.stderr.readline() == b"jobctl: stopping the job; once more leaves it alone\n"
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, out) == (130, b"")
    assert f"to go on: jobctl logs -f {job_id}" in err.decode()
    alice("stop", "--kill", job_id)


def test_an_ignored_hangup_stays_ignored(alice) -> None:
    """As under nohup(1)."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with alice.running("run", *shell("echo ready; sleep 0.3; echo done")) as run:
            assert run.stdout.readline() == b"ready\n"
            run.send_signal(signal.SIGHUP)
            out, err = run.communicate(timeout=PATIENCE_S)
    finally:
        signal.signal(signal.SIGHUP, earlier)
    assert (run.returncode, out, err) == (0, b"done\n", b"")


def test_ctrl_c_is_heard_while_nobody_reads_the_output(alice) -> None:
    """The write that waits for the reader must not hold it up."""
    with alice.running("run", *shell("echo $JOB_ID; exec yes")) as run:
        job_id = run.stdout.readline().decode().strip()
        run.send_signal(signal.SIGINT)
        assert run.stderr.readline().startswith(b"jobctl: stopping the job")
        assert alice.wait_ended(job_id)["ending"]["reason"] == "STOPPED"
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE_S) == 130


def test_a_closed_pipe_stops_the_job_quietly(alice) -> None:
    with alice.running("run", *shell("echo $JOB_ID; exec yes")) as run:
        job_id = run.stdout.readline().decode().strip()
        run.stdout.close()
        assert run.wait(PATIENCE_S) == 141
        assert run.stderr.read() == b""
    assert alice.wait_ended(job_id)["ending"]["reason"] == "STOPPED"


def test_a_full_disk_behind_stdout_is_told(alice) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with alice.running("run", *shell("echo hi; sleep 60"), stdout=full) as run:
            _, err = run.communicate(timeout=PATIENCE_S)
    finally:
        os.close(full)
    assert run.returncode == 125
    assert err == b"jobctl: cannot write to standard output: No space left on device\n"


def test_run_takes_no_json(alice) -> None:
    done = alice("run", "-o", "json", *shell("echo hi"))
    assert (done.code, done.out) == (125, b"")
    assert done.err.count("\n") == 1


def test_a_terminal_that_does_not_block_loses_nothing(alice) -> None:
    """Somebody who shares the descriptor may have made it non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with alice.running("run", *shell("head -c 1000000 /dev/zero"), stdout=writer) as run:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert len(pipe.read()) == 1_000_000
        assert run.wait(PATIENCE_S) == 0


def test_stdin_is_not_taken(alice) -> None:
    done = subprocess.run(
        alice.command("run", "--", "cat"),
        input=b"typed\n",
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
