"""The command line's grammar: parsers, the options that stand everywhere, what ``--`` separates.

Owns: how words become options.  Not which verbs there are (verbs.py), not what the values mean
(values.py): a start of jobctl imports as little as it can.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from jobworker.cli import console

FORMATS: Final = ("table", "json")


class UsageError(Exception):
    """The command line cannot be understood; the text says why, after "cannot "."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, which argparse would ask ``shutil`` for."""

    def __init__(self, prog: str) -> None:
        # Two columns less, as argparse does.
        super().__init__(prog, width=console.columns() - 2)


class Parser(argparse.ArgumentParser):
    """One verb, or all: reports what is wrong by raising UsageError.

    takes_command: after ``--``, or from the first word that is no option, a command follows.  What
        belongs to it is taken as it stands, further ``--`` included.
    """

    def __init__(self, *, takes_command: bool = False, **settings: Any) -> None:  # noqa: ANN401 -- handed on to argparse
        # An option that is only begun would mean another one after the next release.
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **settings)
        self._takes_command = takes_command
        if takes_command:
            self.usage = f"{self.prog} [options] -- CMD [ARG…]"
            self.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"read the command line: {message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        # Help and nothing else: past Python's buffer, which the end of jobctl does not write out.
        if message:
            console.show(message)

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for other namespaces
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if not self._takes_command:
            return super().parse_known_args(args, namespace)
        place = list(args).index("--") if "--" in args else len(args)
        options, rest = super().parse_known_args(args[:place], namespace)
        # Where the command began before the first "--", that is a word of its own.
        words = options.words + list(args[place:])
        options.command = words if options.words else words[1:]
        del options.words
        if not options.command:
            self.error("it takes a command, after --")
        return options, rest


def add_global_options(parser: argparse.ArgumentParser) -> None:
    """Options that may stand before the verb and after it."""
    group = parser.add_argument_group("connection and output")

    def add(*names: str, **settings: Any) -> None:  # noqa: ANN401 -- handed on to argparse
        # Only what is given is set: a default after the verb would undo what stands before it.
        group.add_argument(*names, default=argparse.SUPPRESS, **settings)

    add("--profile", metavar="NAME", help="section of profiles.toml (JOBCTL_PROFILE; default)")
    add("--server", metavar="HOST:PORT", help="the service (JOBCTL_SERVER)")
    add("--ca", metavar="FILE", help="CA that vouches for the service (JOBCTL_CA)")
    add("--cert", metavar="FILE", help="own certificate (JOBCTL_CERT)")
    add("--key", metavar="FILE", help="private key of the certificate (JOBCTL_KEY)")
    add("-o", "--output", choices=FORMATS, help="how to print: table or json")


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """What a job may use."""
    group = parser.add_argument_group("limits (admins only)")
    group.add_argument("--cpu", metavar="N", help="CPUs, such as 0.5")
    group.add_argument("--memory", metavar="SIZE", help="memory, such as 256M")
    group.add_argument("--io-read", metavar="SIZE", help="bytes read a second, each disk")
    group.add_argument("--io-write", metavar="SIZE", help="bytes written a second, each disk")
    group.add_argument("--io-read-iops", metavar="N", help="read operations a second, each disk")
    group.add_argument("--io-write-iops", metavar="N", help="write operations a second, each disk")
    group.add_argument("--pids", metavar="N", help="processes and threads")


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """The circumstances of a command."""
    group = parser.add_argument_group("the job")
    group.add_argument("--name", default="", help="name for people; need not be unique")
    group.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="variable; may be repeated"
    )
    group.add_argument(
        "--label", action="append", default=[], metavar="K=V", help="label; may be repeated"
    )
    group.add_argument("--cwd", metavar="DIR", help="working directory (default: one of its own)")
    group.add_argument("--timeout", metavar="TIME", help="stop it after this time, such as 5m")
    group.add_argument("--max-output", metavar="SIZE", help="keep at most so much output")
    group.add_argument(
        "--on-output-limit",
        choices=("stop", "discard"),
        help="at that bound stop the job, or go on without keeping more",
    )
    group.add_argument(
        "--isolation",
        choices=("none", "private", "offline"),
        help="what it sees of the host: all; only its own processes and scratch, the rest"
        " read-only; or that and no network",
    )
    group.add_argument(
        "--request-id", metavar="ID", help="the same ID again returns the same job, not another"
    )
