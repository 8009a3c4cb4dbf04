"""``jobworker doctor``: what this host can hold jobs to, found out by trying.

Starts a worker of its own in a temporary directory beside the jobs of the configured service, tries
each limit and each promise about isolation with small jobs, and compares the findings with what the
configured policies ask for.  Touches no running service.

Exit code: 0 if all that is asked for is kept, 1 if not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jobworker.cgroup.interface import Mode
from jobworker.errors import UnavailableError, errno_text
from jobworker.host import isolation_trials
from jobworker.host.isolation_trials import try_isolation
from jobworker.host.limit_trials import try_limits
from jobworker.host.places import CONFIG_DEFAULT, STATE_DEFAULT
from jobworker.host.trial import Bench, Finding, Outcome
from jobworker.kernel.disks import BlockDevice, MountedDisks
from jobworker.kernel.mounts import mount_of, read_mounts
from jobworker.model.limits import Limits, Resource
from jobworker.model.units import format_bytes, format_cpus
from jobworker.security.policy import Role
from jobworker.server.config import Config, load_config
from jobworker.server.config_policy import ADMIN_POLICY, USER_POLICY
from jobworker.worker import RequireLimits, WorkerSettings, open_worker

_WIDTH: Final = 100

_TITLES: Final[Mapping[str, str]] = {
    Resource.CPU.value: "CPU",
    Resource.MEMORY.value: "memory",
    Resource.TASKS.value: "tasks",
    Resource.IO_READ_BYTES.value: "disk read",
    Resource.IO_WRITE_BYTES.value: "disk write",
    Resource.IO_READ_OPS.value: "disk read operations",
    Resource.IO_WRITE_OPS.value: "disk write operations",
    isolation_trials.KILL: "stop reaches all",
    isolation_trials.USER: "unprivileged user",
    isolation_trials.SCRATCH: "scratch directory",
    isolation_trials.STATE: "state is closed",
}
_MODES: Final[Mapping[Mode, str]] = {
    Mode.UNIFIED: "cgroup v2",
    Mode.HYBRID: "hybrid: limits in cgroup v1, membership in a cgroup2 tree",
    Mode.LEGACY: "cgroup v1",
    Mode.NONE: "none that this process may write to",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to try, and what is asked for."""

    settings: WorkerSettings
    state_dir: Path
    """Of the configured service; it need not be there."""
    policies: Mapping[Role, Limits]
    secrets: tuple[Path, ...] = ()
    """Files and directories of the configured service that jobs must not read."""

    def asked(self, name: str) -> dict[Role, int]:
        """By role, what the policy asks for."""
        if name not in {resource.value for resource in Resource}:
            return {}
        amounts = {role: limits.get(Resource(name)) for role, limits in self.policies.items()}
        return {role: amount for role, amount in amounts.items() if amount is not None}

    def is_asked(self, name: str) -> bool:
        """Does anything of the configuration count on it?"""
        if name in {isolation_trials.USER, isolation_trials.STATE}:
            # Where jobs run as the service's own user by the operator's will, nothing is closed.
            return self.settings.uid_first is not None
        if name in {isolation_trials.KILL, isolation_trials.SCRATCH}:
            return True
        return bool(self.asked(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """All that there is to say."""

    plan: _Plan
    mode: Mode
    disks: tuple[BlockDevice, ...]
    place: str
    """Where it was tried: a directory and its file system."""
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What is asked for and not kept."""
        return tuple(
            finding
            for finding in self.findings
            if self.plan.is_asked(finding.name) and not finding.is_kept
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"whose policy is asked for (default: {CONFIG_DEFAULT} if it is there)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="try it on the disk of this directory (default: that of the configuration)",
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")


def run(args: argparse.Namespace) -> int:
    plan = _make_plan(args)
    print("jobworker: trying each limit with small jobs, for some ten seconds", file=sys.stderr)
    report = asyncio.run(_examine(plan))
    if args.output == "json":
        print(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        print(_as_table(report), end="")
    return 1 if report.problems else 0


def _make_plan(args: argparse.Namespace) -> _Plan:
    config_file: Path | None = args.config
    if config_file is None and CONFIG_DEFAULT.exists():
        config_file = CONFIG_DEFAULT
    plan = (
        _Plan(
            settings=WorkerSettings(),
            state_dir=STATE_DEFAULT,
            policies={
                Role.USER: USER_POLICY.to_policy().limits,
                Role.ADMIN: ADMIN_POLICY.to_policy().limits,
            },
        )
        if config_file is None
        else _plan_of(load_config(config_file))
    )
    return plan if args.state_dir is None else replace(plan, state_dir=args.state_dir.absolute())


def _plan_of(config: Config) -> _Plan:
    state = config.server.state_dir
    return _Plan(
        settings=config.worker.to_settings(),
        state_dir=state,
        policies={role: policy.limits for role, policy in config.policies.items()},
        secrets=(state, state / "journal.sqlite", config.tls.key, config.tls.key.parent),
    )


async def _examine(plan: _Plan) -> _Report:
    # A limit that is not kept is to be a finding, not a refusal; and each job of the trials counts.
    settings = replace(plan.settings, require_limits=RequireLimits.WARN)
    with _temporary_state(plan.state_dir) as state_dir:
        async with open_worker(state_dir, settings) as worker:
            bench = Bench(worker=worker, state_dir=state_dir)
            findings = (*await try_limits(bench), *await try_isolation(bench, plan.secrets))
            with MountedDisks() as mounted:
                disks = mounted.now()
            return _Report(
                plan=plan,
                mode=worker.hierarchy.mode,
                disks=disks,
                place=_describe_place(state_dir.parent),
                findings=findings,
            )


@contextlib.contextmanager
def _temporary_state(state_dir: Path) -> Iterator[Path]:
    """A directory on the disk on which the service has its state, or would have it."""
    parent = next(folder for folder in (state_dir, *state_dir.parents) if folder.is_dir())
    try:
        path = Path(tempfile.mkdtemp(prefix="doctor-", dir=parent))
    except OSError as error:
        raise UnavailableError(f"try anything in {parent}", errno_text(error.errno or 0)) from error
    try:
        # As the service makes its own: the users of jobs pass through to their scratch.
        path.chmod(0o711)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _describe_place(folder: Path) -> str:
    mount = mount_of(str(folder.resolve()), read_mounts())
    return str(folder) if mount is None else f"{folder}, {mount.type} on {mount.source}"


def _as_json(report: _Report) -> dict[str, object]:
    return {
        "kernel": os.uname().release,
        "cgroups": report.mode.value,
        "disks": [f"{disk.number} {disk.name}" for disk in report.disks],
        "place": report.place,
        "findings": [
            {
                "name": finding.name,
                "outcome": finding.outcome.value,
                "measured": finding.measured,
                "reason": finding.reason,
                "is_asked": report.plan.is_asked(finding.name),
                "asked": {
                    role.value: amount for role, amount in report.plan.asked(finding.name).items()
                },
            }
            for finding in report.findings
        ],
        "require_limits": report.plan.settings.require_limits.value,
        "is_kept": not report.problems,
    }


def _as_table(report: _Report) -> str:
    disks = ", ".join(f"{disk.number} {disk.name}" for disk in report.disks)
    head = [
        f"kernel    {os.uname().sysname} {os.uname().release} {os.uname().machine}",
        f"cgroups   {_MODES[report.mode]}",
        f"disks     {disks or 'none'}",
        f"tried in  {report.place}",
        "",
    ]
    titles = max(map(len, _TITLES.values()))
    verdicts = max(len(outcome.value) for outcome in Outcome)
    rows = [f"{'':{titles}}  {'verdict':{verdicts}}  {'user':>7}  {'admin':>7}"]
    for finding in report.findings:
        asked = [_amount(report.plan, finding.name, role) for role in (Role.USER, Role.ADMIN)]
        verdict = finding.outcome.value
        rows.append(
            f"{_TITLES[finding.name]:{titles}}  {verdict:{verdicts}}  {asked[0]:>7}  {asked[1]:>7}"
        )
        rows += _wrapped(finding.measured)
        rows += _wrapped(finding.reason)
    return "\n".join((*head, *rows, "", *_conclusion(report))) + "\n"


def _wrapped(text: str) -> Sequence[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _amount(plan: _Plan, name: str, role: Role) -> str:
    """What a role's policy asks for, as it is written in the configuration."""
    amount = plan.asked(name).get(role)
    if amount is None:
        return "always" if plan.is_asked(name) and not plan.asked(name) else "-"
    match Resource(name):
        case Resource.CPU:
            return format_cpus(amount)
        case Resource.TASKS | Resource.IO_READ_OPS | Resource.IO_WRITE_OPS:
            return str(amount)
        case Resource.MEMORY | Resource.IO_READ_BYTES | Resource.IO_WRITE_BYTES:
            return format_bytes(amount)


def _conclusion(report: _Report) -> Sequence[str]:
    if not report.problems:
        return ("What the policies ask for is kept on this host.",)
    names = ", ".join(_TITLES[finding.name] for finding in report.problems)
    lines = [f"Asked for and not kept on this host: {names}."]
    if report.plan.settings.require_limits is RequireLimits.WARN:
        lines.append('require_limits is "warn": jobs run all the same, and their status says so.')
    return lines
