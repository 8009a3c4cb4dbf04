"""``jobworker serve``: run the service in the foreground until it is told to end.

SIGTERM and SIGINT end it in order, a second one at once; SIGHUP makes it look at its trust files
and open its audit file again.  Jobs run on unless the configuration or ``--shutdown stop`` says
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import grp
import logging
import os
import pwd
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from jobworker.errors import JobWorkerError
from jobworker.host.logs import set_up_logging
from jobworker.host.places import CONFIG_DEFAULT
from jobworker.host.systemd import notify
from jobworker.kernel.allocator import keep_freed_blocks
from jobworker.model.ids import UserName
from jobworker.model.job import JobFilter
from jobworker.model.state import JobState
from jobworker.server.config import Config, Shutdown, load_config
from jobworker.server.config_reader import parse_address
from jobworker.server.lifecycle import RunningService, open_service
from jobworker.worker import PAGE_SIZE_MAX, Worker, open_worker

logger = logging.getLogger(__name__)

#: Who stopped the jobs, when ending the service does.
_SERVICE: Final = UserName("jobworker")
_NOT_ENDED: Final = frozenset(JobState) - {JobState.ENDED}
#: Accounts that a warning names: a range may hold all those of a host.
_NAMED_MAX: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=CONFIG_DEFAULT,
        metavar="FILE",
        help=f"configuration (default: {CONFIG_DEFAULT})",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="where to listen; port 0: a free one")
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where jobs and their output are kept (default: that of the configuration)",
    )
    parser.add_argument(
        "--shutdown",
        choices=[choice.value for choice in Shutdown],
        help="what becomes of running jobs when the service ends",
    )


def run(args: argparse.Namespace) -> int:
    set_up_logging()
    config = _with_arguments(load_config(args.config), args)
    _raise_open_files_limit()
    keep_freed_blocks()
    _warn_of_shared_ids(config.worker.to_settings().uids)
    try:
        asyncio.run(_serve(config))
    except BaseExceptionGroup as group:
        raise _only_error(group) from group
    return 0


async def _serve(config: Config) -> None:
    with _signals() as (ended, reloaded):
        settings = config.worker.to_settings()
        async with open_worker(config.server.state_dir, settings) as worker:
            async with open_service(config, worker) as service:
                _spare_collector()
                await _announce(worker, service)
                async with asyncio.TaskGroup() as tasks:
                    reloading = tasks.create_task(_reload_when_told(service, reloaded))
                    await ended.wait()
                    reloading.cancel()
                notify("STOPPING=1")
                logger.info("service ends", extra={"jobs": config.server.shutdown.value})
            if config.server.shutdown is Shutdown.STOP:
                await worker.stop_all(stopped_by=_SERVICE)


def _spare_collector() -> None:
    """Have garbage collection pass over what is loaded by now, and stays.

    Looking through it takes 4 ms, which is half a start, every few hundred calls.
    """
    gc.collect()
    gc.freeze()


async def _announce(worker: Worker, service: RunningService) -> None:
    """The one line by which people and scripts know that it is up, and where."""
    count = await _running_jobs(worker)
    line = f"jobworker: listening on {service.address} ({count} jobs running)"
    print(line, file=sys.stderr, flush=True)
    if service.metrics_address is not None:
        logger.info("metrics", extra={"address": str(service.metrics_address)})
    notify(f"READY=1\nSTATUS={line}")


async def _running_jobs(worker: Worker) -> int:
    count, token = 0, ""
    while True:
        which = JobFilter(states=_NOT_ENDED)
        page = await worker.list(which, page_size=PAGE_SIZE_MAX, page_token=token)
        count, token = count + len(page.jobs), page.next_page_token
        if not token:
            return count


async def _reload_when_told(service: RunningService, reloaded: asyncio.Event) -> None:
    while True:
        await reloaded.wait()
        reloaded.clear()
        service.reload()


@contextlib.contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Set when a signal asks for the end; set when one asks for a reload."""
    loop = asyncio.get_running_loop()
    ended, reloaded = asyncio.Event(), asyncio.Event()

    def end(number: int) -> None:
        if ended.is_set():
            # Asked twice: whoever does it does not want to wait.  Jobs are none of this process's.
            os._exit(128 + number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reloaded.set)
    try:
        yield ended, reloaded
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _with_arguments(config: Config, args: argparse.Namespace) -> Config:
    """The command line has the last word.  Raises InvalidArgumentError."""
    server = config.server
    if args.listen is not None:
        server = replace(server, listen=parse_address(args.listen))
    if args.state_dir is not None:
        server = replace(server, state_dir=args.state_dir.absolute())
    if args.shutdown is not None:
        server = replace(server, shutdown=Shutdown(args.shutdown))
    return replace(config, server=server)


def _raise_open_files_limit() -> None:
    """Each connection and each follower takes descriptors; the soft limit is often 1024.

    Source: getrlimit(2), RLIMIT_NOFILE.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _warn_of_shared_ids(uids: range) -> None:
    """A job with the id of an account or a group of this host may do what that may do."""
    users = {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid in uids}
    groups = {entry.gr_name for entry in grp.getgrall() if entry.gr_gid in uids}
    names = sorted(users | groups)
    if names and os.geteuid() == 0:  # else jobs are given no ids
        named = ", ".join(names[:_NAMED_MAX])
        logger.warning(
            "ids given to jobs belong to accounts of this host",
            extra={"count": len(names), "such_as": named, "remedy": "change uid_first"},
        )


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person should read: the error of ours that a TaskGroup wrapped, if it is one alone."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, JobWorkerError) else group
