"""What a worker is made of, in the order in which it can be made and must be taken apart."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from jobworker.cgroup.choose import open_hierarchy
from jobworker.cgroup.interface import Hierarchy
from jobworker.jobs.accounts import Accounts
from jobworker.jobs.directories import StateDirectory
from jobworker.jobs.endings import Endings
from jobworker.jobs.following import Follower
from jobworker.jobs.journal import Journal
from jobworker.jobs.limiting import LimitChanger
from jobworker.jobs.measuring import Meter
from jobworker.jobs.planning import Planner
from jobworker.jobs.recovery import open_journal, recover
from jobworker.jobs.registry import Registry
from jobworker.jobs.retention import Keeper
from jobworker.jobs.settings import WorkerSettings
from jobworker.jobs.starting import Starter
from jobworker.jobs.stopping import Stopper
from jobworker.kernel.disks import MountedDisks
from jobworker.output.watch import LogWatcher
from jobworker.shim.launcher import Launcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The parts that do the work of a worker; all end with ``open_engine``."""

    registry: Registry
    starter: Starter
    stopper: Stopper
    changer: LimitChanger
    keeper: Keeper
    follower: Follower
    meter: Meter
    hierarchy: Hierarchy
    settings: WorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What the parts stand on."""

    directories: StateDirectory
    hierarchy: Hierarchy
    launcher: Launcher
    journal: Journal
    disks: MountedDisks
    watcher: LogWatcher


@contextlib.asynccontextmanager
async def open_engine(state_dir: Path, settings: WorkerSettings) -> AsyncIterator[Engine]:
    """See ``open_worker``."""
    async with contextlib.AsyncExitStack() as stack:
        ground = await _prepare_ground(stack, state_dir, settings)
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            registry = Registry(ground.journal, ground.directories, tasks)
            try:
                yield await _start_engine(ground, registry, settings)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
            finally:
                registry.release()
        if failure is not None:
            # Outside the group, which would put it into a group of exceptions.
            raise failure


async def _prepare_ground(
    stack: contextlib.AsyncExitStack, state_dir: Path, settings: WorkerSettings
) -> _Ground:
    """stack: what is opened is closed by it."""
    directories = await asyncio.to_thread(StateDirectory, state_dir, settings.scratch_dir)
    stack.callback(directories.close)
    # Before there are threads and children: on a v2 host this moves the process itself.
    name = f"jobworker-{hashlib.sha256(os.fsencode(directories.path.resolve())).hexdigest()[:8]}"
    hierarchy = await asyncio.to_thread(open_hierarchy, name, parent=settings.cgroup_parent)
    stack.callback(hierarchy.release)
    launcher = Launcher(directories.starting_lock, hierarchy.plan, directories)
    stack.push_async_callback(launcher.close)
    # Settles every start of an earlier worker: afterwards the records are complete.
    await launcher.ensure()
    journal = await open_journal(directories, settings.uids)
    stack.callback(journal.close)
    disks = stack.enter_context(MountedDisks())
    watcher = LogWatcher()
    stack.callback(watcher.close)
    return _Ground(
        directories=directories,
        hierarchy=hierarchy,
        launcher=launcher,
        journal=journal,
        disks=disks,
        watcher=watcher,
    )


async def _start_engine(ground: _Ground, registry: Registry, settings: WorkerSettings) -> Engine:
    """With the jobs of an earlier worker adopted."""
    endings = Endings(registry, ground.hierarchy)
    changer = LimitChanger(registry, ground.disks, settings)
    await recover(registry, endings, changer, ground.hierarchy)
    # Not before: the cgroup of a place belongs to no job that is known.
    await ground.launcher.prepare()
    keeper = Keeper(registry, settings.retention)
    await keeper.resume()
    registry.run_until_released(keeper.run())
    starter = Starter(
        registry=registry,
        endings=endings,
        launcher=ground.launcher,
        accounts=Accounts(settings, ground.journal),
        planner=Planner(registry, ground.hierarchy, ground.disks, settings),
    )
    meter = Meter(registry)
    return Engine(
        registry=registry,
        starter=starter,
        stopper=Stopper(registry, endings),
        changer=changer,
        keeper=keeper,
        follower=Follower(registry, ground.watcher, meter),
        meter=meter,
        hierarchy=ground.hierarchy,
        settings=settings,
    )
