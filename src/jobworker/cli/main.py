"""The command jobctl: from the command line to an exit code.

Owns: which errors become which line and which code.  Nothing ever ends in a traceback, unless
JOBCTL_DEBUG asks for one.

Starts fast: this module imports what every start needs and nothing else, and the process ends
without taking the interpreter apart, which would cost a tenth of a whole short call.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

from jobworker import __version__
from jobworker.cli import console, exits
from jobworker.cli.arguments import UsageError
from jobworker.errors import JobWorkerError

_DEBUG: Final = "JOBCTL_DEBUG"


def main() -> NoReturn:
    """Entry point of the command: never returns."""
    code = run(sys.argv[1:])
    # Threads of gRPC and a write that nobody reads must not hold up the end.
    os._exit(code)


def run(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    try:
        return _dispatch(argv)
    except SystemExit as done:  # how argparse ends after printing help
        return done.code if isinstance(done.code, int) else exits.FAILURE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except console.OutputError as error:
        if error.is_broken_pipe:
            return exits.BROKEN_PIPE
        console.talk(str(error))
        return exits.FAILURE
    except UsageError as error:
        console.talk(f"cannot {error}")
        return exits.FAILURE
    except JobWorkerError as error:
        console.talk(str(error))
        return exits.of_error(error)
    except Exception as error:  # noqa: BLE001 -- the last line of defence; see the module's promise
        return _say_bug(error)


def _dispatch(argv: Sequence[str]) -> int:
    from jobworker.cli.verbs import build_parser  # noqa: PLC0415 -- so that Ctrl-C is ours by now

    parser = build_parser()
    options = parser.parse_args(argv)
    if options.version:
        console.show(f"jobctl {__version__}\n")
        return exits.OK
    if not hasattr(options, "handler"):
        parser.error("it takes a verb")
    return _run_handler(options)


def _run_handler(options: argparse.Namespace) -> int:
    # gRPC would write its own view of a failed connection to standard error; ours is better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    module, _, name = options.handler.partition(":")
    # What modules make stays: looking through it again and again takes 5 ms of 120.
    gc.disable()
    handler: Callable[[argparse.Namespace], Awaitable[int]] = getattr(
        importlib.import_module(module), name
    )
    gc.freeze()
    gc.enable()
    import asyncio  # noqa: PLC0415 -- 40 ms that help need not wait

    _report_troubles()
    # Not asyncio.run: at its end it waits for threads, and one may write to who does not read.
    loop = asyncio.new_event_loop()
    return loop.run_until_complete(handler(options))


def _report_troubles() -> None:
    """Tell on standard error when the client has lost the service and tries again."""
    import logging  # noqa: PLC0415 -- comes with asyncio, not before

    class Talk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reason = getattr(record, "reason", "")
            console.talk(f"{record.getMessage()}{': ' if reason else ''}{reason}")

    logger = logging.getLogger("jobworker.client")
    logger.addHandler(Talk(logging.WARNING))
    logger.propagate = False


def _say_bug(error: Exception) -> int:
    if os.environ.get(_DEBUG):
        import traceback  # noqa: PLC0415 -- only here

        traceback.print_exception(error)
    text = " ".join(f"{type(error).__name__} {error}".split())
    console.talk(f"cannot go on: unexpected {text} (a fault of jobctl; {_DEBUG}=1 shows where)")
    return exits.FAILURE
