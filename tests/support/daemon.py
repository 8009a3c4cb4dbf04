"""A real installation: the daemon as a process, and the client's command against it.

Only installed commands are used, found beside the interpreter that runs the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobworker.kernel.process import open_pid
from support.guards import cgroup_mounts

BIN: Final = Path(sys.executable).parent
USERS: Final = ("alice", "bob")
ADMIN: Final = "root"
#: For everything that a test waits for: it ends a test that hangs, and nothing else depends on it.
PATIENCE_S: Final = 60.0
#: The jobs' users, which are others than ours, must be able to pass through.
_TRAVERSABLE: Final = 0o711
_READY = re.compile(r"jobworker: listening on \S*?:(?P<port>\d+) ")


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One installation.  Its service can be killed and started again at the same port."""

    directory: Path
    cgroup: str | None
    """The parent of its jobs' cgroups; ``None`` is below its own."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)
    """What the service has said on its standard error."""

    @property
    def config(self) -> Path:
        return self.directory / "jobworker.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def pki(self, name: str) -> Path:
        return self.directory / "pki" / name

    def start(self) -> None:
        """Returns when the service says that it is up."""
        listen = f"127.0.0.1:{self.port}"
        command = [f"{BIN}/jobworker", "serve", f"--config={self.config}", f"--listen={listen}"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        ready = threading.Event()
        thread = threading.Thread(target=self._read, args=(self.process, ready), daemon=True)
        thread.start()
        if not ready.wait(PATIENCE_S) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(f"the service did not come up:\n{''.join(self.log)}")

    def _read(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line.decode(errors="replace"))
                found = _READY.search(self.log[-1])
                if found is not None:
                    self.port = int(found["port"])
                    ready.set()
        ready.set()

    def kill(self) -> None:
        """As the kernel would: nothing of it can say goodbye."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """As an operator would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)
            self.process = None

    def restart(self) -> None:
        """Kill it, and start it again at the same port."""
        self.kill()
        self.start()

    def await_audited(self, method: str) -> None:
        """Returns once the service has let a call of this method in."""
        follow = ["tail", "-n", "+1", "-F", str(self.directory / "audit.log")]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
            assert tail.stdout is not None
            try:
                next(line for line in tail.stdout if f"/{method}".encode() in line)
            finally:
                tail.kill()

    def await_shim_gone(self, job_id: str) -> None:
        """Returns once a job is over and recorded, whether or not anybody serves."""
        record = json.loads((self.state / "jobs" / job_id / "shim.json").read_bytes())
        pidfd = open_pid(record["pid"])
        if pidfd is None:
            return
        try:
            assert select.select([pidfd], [], [], PATIENCE_S)[0]
        finally:
            os.close(pidfd)

    def client(self, user: str = USERS[0], **files: Path | str) -> Jobctl:
        """The command of one user.  files: others instead of the user's own."""
        options: dict[str, Path | str] = {
            "server": f"127.0.0.1:{self.port}",
            "ca": self.pki("ca.pem"),
            "cert": self.pki(f"{user}.pem"),
            "key": self.pki(f"{user}.key"),
        }
        return Jobctl(options=options | files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobctl:
    """``jobctl`` as one user."""

    options: Mapping[str, Path | str]

    def but_with(self, **files: Path | str) -> Jobctl:
        """The same with some options of the connection changed."""
        return Jobctl(options={**self.options, **files})

    def command(self, *args: str | bytes) -> list[str | bytes | Path]:
        given = [f"--{name}={value}" for name, value in self.options.items()]
        return [BIN / "jobctl", *given, *args]

    def __call__(self, *args: str | bytes, env: Mapping[str, str] | None = None) -> Done:
        """Run it to its end."""
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            env=None if env is None else {**os.environ, **env},
            check=False,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr.decode())

    @contextlib.contextmanager
    def running(
        self, *args: str | bytes, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run it beside the test, with pipes at its outputs; killed if it is left running."""
        with subprocess.Popen(
            self.command(*args),
            bufsize=0,  # or what is read by lines now would be missing from communicate() later
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def start(self, *args: str | bytes) -> str:
        """Start a job; its id."""
        done = self("start", *args)
        assert done.code == 0, done.err
        return done.out.decode().strip()

    def status(self, job_id: str) -> Any:
        """The job as JSON."""
        done = self("status", job_id, "-o", "json")
        assert done.code == 0, done.err
        return done.json

    def wait_ended(self, job_id: str) -> Any:
        """The job as JSON, once it has ended."""
        self("wait", job_id)
        return self.status(job_id)


def shell(script: str) -> Sequence[str]:
    """The end of a command line that runs a script."""
    return ("--", "sh", "-c", script)


@contextlib.contextmanager
def installation(*, cgroup: str | None = None) -> Iterator[Daemon]:
    """A new installation, not started; everything of it is gone after the block.

    cgroup: below which its jobs are put, in every tree.
    """
    # Not the tests' own temporary directory, which only its owner may enter.
    directory = Path(tempfile.mkdtemp(prefix="jobworker-e2e-", dir="/var/tmp"))
    directory.chmod(_TRAVERSABLE)
    daemon = Daemon(directory=directory / "installation", cgroup=cgroup)
    try:
        command = [f"{BIN}/jobworker", "init", f"--dir={daemon.directory}", f"--admin={ADMIN}"]
        command += [f"--user={user}" for user in USERS]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
        if cgroup is not None:
            text = daemon.config.read_text()
            changed = text.replace('cgroup_parent = "none"', f'cgroup_parent = "{cgroup}"')
            assert changed != text
            daemon.config.write_text(changed)
        yield daemon
    finally:
        _end_jobs(daemon)
        shutil.rmtree(directory)
        if cgroup is not None:
            _remove_cgroups(cgroup)


def _end_jobs(daemon: Daemon) -> None:
    """Jobs outlive the service, which is the point of them; here they must not."""
    if daemon.port and daemon.process is None and daemon.state.exists():
        daemon.start()
    if daemon.process is not None:
        admin = daemon.client(ADMIN)
        live = [job["id"] for job in admin("list", "-o", "json").json if job["ending"] is None]
        if live:
            admin("stop", "--kill", *live)
        daemon.terminate()


def _remove_cgroups(name: str) -> None:
    """The parent, in every tree: a service that was killed leaves it, and what it made there."""
    for mount in cgroup_mounts():
        # By os.walk, which bears with cgroups that others remove meanwhile.
        found = [path for path, _, _ in os.walk(mount) if Path(path).name == name]
        for path in found:
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()


@contextlib.contextmanager
def serving(*, cgroup: str | None = None) -> Iterator[Daemon]:
    """A new installation with its service running."""
    with installation(cgroup=cgroup) as daemon:
        daemon.start()
        yield daemon
