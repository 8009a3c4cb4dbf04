"""``jobworker init``: a new installation in one directory.

Owns: what belongs to one, and that it comes whole or not at all: the certificates are made in a
directory of another name, which then is renamed.  Not how they are made (``security.pki``).
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobworker.errors import FailedPreconditionError, InvalidArgumentError
from jobworker.host.config_text import config_text, toml_text
from jobworker.host.places import CONFIG_DEFAULT, CONFIG_FILE, STATE_DEFAULT
from jobworker.model.ids import UserName, parse_user_name
from jobworker.security import pki
from jobworker.security.policy import Role
from jobworker.security.store import (
    CA_NAME,
    SERVER_NAME,
    PkiStore,
    check_file_name,
    write_file,
)

PKI_DIRECTORY: Final = "pki"
_PORT: Final = 50051
#: Of the state, in an installation that is all in one directory.
_STATE_DIRECTORY: Final = "state"
#: Always among the names of the server: the first try is on the machine itself.
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_CONFIG_MODE: Final = 0o600
#: Others may pass and see nothing: the scratch directories of jobs, which run under other uids, are
#: below.  The certificates and the keys are in a directory of their own, 0700.
_DIRECTORY_MODE: Final = 0o711


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What was asked for, checked."""

    directory: Path
    state_dir: Path
    """As the configuration has it: absolute, or from the directory on."""
    hosts: tuple[str, ...]
    clients: Mapping[UserName, Role]
    days: int
    force: bool

    @property
    def config(self) -> Path:
        return self.directory / CONFIG_FILE

    @property
    def pki(self) -> Path:
        return self.directory / PKI_DIRECTORY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand."""
    parser.add_argument(
        "--dir", type=Path, required=True, metavar="D", help="directory to make the files in"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help=f"where the service keeps jobs and their output (default: {STATE_DEFAULT} "
        f"for --dir {CONFIG_DEFAULT.parent}, else {_STATE_DIRECTORY} in the directory)",
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address under which clients reach the service; may be repeated (its "
        "certificate is for localhost too); the first says where it listens: on that address "
        "alone, for localhost (the default) on 127.0.0.1, for another name on every address",
    )
    parser.add_argument(
        "--user", action="append", metavar="NAME", help="a standard user (default: alice)"
    )
    parser.add_argument(
        "--admin", action="append", metavar="NAME", help="an admin (default: admin)"
    )
    parser.add_argument(
        "--days",
        type=int,
        default=pki.LEAF_DAYS_DEFAULT,
        help="how long the certificates are valid (default: %(default)s)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an installation; its files are kept under another name, "
        "its certificates are worth nothing any more",
    )


def run(args: argparse.Namespace) -> int:
    """Make the installation and say how to use it."""
    plan = _make_plan(args)
    kept = initialise(plan)
    print(_report(plan, kept))
    return 0


def _make_plan(args: argparse.Namespace) -> _Plan:
    clients: dict[UserName, Role] = {}
    asked = [(name, Role.USER) for name in args.user or ["alice"]]
    asked += [(name, Role.ADMIN) for name in args.admin or ["admin"]]
    for text, role in asked:
        name = check_file_name(parse_user_name(text))
        if name in clients:
            raise InvalidArgumentError("user name", name, "it is given twice")
        clients[name] = role
    directory = args.dir.absolute()
    return _Plan(
        directory=directory,
        state_dir=_state_dir(directory, args.state_dir),
        hosts=tuple(dict.fromkeys([*args.host, *_LOOPBACK])),
        clients=clients,
        days=args.days,
        force=args.force,
    )


def _state_dir(directory: Path, asked: Path | None) -> Path:
    """What changes by itself has no place in /etc; elsewhere an installation stays together."""
    if asked is not None:
        return asked.absolute()
    return STATE_DEFAULT if directory == CONFIG_DEFAULT.parent else Path(_STATE_DIRECTORY)


def initialise(plan: _Plan) -> Sequence[Path]:
    """Make everything; returns where the files of an earlier installation are now.

    Raises FailedPreconditionError, with nothing changed, if there is one and it is not to be
    replaced.
    """
    action = f"make an installation in {plan.directory}"
    for path in (plan.pki / f"{CA_NAME}.pem", plan.pki / f"{CA_NAME}.key", plan.config):
        if not plan.force and path.exists():
            raise FailedPreconditionError(action, f"{path} exists; --force replaces it")
    ca = pki.make_ca()
    pairs = {SERVER_NAME: pki.issue_server(ca, hosts=plan.hosts, days=plan.days)}
    for name, role in plan.clients.items():
        pairs[name] = pki.issue_client(ca, name=name, role=role, days=plan.days)
    temporary = plan.directory / f".{PKI_DIRECTORY}.{secrets.token_hex(8)}"
    try:
        _make_directory(plan.directory)
        _fill_store(PkiStore.create(temporary), ca, pairs)
        kept = _keep_old(plan)
        temporary.rename(plan.pki)
    except OSError as error:
        raise FailedPreconditionError(action, f"{error.filename}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone where all went well
    text = config_text(listen=_listen(plan.hosts), state_dir=plan.state_dir)
    write_file(plan.config, text.encode(), mode=_CONFIG_MODE)
    return kept


def _make_directory(directory: Path) -> None:
    """What is there already keeps its mode."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        directory.chmod(_DIRECTORY_MODE)  # exactly so, whatever the umask


def _fill_store(store: PkiStore, ca: pki.KeyPair, pairs: Mapping[str, pki.KeyPair]) -> None:
    store.write_pair(CA_NAME, ca)
    store.write_crl(pki.make_crl(ca, [], number=1), replace=False)
    for name, pair in pairs.items():
        store.record_issued(pair.certificate)
        store.write_pair(name, pair)


def _keep_old(plan: _Plan) -> Sequence[Path]:
    """Move what ``--force`` replaces out of the way: keys are never destroyed here."""
    now = datetime.datetime.now(datetime.UTC)
    old = [path for path in (plan.pki, plan.config) if plan.force and os.path.lexists(path)]
    return [path.rename(f"{path}.replaced-{now:%Y%m%dT%H%M%S.%f}") for path in old]


def _listen(hosts: Sequence[str]) -> str:
    """The first host if that is an address; every address of the machine if it is a name."""
    try:
        address = ipaddress.ip_address(hosts[0])
    except ValueError:
        return f"127.0.0.1:{_PORT}" if hosts[0] == "localhost" else f"[::]:{_PORT}"
    return _with_port(str(address))


def _with_port(host: str) -> str:
    return f"[{host}]:{_PORT}" if ":" in host else f"{host}:{_PORT}"


def _report(plan: _Plan, kept: Sequence[Path]) -> str:
    name = next(iter(plan.clients))
    server = _with_port(plan.hosts[0])
    files = {"ca": f"{CA_NAME}.pem", "cert": f"{name}.pem", "key": f"{name}.key"}
    paths = {option: str(plan.pki / file) for option, file in files.items()}
    options = " ".join(f"--{option} {shlex.quote(path)}" for option, path in paths.items())
    lines = [
        *(f"kept {path}" for path in kept),
        f"made {plan.config}",
        f"made {plan.pki} with the CA, the server's certificate and, for {plan.days} days,",
        *(f"  {each}.pem and {each}.key  ({role.value})" for each, role in plan.clients.items()),
        "",
        "Start the service:",
        f"  jobworker serve --config {shlex.quote(str(plan.config))}",
        "",
        f"Run a command as {name}:",
        f"  jobctl run --server {server} {options} -- echo hello",
        "",
        f"Or put this into ~/.config/jobworker/profiles.toml and say jobctl run --profile {name}:",
        f"  [{name}]" if name.isalnum() else f'  ["{name}"]',
        f'  server = "{server}"',
        *(f"  {option} = {toml_text(path)}" for option, path in paths.items()),
    ]
    return "\n".join(lines)
