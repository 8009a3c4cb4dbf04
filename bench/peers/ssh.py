"""OpenSSH on a loopback port: its own daemon, configuration and keys, ECDSA and AES-128-GCM."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import background, run

_READY_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """A running sshd and how to reach it."""

    directory: Path

    def cold(self, *command: str) -> list[str]:
        """A connection of its own."""
        return [
            "ssh",
            f"-F{self.directory / 'ssh_config'}",
            "-oControlPath=none",
            "host",
            *command,
        ]

    def warm(self, *command: str) -> list[str]:
        """Over the connection that stands."""
        return ["ssh", f"-F{self.directory / 'ssh_config'}", "host", *command]


@contextlib.contextmanager
def ssh_server(directory: Path) -> Iterator[Ssh]:
    """sshd and one standing connection (ControlMaster), both ended after the block."""
    directory.mkdir(mode=0o700)
    for name in ("host_key", "key"):
        run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", directory / name])
    shutil.copy(directory / "key.pub", directory / "authorized")
    port = free_port()
    _write_configs(directory, port)
    # Compiled into sshd; it does not start without.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "sshd_config")]
    with background(sshd, stderr=subprocess.DEVNULL):
        wait_port(port)
        ssh = Ssh(directory=directory)
        master = ["ssh", f"-F{directory / 'ssh_config'}", "-M", "-N", "host"]
        with background(master, stdin=subprocess.DEVNULL):
            deadline = time.monotonic() + _READY_S
            while not (directory / "control").exists():
                if time.monotonic() > deadline:
                    raise SystemExit("bench: cannot log in at our own sshd")
                time.sleep(0.05)  # noqa: TID251 -- it tells nobody when it is ready
            run(ssh.warm("true"))
            yield ssh
    shutil.rmtree(directory)


def _write_configs(directory: Path, port: int) -> None:
    host_key = (directory / "host_key.pub").read_text()
    (directory / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (directory / "sshd_config").write_text(
        f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory / "host_key"}
AuthorizedKeysFile {directory / "authorized"}
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxSessions 64
# bash reads ~/.bashrc for sshd, and what people have in theirs is not what is measured.
SetEnv HOME={directory}
"""
    )
    (directory / "ssh_config").write_text(
        f"""\
Host host
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {directory / "key"}
  IdentitiesOnly yes
  UserKnownHostsFile {directory / "known"}
  GlobalKnownHostsFile none
  HostKeyAlgorithms ecdsa-sha2-nistp256
  KexAlgorithms ecdh-sha2-nistp256
  Ciphers aes128-gcm@openssh.com
  ControlPath {directory / "control"}
  ControlMaster no
  LogLevel ERROR
"""
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_port(port: int) -> None:
    """Until somebody listens."""
    deadline = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: cannot reach port {port}")
        time.sleep(0.05)  # noqa: TID251 -- it tells nobody when it is ready
