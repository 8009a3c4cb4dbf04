"""The command ``jobworker``: finds the subcommand, runs it, turns errors into words and exit codes.

Owns: the list of subcommands and the exit codes (0 done, 1 failed, 2 wrong usage).  A subcommand is
a module with ``add_arguments(parser)`` and ``run(args) -> int``; only that which runs is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from jobworker import __version__
from jobworker.errors import FailedPreconditionError, JobWorkerError
from jobworker.security.tls import apply_tls_policy

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2  # argparse's own

#: 128 + SIGINT and 128 + SIGPIPE, as every shell shows them.
_EXIT_INTERRUPTED: Final = 130
_EXIT_BROKEN_PIPE: Final = 141


class _Subcommand(Protocol):
    """What a subcommand's module has."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    module: str
    help: str
    uses_grpc: bool = False


_SUBCOMMANDS: Final = {
    "init": _Entry(
        module="jobworker.host.init",
        help="make a configuration, a CA and the first certificates",
    ),
    "serve": _Entry(
        module="jobworker.host.serve", help="run the service in the foreground", uses_grpc=True
    ),
    "cert": _Entry(module="jobworker.host.cert", help="issue, revoke and list certificates"),
    "doctor": _Entry(
        module="jobworker.host.doctor", help="try what this host can hold jobs to, and tell"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; argparse exits by itself for wrong usage, --help and --version."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Options of ``jobworker`` itself take no value, so the first word without a dash is the one.
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        parser, run = _make_parser(chosen)
        args = parser.parse_args(words)
        if run is None:
            parser.print_usage(sys.stderr)
            print("jobworker: a subcommand is required; see jobworker --help", file=sys.stderr)
            return EXIT_USAGE
        code = run(args)
        sys.stdout.flush()
    except JobWorkerError as error:
        print(f"jobworker: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, as head(1) has.  What is still buffered would be
        # written, and fail, once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN_PIPE
    return code


def _make_parser(
    chosen: str | None,
) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int] | None]:
    """A parser that knows the names of all subcommands, and the arguments of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="jobworker", description="Run commands for remote users: the host's side."
    )
    parser.add_argument("--version", action="version", version=f"jobworker {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    run = None
    for name, entry in _SUBCOMMANDS.items():
        command = commands.add_parser(name, help=entry.help, description=entry.help)
        if name == chosen:
            module = _load(entry)
            module.add_arguments(command)
            run = module.run
    return parser, run


def _load(entry: _Entry) -> _Subcommand:
    if entry.uses_grpc:
        # gRPC writes a line about each handshake that fails, and anybody can make handshakes fail.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        apply_tls_policy()  # before anything of the module's imports gRPC
    try:
        return cast("_Subcommand", importlib.import_module(entry.module))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "jobworker":
            raise
        why = f"{error.name} is missing; install jobworker[server]"
        raise FailedPreconditionError("run the host's side", why) from error


if __name__ == "__main__":
    sys.exit(main())
