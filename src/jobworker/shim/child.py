"""The last steps of a process before it is the command, one after the other.

Runs in a single-threaded process of its own.  Nothing of the shim's may reach the command: no
descriptor, no signal handler, no privilege.  A step that fails is told through a pipe that closes
by itself when the command is executed.

Source: execve(2), credentials(7), setresuid(2), signal(7), close_range(2).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from jobworker.kernel import privileges
from jobworker.kernel.descriptors import close_from
from jobworker.kernel.process import set_oom_score
from jobworker.shim.init import arrange_namespaces, be_init
from jobworker.shim.order import Account, Order
from jobworker.shim.refusal import EXECUTE, Failure

#: The usual soft bound; programs that use select(2) count on it.  The hard one stays the host's.
_OPEN_FILES_SOFT: Final = 1024
#: What processes have that nobody said anything about.
_OOM_SCORE: Final = 0
_UMASK: Final = 0o022
_ERROR_FD: Final = 3
#: Nobody reads it.
_NOT_WANTED: Final = 1
#: Longer paths than this are cut in the account of a failure: it must fit into one write to a pipe.
_TOLD_CHARS: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Descriptors that the child takes over; all are closed at exec."""

    stdin: int
    stdout: int
    stderr: int
    error: int
    """Write end of the pipe that tells a failed step."""
    joins: Sequence[int]
    """Where ``0`` is written to join cgroups."""
    init: InitEnds | None
    """What an isolated command's init has besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitEnds:
    """Descriptors of an init."""

    status: int
    """Where it tells how the command ended."""
    go: int
    """A byte in it says that the command may be forked; its end of file, that nobody wants it."""
    hold: int
    """The other end of that pipe, which the shim has too."""


def settle_in() -> None:
    """What is the same for every command and can be done before there is one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _OPEN_FILES_SOFT if hard == resource.RLIM_INFINITY else min(_OPEN_FILES_SOFT, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.umask(_UMASK)
    # Without CAP_SYS_RESOURCE one that was inherited cannot be lowered: then it stays.
    with contextlib.suppress(OSError):
        set_oom_score(_OOM_SCORE)
    # Ignored signals stay ignored across exec, and Python ignores SIGPIPE and SIGXFSZ.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def execute(order: Order, ends: Ends, parent_pid: int) -> NoReturn:
    """Become the command, or tell why not and exit.  Never returns, never raises."""
    step, path, error_fd = "enter the cgroup", "", ends.error
    try:
        os.setsid()
        for join in ends.joins:
            os.write(join, b"0")
        if ends.init is not None:
            step, path = "isolate it", ""
            parent_pid = _enter_namespaces(order, ends.init)
        step = "set up descriptors"
        _arrange_descriptors(ends)
        error_fd = _ERROR_FD
        step, path = "enter the working directory", order.cwd
        if order.cwd == order.scratch:
            # Before privileges are dropped: the way to it may be closed to the job's user.
            os.chdir(order.cwd)
        step, path = "drop privileges", ""
        _drop_privileges(order.account)
        _die_with(parent_pid)
        step, path = "enter the working directory", order.cwd
        if order.cwd != order.scratch:
            os.chdir(order.cwd)
        step, path = EXECUTE, order.argv[0]
        _exec(order)
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else path
        _tell(error_fd, Failure(step=step, errno=error.errno or 0, path=named))
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process ends here
        _tell(error_fd, Failure(step=f"{step}: {error!r}", errno=0, path=path))
    os._exit(127)


def _enter_namespaces(order: Order, ends: InitEnds) -> int:
    """In the init: fork the command, and stay.  Returns in the command: the init's pid."""
    privileges.die_with_parent()
    arrange_namespaces(order)
    # The starting process is one of the job's tasks until the shim has waited for it, and might be
    # the one too many.  Killed before it has told the shim of this init, it lets nothing run.
    os.close(ends.hold)
    if not os.read(ends.go, 1):
        os._exit(_NOT_WANTED)
    command_pid = os.fork()
    if command_pid:
        be_init(command_pid, ends.status)
    os.setsid()
    return os.getppid()


def let_init_go(hold: int) -> None:
    """Have an init fork the command.  hold: as in ``InitEnds``; taken."""
    with contextlib.suppress(BrokenPipeError):
        os.write(hold, b"\1")
    os.close(hold)


def _arrange_descriptors(ends: Ends) -> None:
    # Moved out of the way first: one of the three may stand where another is to go.
    stdin, stdout, stderr = (os.dup(fd) for fd in (ends.stdin, ends.stdout, ends.stderr))
    error = os.dup(ends.error)
    for target, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, target)
    os.dup2(error, _ERROR_FD, inheritable=False)
    # Ours all close at exec; this is for those that a library or an embedding program left open.
    close_from(_ERROR_FD + 1)


def _drop_privileges(account: Account | None) -> None:
    if account is not None:
        privileges.drop_bounding_set()
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        privileges.drop_capabilities()
    privileges.forbid_new_privileges()


def _die_with(parent_pid: int) -> None:
    # After the change of user, which clears it.  If the shim dies the main process does not live on
    # unwatched until the next worker comes; the parent may have died before the call.
    privileges.die_with_parent()
    if os.getppid() != parent_pid:
        os._exit(127)


def _exec(order: Order) -> NoReturn:
    program = order.argv[0]
    if "/" in program:
        os.execve(program, order.argv, order.env)  # noqa: S606 - that is what it is for
    failure = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    refused: OSError | None = None
    for folder in order.env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{program}", order.argv, order.env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            # As execvp(3): sought on, and told in the end if nothing better was found.
            refused = error
    raise refused or failure


def _tell(error_fd: int, failure: Failure) -> None:
    text = json.dumps([failure.step, failure.errno, failure.path[:_TOLD_CHARS]])
    os.write(error_fd, text.encode("ascii"))


def read_failure(pipe: int) -> Failure | None:
    """What the child told, or None once it became the command.  Waits for one or the other.

    pipe: read end of its error pipe; borrowed.
    """
    data = b""
    while part := os.read(pipe, 65536):
        data += part
    if not data:
        return None
    step, number, path = json.loads(data)
    return Failure(step=step, errno=number, path=path)
