"""crun, podman and conmon, doing what we do: a command with limits on CPU, memory, tasks and IO.

The root file system has one program and what it needs.  Limits are those of our standard user.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT, Helper, name_of, open_helper, run

ENTER: Final = ROOT / "bench" / "helpers" / "enter-legacy"
_PROGRAMS: Final = ("/bin/true", "/bin/sleep")
_MEMORY: Final = 256 << 20
_IO: Final = 20 << 20
_TASKS: Final = 128
_CPU: Final = 0.5
#: Killed processes are gone by then.
_GONE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """Ready to run containers with the command ``true`` or ``sleep``."""

    directory: Path
    cgroup: str

    def crun(self, bundle: str = "limited") -> list[str]:
        manager = "disabled" if bundle == "free" else "cgroupfs"
        root = [f"--root={self.directory / 'crun'}", f"--cgroup-manager={manager}"]
        # The name is that of its cgroup too, in which there is room for one.
        name = f"{self.cgroup[1:]}-{{n}}"
        return ["crun", *root, "run", f"--bundle={self.directory / bundle}", name]

    def podman(self, *arguments: str) -> list[str]:
        at = self.directory / "podman"
        places = [f"--root={at / 'root'}", f"--runroot={at / 'run'}", f"--tmpdir={at / 'tmp'}"]
        how = ["--cgroup-manager=cgroupfs", "--runtime=crun", "--storage-driver=vfs"]
        return ["podman", *places, *how, "--events-backend=none", *arguments]

    def podman_run(self, *argv: str, detach: bool = False) -> list[str]:
        limits = [f"--cpus={_CPU}", f"--memory={_MEMORY}", f"--pids-limit={_TASKS}"]
        limits += [f"--device-read-bps={disk()}:{_IO}", f"--device-write-bps={disk()}:{_IO}"]
        # Its own values for these are more than a host without CAP_SYS_RESOURCE gives.
        bounds = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        rest = ["--network=none", f"--cgroup-parent={self.cgroup}", "--log-driver=k8s-file"]
        how = "--detach" if detach else "--rm"
        rootfs = ["--rootfs", str(self.directory / "rootfs")]
        return self.podman("run", how, *limits, *bounds, *rest, *rootfs, *argv)

    @contextlib.asynccontextmanager
    async def spawner(self) -> AsyncIterator[Helper]:
        """Where the commands run; times them."""
        program = ROOT / "bench" / "helpers" / "spawner.py"
        async with open_helper(ENTER, sys.executable, "-I", "-S", program) as helper:
            yield helper


@contextlib.contextmanager
def containers(directory: Path) -> Iterator[Containers]:
    """Bundles and a root file system; all containers and their cgroups are gone afterwards."""
    directory.mkdir()
    rootfs = directory / "rootfs"
    _make_rootfs(rootfs)
    cgroup = f"/jobworker-bench-{os.getpid()}"
    peers = Containers(directory=directory, cgroup=cgroup)
    for bundle in ("limited", "free"):
        _make_bundle(directory / bundle, rootfs, has_cgroup=bundle == "limited")
    before = _libpod_cgroups()
    try:
        yield peers
    finally:
        if (directory / "podman").exists():
            subprocess.run(
                [ENTER, *peers.podman("rm", "--all", "--force", "--time=0")],
                capture_output=True,
                check=False,
            )
        _remove_cgroups(cgroup, keep=before)
        shutil.rmtree(directory, ignore_errors=True)


def conmons() -> list[int]:
    """Pids of all conmon processes on this machine."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if name_of(pid) == "conmon" and Path(f"/proc/{pid}/exe").exists()]


def disk() -> Path:
    """The disk that the bundles are on, by its device file."""
    device = ROOT.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    whole = name.parent if (name / "partition").exists() else name
    return Path("/dev") / whole.name


def _make_rootfs(rootfs: Path) -> None:
    for folder in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (rootfs / folder).mkdir(parents=True)
    needed = set()
    for program in _PROGRAMS:
        shutil.copy(program, rootfs / "bin")
        needed |= set(re.findall(r"(/\S+)", run(["ldd", program])))
    for library in needed:
        (rootfs / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(library).resolve(), rootfs / library[1:])


def _make_bundle(bundle: Path, rootfs: Path, *, has_cgroup: bool) -> None:
    bundle.mkdir()
    run(["crun", "spec"], cwd=bundle)
    file = bundle / "config.json"
    spec: dict[str, Any] = json.loads(file.read_text())
    spec["process"] |= {"args": ["/bin/true"], "terminal": False}
    spec["process"].pop("rlimits", None)
    spec["root"] = {"path": str(rootfs), "readonly": True}
    spec["linux"].pop("resources", None)
    if not has_cgroup:
        spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/sys/fs/cgroup"]
    else:
        number = disk().stat().st_rdev
        throttle = [{"major": os.major(number), "minor": os.minor(number), "rate": _IO}]
        spec["linux"]["resources"] = {
            "memory": {"limit": _MEMORY},
            "cpu": {"quota": int(_CPU * 100_000), "period": 100_000},
            "pids": {"limit": _TASKS},
            "blockIO": {
                "throttleReadBpsDevice": throttle,
                "throttleWriteBpsDevice": throttle,
            },
        }
    file.write_text(json.dumps(spec))


def _libpod_cgroups() -> set[Path]:
    return set(Path("/sys/fs/cgroup").glob("*/libpod_parent"))


def _remove_cgroups(cgroup: str, *, keep: set[Path]) -> None:
    """With what runs in them; a process that was killed keeps its cgroup busy for a moment."""
    deadline = time.monotonic() + _GONE_S
    while made := _made_cgroups(cgroup) - keep:
        for top in made:
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    _remove_cgroup(Path(path))
        if time.monotonic() > deadline:
            print(f"bench: cannot remove {sorted(map(str, made))}", file=sys.stderr)
            return
        time.sleep(0.02)  # noqa: TID251 -- v1 tells nobody when a cgroup is empty


def _made_cgroups(cgroup: str) -> set[Path]:
    root = Path("/sys/fs/cgroup")
    return {*root.glob(f"*{cgroup}*"), *root.glob(f"{cgroup[1:]}*"), *_libpod_cgroups()}


def _remove_cgroup(path: Path) -> None:
    for pid in (path / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    path.rmdir()
