"""The verbs of jobctl: their words, help and handlers.

A handler is named by module and function and imported only when its verb is used: the help of all
verbs is shown without gRPC, whose import takes longer than everything else together.
"""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

from jobworker.cli import exits
from jobworker.cli.arguments import (
    Parser,
    add_global_options,
    add_limit_options,
    add_spec_options,
)

_DESCRIPTION: Final = "Run commands on a remote machine, watch their output, stop them."
_EPILOG: Final = f"""\
JOB is the id of a job or a unique beginning of it.  SIZE takes K, M, G, T (of
1024); TIME takes d, h, m, s, ms, such as 1h30m; a bare number is seconds.

{exits.HELP}"""

_RUN_NOTES: Final = f"""\
The command's stdout and stderr come out of stdout and stderr, byte for byte.
Ctrl-C, SIGTERM and a closed terminal stop the job, and so does a reader of its
output that goes away; a second Ctrl-C leaves the job alone and returns at once.
When the connection breaks, output is resumed at the exact byte.

{exits.HELP}"""

_LOGS_NOTES: Final = """\
Without -f it ends with what there is now; with -f when the job ends.  Either way
the exit code is 0 then, whatever the job's is.  TIME is a time such as
2026-11-24T10:00:00Z, or how long ago: 5m.
"""

_JOB_HELP: Final = "id of a job, or a unique beginning of it"
_STATES: Final = ("queued", "starting", "running", "stopping", "ended")

# The type has no public name.
_Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 -- see above


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="jobctl", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version")
    add_global_options(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for add in (_add_run, _add_start, _add_logs, _add_status, _add_stop, _add_list, _add_wait):
        add(verbs)
    for add in (_add_top, _add_update, _add_rm, _add_whoami):
        add(verbs)
    return parser


def _add(
    verbs: _Verbs,
    name: str,
    handler: str,
    help_text: str,
    *,
    takes_command: bool = False,
    notes: str | None = None,
) -> Parser:
    verb = verbs.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=notes,
        takes_command=takes_command,
    )
    verb.set_defaults(verb=name, handler=handler)
    add_global_options(verb)
    return verb


def _add_run(verbs: _Verbs) -> None:
    verb = _add(
        verbs,
        "run",
        "jobworker.cli.run:run",
        "start a command, follow it, exit as it does",
        takes_command=True,
        notes=_RUN_NOTES,
    )
    verb.add_argument("--detach", action="store_true", help="only print the job's id, as start")
    add_spec_options(verb)
    add_limit_options(verb)


def _add_start(verbs: _Verbs) -> None:
    verb = _add(
        verbs,
        "start",
        "jobworker.cli.run:start",
        "start a command and print the job's id",
        takes_command=True,
    )
    add_spec_options(verb)
    add_limit_options(verb)


def _add_logs(verbs: _Verbs) -> None:
    verb = _add(
        verbs, "logs", "jobworker.cli.logs:logs", "print what a job has written", notes=_LOGS_NOTES
    )
    verb.add_argument("job", metavar="JOB", help=_JOB_HELP)
    verb.add_argument("-f", "--follow", action="store_true", help="go on as the job writes")
    begin = verb.add_mutually_exclusive_group()
    begin.add_argument("--tail", metavar="N", help="only the last N lines of what there is now")
    begin.add_argument(
        "--since", metavar="TIME", help="only what was written at that time or later"
    )
    verb.add_argument("--timestamps", action="store_true", help="the time before each line")
    only = verb.add_mutually_exclusive_group()
    only.add_argument("--stdout", action="store_true", help="only standard output")
    only.add_argument("--stderr", action="store_true", help="only standard error")


def _add_status(verbs: _Verbs) -> None:
    text = "show state, limits, usage and ending of a job"
    verb = _add(verbs, "status", "jobworker.cli.jobs:status", text)
    verb.add_argument("job", metavar="JOB", help=_JOB_HELP)


def _add_stop(verbs: _Verbs) -> None:
    text = "end jobs with all their processes: SIGTERM, a grace period, SIGKILL"
    verb = _add(verbs, "stop", "jobworker.cli.jobs:stop", text)
    verb.add_argument("jobs", metavar="JOB", nargs="+", help=_JOB_HELP)
    how = verb.add_mutually_exclusive_group()
    text = "from SIGTERM to SIGKILL (default: that of the service)"
    how.add_argument("--grace", metavar="TIME", help=text)
    how.add_argument("--kill", action="store_true", help="SIGKILL at once")
    verb.add_argument("--no-wait", action="store_true", help="do not wait until they have ended")


def _add_list(verbs: _Verbs) -> None:
    verb = _add(verbs, "list", "jobworker.cli.jobs:list_jobs", "list jobs, newest first")
    verb.add_argument(
        "--state",
        action="append",
        default=[],
        choices=_STATES,
        type=str.lower,
        help="in this state",
    )
    verb.add_argument("--owner", metavar="USER", help="of this user (admins)")
    verb.add_argument("--label", action="append", default=[], metavar="K=V", help="with this label")
    verb.add_argument("--limit", metavar="N", help="at most so many (default: all)")


def _add_wait(verbs: _Verbs) -> None:
    verb = _add(
        verbs,
        "wait",
        "jobworker.cli.jobs:wait",
        "wait until jobs have ended, tell how, exit as the last",
        notes=exits.HELP,
    )
    verb.add_argument("jobs", metavar="JOB", nargs="+", help=_JOB_HELP)


def _add_top(verbs: _Verbs) -> None:
    verb = _add(verbs, "top", "jobworker.cli.top:top", "show what running jobs use, live")
    verb.add_argument("--once", action="store_true", help="once, as when piped")
    verb.add_argument(
        "--interval", metavar="TIME", default="1s", help="between looks (default: 1s)"
    )


def _add_update(verbs: _Verbs) -> None:
    text = "change the limits of a running job"
    verb = _add(verbs, "update", "jobworker.cli.jobs:update", text)
    verb.add_argument("job", metavar="JOB", help=_JOB_HELP)
    add_limit_options(verb)


def _add_rm(verbs: _Verbs) -> None:
    verb = _add(verbs, "rm", "jobworker.cli.jobs:remove", "remove ended jobs with their output")
    verb.add_argument("jobs", metavar="JOB", nargs="+", help=_JOB_HELP)


def _add_whoami(verbs: _Verbs) -> None:
    _add(verbs, "whoami", "jobworker.cli.whoami:whoami", "show who the service takes you for")
