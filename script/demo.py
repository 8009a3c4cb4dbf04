"""The product in two minutes, for a stranger at a terminal.

Starts a daemon of its own on a loopback port, shows what it does by the commands that a user would
type, checks each claim it makes, and removes everything.  Run it by ``script/demo``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
#: No single step here takes longer on a slow machine.
STEP_S: Final = 60.0
#: Lines shown of one command's output.
SHOWN_LINES: Final = 14

_COLOURS: Final = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text: str = "", *, style: str = "") -> None:
    """One line for the reader; ``style`` is an ANSI attribute, used on a terminal only."""
    print(f"\033[{style}m{text}\033[0m" if style and _COLOURS else text, flush=True)


def indent(output: bytes) -> None:
    """Show what a command printed, cut in the middle where it is long."""
    lines = output.decode("utf-8", "replace").rstrip("\n").split("\n") if output else []
    if len(lines) > SHOWN_LINES:
        half = SHOWN_LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
    for line in lines:
        say("    " + "".join(char if char.isprintable() else "·" for char in line))


@dataclass
class Verdicts:
    """What was claimed, and whether it was so."""

    failed: list[str] = field(default_factory=list)
    count: int = 0

    def claim(self, text: str, *, holds: bool) -> None:
        self.count += 1
        if holds:
            say(f"  ✓ {text}", style="32")
        else:
            self.failed.append(text)
            say(f"  ✗ NOT SO: {text}", style="31")


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    """Did it come true in time?  For what tells nobody when it changes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # noqa: TID251 - see above
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_of(job: str) -> list[str]:
    """Pids of all the job's processes, wherever they hid: each has its id in the environment."""
    return _processes(
        lambda process: f"JOB_ID={job}".encode() in (process / "environ").read_bytes()
    )


def _processes(matches: Callable[[Path], bool]) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        # A process that is gone, or a zombie, which has neither.
        with contextlib.suppress(OSError):
            if process.name.isdigit() and matches(process):
                found.append(process.name)
    return found


def cgroup_of(pid: str) -> str:
    """The name of the cgroup below which the worker of this process has all of its jobs."""
    found = re.search(r"/(jobworker-\w+)/", Path(f"/proc/{pid}/cgroup").read_text())
    return found[1] if found else ""


@dataclass
class Daemon:
    """``jobworker serve``, in a folder that is removed with all that is in it."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    cgroup: str = ""
    """Name of the cgroup of all jobs, once it is known."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it says that it listens."""
        arguments = ["serve", "--config", str(self.home / "jobworker.toml")]
        # Whenever this script ends, by Ctrl-C too, its jobs end with it.
        arguments += ["--listen", self.address, "--shutdown", "stop"]
        say(f"  # {shlex.join(['jobworker', *arguments])}", style="1")
        with (self.home / "daemon.log").open("ab") as log:
            begins = log.tell()
            self.process = subprocess.Popen([BIN / "jobworker", *arguments], stderr=log)
        log_file = self.home / "daemon.log"

        def is_ready() -> bool:
            return b"listening on" in log_file.read_bytes()[begins:] or self._has_ended()

        if not until(is_ready, seconds=STEP_S) or self._has_ended():
            indent(log_file.read_bytes()[begins:])
            raise SystemExit("demo: cannot go on: the daemon did not start")
        ready = next(
            line for line in log_file.read_bytes()[begins:].split(b"\n") if b"listening on" in line
        )
        indent(ready)

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=STEP_S)


@dataclass
class Done:
    """A command of ``jobctl`` that has ended."""

    code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass
class User:
    """Somebody with a certificate."""

    name: str
    daemon: Daemon

    @property
    def environment(self) -> dict[str, str]:
        """Tells jobctl which service, and as whom: what a profile would hold."""
        pki = self.daemon.home / "pki"
        return {
            **{name: text for name, text in os.environ.items() if not name.startswith("JOBCTL_")},
            "JOBCTL_SERVER": self.daemon.address,
            "JOBCTL_CA": f"{pki / 'ca.pem'}",
            "JOBCTL_CERT": f"{pki / self.name}.pem",
            "JOBCTL_KEY": f"{pki / self.name}.key",
        }

    def show(self, *arguments: str) -> None:
        say(f"  {self.name}$ {shlex.join(['jobctl', *arguments])}", style="1")

    def quietly(self, *arguments: str) -> Done:
        began = time.monotonic()
        done = subprocess.run(
            [BIN / "jobctl", *arguments],
            env=self.environment,
            capture_output=True,
            timeout=STEP_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def types(self, *arguments: str) -> Done:
        """Show the command, run it, show what it printed."""
        self.show(*arguments)
        done = self.quietly(*arguments)
        indent(done.stdout)
        indent(done.stderr)
        return done

    def starts(self, *arguments: str) -> str:
        """Start a job; its id."""
        done = self.types("start", *arguments)
        if done.code != 0:
            raise SystemExit(f"demo: cannot go on: {done.text.strip()}")
        return done.stdout.decode().strip()


@dataclass
class Demo:
    """The acts, in order."""

    daemon: Daemon
    alice: User
    admin: User
    verdicts: Verdicts

    def heading(self, text: str) -> None:
        say()
        say(text, style="1;36")

    def claim(self, text: str, *, holds: bool) -> None:
        self.verdicts.claim(text, holds=holds)

    def run_a_command(self) -> None:
        self.heading("A command on the other side: its streams apart, its exit code as its own")
        done = self.alice.types(
            "run", "--", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"
        )
        self.claim("stdout came to stdout", holds=done.stdout == b"to stdout\n")
        self.claim("stderr came to stderr", holds=b"to stderr\n" in done.stderr)
        self.claim("the exit code is 3", holds=done.code == 3)

    def follow_from_everywhere(self) -> None:
        self.heading("One job, five followers at once, and a late one: every byte to each of them")
        rounds = "for i in 1 2 3 4 5; do seq 200000; sleep 0.3; done"
        job = self.alice.starts("--", "bash", "-c", f"{rounds} | tee copy; sha256sum <copy >&2")
        follow = ["logs", "-f", "--stdout", job]
        self.alice.show(*follow)
        with ThreadPoolExecutor() as pool:
            crowd = list(pool.map(lambda _: self.alice.quietly(*follow), range(5)))
        late = self.alice.quietly(*follow)
        truth = self.alice.types("logs", "--stderr", job).text.split()
        for name, done in [*((f"client {n}", d) for n, d in enumerate(crowd, 1)), ("late", late)]:
            digest = hashlib.sha256(done.stdout).hexdigest()
            say(f"    {name:9} {len(done.stdout):>9} bytes  {digest}")
        sums = {hashlib.sha256(done.stdout).hexdigest() for done in (*crowd, late)}
        self.claim(
            "six checksums, all equal to the one the job made itself", holds=sums == set(truth[:1])
        )

    def keep_to_oneself(self) -> None:
        self.heading("A user sees what is theirs, and an admin everything")
        secret = self.admin.starts("--name", "secret", "--", "sleep", "60")
        hidden = self.alice.types("status", secret)
        absent = self.alice.types("status", secret[::-1])
        same = hidden.text.replace(secret, "ID") == absent.text.replace(secret[::-1], "ID")
        self.claim("the admin's job and no job at all look the same to alice", holds=same)
        refused = self.alice.types("run", "--memory", "8G", "--", "true")
        self.claim("alice may not choose limits of her own", holds=refused.code == 125)
        key, journal = self.daemon.home / "pki/ca.key", self.daemon.home / "state/journal.sqlite"
        prying = self.alice.types("run", "--", "cat", str(key), str(journal))
        self.claim("her job cannot read the service's keys and records", holds=not prying.stdout)
        mine = self.alice.starts("--name", "mine", "--", "sleep", "60")
        listed = self.admin.types("list", "--state", "running")
        self.claim(
            "the admin sees both jobs", holds=all(i[:8] in listed.text for i in (secret, mine))
        )
        for job in (secret, mine):
            self.admin.quietly("stop", "--kill", job)

    def hold_the_cpu(self) -> None:
        self.heading("A CPU limit bites")
        spin = "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done"
        job = self._limited("--cpu", "0.2", "--", "sh", "-c", spin)
        if job is None:
            return
        self.admin.quietly("wait", job)
        self.admin.types("status", job)
        told = json.loads(self.admin.quietly("-o", "json", "status", job).stdout)
        began, ended = (datetime.fromisoformat(told[name]) for name in ("started_at", "ended_at"))
        share = told["usage"]["cpu_seconds"] / (ended - began).total_seconds()
        self.claim(f"it got {share:.2f} of a CPU", holds=0 < share < 0.3)

    def hold_the_memory(self) -> None:
        self.heading("A memory limit bites, and the ending says so")
        # It looks for the last line, and there is no end of the first one.
        job = self._limited("--memory", "64M", "--", "tail", "/dev/zero")
        if job is None:
            return
        self.admin.quietly("wait", job)
        told = self.admin.types("status", job)
        self.claim("the job was ended as OOM_KILLED", holds="oom" in told.text.lower())

    def hold_the_disk(self) -> None:
        self.heading("A disk limit bites: 16 MB at 8 MB a second")
        write = ["dd", "if=/dev/zero", "of=file", "bs=1M", "count=16", "oflag=direct"]
        job = self._limited("--io-write", "8M", "--", *write)
        if job is None:
            return
        told = self.admin.types("logs", "-f", job).text
        rate = re.search(r"(\d+) bytes.*copied, ([\d.]+) s", told)
        per_second = int(rate[1]) / float(rate[2]) if rate else 0.0
        self.claim(f"measured {per_second / 1e6:.1f} MB/s", holds=0 < per_second < 8 * 2**20 * 1.5)

    def _limited(self, *arguments: str) -> str | None:
        """Start a job with a limit; ``None``, said aloud, where this host cannot enforce it."""
        done = self.admin.types("start", *arguments)
        if done.code == 0:
            return done.stdout.decode().strip()
        refused = "on this host" in done.text
        self.claim("the limit cannot be enforced here, and the job was refused", holds=refused)
        return None

    def stop_the_stubborn(self) -> None:
        self.heading("Stop ends everything: SIGTERM ignored, children in sessions of their own")
        stubborn = 'trap "" TERM; setsid sleep 600 & setsid setsid sleep 600 & wait'
        job = self.alice.starts("--", "bash", "-c", stubborn)
        until(lambda: len(processes_of(job)) == 3)
        processes = processes_of(job)
        say(f"    processes: {' '.join(processes)}")
        self.daemon.cgroup = cgroup_of(processes[0])
        done = self.alice.types("stop", "--grace", "1s", job)
        self.claim("stopped after the grace period", holds=done.code == 0 and done.seconds >= 1)
        self.claim("no process of it is left", holds=processes_of(job) == [])

    def kill_the_daemon(self) -> None:
        self.heading("kill -9 of the daemon, in the middle of a job and of a follower's stream")
        ticks = "for i in $(seq 1 20); do echo tick $i; sleep 0.2; done; exit 42"
        job = self.alice.starts("--", "bash", "-c", ticks)
        follow = ["logs", "-f", job]
        self.alice.show(*follow)
        follower = subprocess.Popen(
            [BIN / "jobctl", *follow],
            env=self.alice.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or communicate() below passes over what readline() took too much
        )
        assert self.daemon.process is not None
        assert follower.stdout is not None
        first = follower.stdout.readline()
        say(f"  # kill -9 {self.daemon.process.pid}", style="1")
        self.daemon.end(signal.SIGKILL)
        self.claim("the job goes on without it", holds=processes_of(job) != [])
        self.daemon.start()
        rest, talk = follower.communicate(timeout=STEP_S)
        indent(talk)
        indent(first + rest)
        expected = "".join(f"tick {i}\n" for i in range(1, 21)).encode()
        self.claim(
            "the follower picked up where it was: every line once", holds=first + rest == expected
        )
        self.claim(
            "the whole output is there", holds=self.alice.quietly("logs", job).stdout == expected
        )
        waited = self.alice.types("wait", job)
        self.claim("the exit code too: 42", holds=waited.code == 42)

    def leave_nothing(self) -> None:
        self.heading("Nothing stays behind")
        self.daemon.end(signal.SIGTERM)
        home = str(self.daemon.home)

        def is_ours(process: Path) -> bool:
            return any(str(fd.readlink()).startswith(home) for fd in (process / "fd").iterdir())

        gone = until(lambda: _processes(is_ours) == [])
        self.claim("no process of daemon, launcher or shims is left", holds=gone)
        name = self.daemon.cgroup
        left = [path for path, _, _ in os.walk("/sys/fs/cgroup") if name in Path(path).parts]
        indent("\n".join(left).encode())
        self.claim("no cgroup is left", holds=name != "" and left == [])

    def play(self) -> None:
        self.run_a_command()
        self.follow_from_everywhere()
        self.keep_to_oneself()
        self.hold_the_cpu()
        self.hold_the_memory()
        self.hold_the_disk()
        self.stop_the_stubborn()
        self.kill_the_daemon()
        self.leave_nothing()


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder that is gone afterwards; jobs of other accounts may pass through it, not look."""
    folder = Path(tempfile.mkdtemp(prefix="jobworker-demo-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        say(f"    removed {folder}")


def main() -> int:
    verdicts = Verdicts()
    with home() as folder:
        daemon = Daemon(home=folder, port=free_port())
        say("Certificates for a server, a user and an admin, and a daemon", style="1;36")
        init = ["init", "--dir", str(folder), "--host", "127.0.0.1"]
        say(f"  # {shlex.join(['jobworker', *init])}", style="1")
        done = subprocess.run([BIN / "jobworker", *init], capture_output=True, check=False)
        # The rest tells how to go on, which is what this script does.
        indent(done.stdout.split(b"\n\n")[0] + done.stderr)
        if done.returncode != 0:
            return 1
        try:
            daemon.start()
            say(
                "    (alice and admin have JOBCTL_SERVER, _CA, _CERT and _KEY in their environment)"
            )
            demo = Demo(daemon, User("alice", daemon), User("admin", daemon), verdicts)
            demo.play()
        finally:
            daemon.end(signal.SIGTERM)
    say()
    if verdicts.failed:
        say(f"{len(verdicts.failed)} of {verdicts.count} claims did not hold:", style="31")
        for text in verdicts.failed:
            say(f"  {text}")
        return 1
    say(f"All {verdicts.count} claims held; nothing is left on this machine.", style="32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
