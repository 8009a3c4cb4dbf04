"""What a hostile job tries.  Runs as the job itself: standard library only, nothing of ours.

Its argument is a JSON object of targets; it prints one JSON object, ``{attempt: what came of it}``:
the name of the errno that refused it, or ``"succeeded"``.
"""

# System calls by their own names are the subject here:
# ruff: noqa: PTH102, PTH110, PTH112, PTH120, PTH123, PTH207, PTH211

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial

TARGETS = json.loads(sys.argv[1])
SUCCEEDED = "succeeded"
libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
PTRACE_ATTACH = 16
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
CAPABILITY_VERSION_3 = 0x20080522

results: dict[str, object] = {}


def attempt(name: str, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        results[name] = errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:  # what resource.setrlimit makes of EPERM
        results[name] = f"ValueError: {error}"
    else:
        results[name] = SUCCEEDED


def call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def write(path: str, text: str = "0") -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def try_secrets() -> None:
    for path in TARGETS["directories"]:
        attempt(f"list {path}", partial(os.listdir, path))
        attempt(f"make a file in {path}", partial(write_new, f"{path}/planted"))
        attempt(f"rename {path}", partial(os.rename, path, f"{path}.moved"))
    for path in TARGETS["files"]:
        attempt(f"read {path}", partial(read, path))
        attempt(f"write {path}", partial(write, path))
        attempt(f"remove {path}", partial(os.unlink, path))
        attempt(f"link {path}", partial(os.link, path, "linked"))


def open_and_close(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def write_new(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def try_processes() -> None:
    for name, pid in {**TARGETS["processes"], "own shim": os.getppid()}.items():
        for file in ("environ", "mem", "maps", "io"):
            attempt(f"read {file} of {name}", partial(read, f"/proc/{pid}/{file}"))
        for link in ("root", "cwd", "exe"):
            attempt(f"follow {link} of {name}", partial(os.readlink, f"/proc/{pid}/{link}"))
        attempt(f"list descriptors of {name}", partial(os.listdir, f"/proc/{pid}/fd"))
        attempt(f"write oom_score_adj of {name}", partial(write, f"/proc/{pid}/oom_score_adj"))
        attempt(f"trace {name}", partial(call, libc.ptrace, PTRACE_ATTACH, pid, 0, 0))
        for number in (0, signal.SIGTERM, signal.SIGSTOP, signal.SIGUSR1):
            attempt(f"send signal {int(number)} to {name}", partial(os.kill, pid, number))
        attempt(f"signal the group of {name}", partial(os.kill, -pid, 0))
        attempt(f"change the limits of {name}", partial(limit_other, pid))
        attempt(f"renice {name}", partial(os.setpriority, os.PRIO_PROCESS, pid, 5))


def limit_other(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))


def try_cgroups() -> None:
    """Every file of every cgroup on the way from its own to the root, in every tree."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    trees = [fields[1] for fields in mounts if fields[2] in ("cgroup", "cgroup2")]
    with open("/proc/self/cgroup") as file:
        paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    seen, tried = set(), 0
    for tree in trees:
        for path in paths:
            folder = os.path.normpath(f"{tree}/{path}")
            while folder.startswith(tree) and folder not in seen:
                seen.add(folder)
                for name in glob.glob(f"{folder}/*"):
                    if not os.path.isdir(name):
                        tried += 1
                        try_control_file(name)
                if os.path.isdir(folder):
                    attempt(f"make a cgroup in {folder}", partial(os.mkdir, f"{folder}/mine"))
                folder = os.path.dirname(folder)
    results["cgroup files tried"] = tried


def try_control_file(file: str) -> None:
    name = f"open {file} for writing"
    attempt(name, partial(open_and_close, file, os.O_WRONLY))
    if results[name] in ("EACCES", "EPERM"):
        del results[name]  # hundreds of them


def try_privileges() -> None:
    attempt("setuid 0", lambda: os.setuid(0))
    attempt("setresuid 0", lambda: os.setresuid(0, 0, 0))
    attempt("setgid 0", lambda: os.setgid(0))
    attempt("setgroups", lambda: os.setgroups([0]))
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), 8)
    everything = ctypes.create_string_buffer(b"\xff" * 24, 24)
    attempt("capset", lambda: call(libc.syscall, SYS_CAPSET, header, everything))
    attempt("chroot", lambda: os.chroot("."))
    attempt("mount", lambda: call(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None))
    attempt("umount", lambda: call(libc.umount2, b"/proc", 2))
    attempt("unshare mounts", lambda: call(libc.unshare, CLONE_NEWNS))
    attempt("mknod", lambda: os.mknod("disk", 0o60600, os.makedev(*TARGETS["disk"])))
    attempt("sethostname", lambda: call(libc.sethostname, b"mine", 4))
    attempt("real-time priority", lambda: os.sched_setscheduler(0, 1, os.sched_param(1)))
    attempt("nice", lambda: os.nice(-5))
    attempt("oom_score_adj", lambda: write("/proc/self/oom_score_adj", "-1000"))
    attempt("core dumps", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    attempt("open files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most + 1)))
    for path in ("/dev/mem", "/dev/kmsg", "/proc/kcore", "/proc/sysrq-trigger", "/etc/shadow"):
        if os.path.exists(path):
            attempt(f"open {path}", partial(open_and_close, path, os.O_RDWR))
    for path in glob.glob("/dev/[vsu][dbd][a-z]*"):
        attempt(f"open {path}", partial(open_and_close, path, os.O_RDONLY))
    attempt("write core_pattern", lambda: write("/proc/sys/kernel/core_pattern", "core"))
    program = TARGETS["set_user_id"]
    uid = subprocess.run([program, "-u"], capture_output=True, text=True, check=False).stdout
    results["set-user-id program"] = SUCCEEDED if uid.strip() == "0" else f"uid {uid.strip()}"


def try_in_own_user_namespace() -> None:
    """Some kernels let anybody be root in a name space of one's own: it must be worth nothing."""
    pid = os.fork()
    if pid == 0:
        reached = 0
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0:
            for path in TARGETS["files"] + TARGETS["directories"]:
                reached |= int(os.access(path, os.R_OK))
            for target in TARGETS["processes"].values():
                try:
                    os.kill(target, 0)
                    reached |= 2
                except OSError:
                    pass
        os._exit(reached)
    reached = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    results["through a user name space"] = SUCCEEDED if reached else "nothing reached"


def plant_links() -> None:
    """What the service removes after the job must be the links and not what they lead to."""
    os.symlink(TARGETS["spare"], "a-link")
    os.mkdir("deep")
    os.symlink("/", "deep/root")


try_secrets()
try_processes()
try_cgroups()
try_privileges()
try_in_own_user_namespace()
plant_links()
print(json.dumps(results))
