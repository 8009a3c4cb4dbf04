"""``jobworker cert``: issue, revoke and list the certificates of an installation.

Owns: the subcommand.  Not what a certificate says (``security.pki``) and not where it is kept
(``security.store``).  A running service takes up what is changed here by itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from jobworker.errors import FailedPreconditionError, UnauthenticatedError
from jobworker.host.init import PKI_DIRECTORY
from jobworker.model.ids import UserName, parse_user_name
from jobworker.security import pki
from jobworker.security.identity import parse_principal
from jobworker.security.policy import Role
from jobworker.security.store import (
    CA_NAME,
    SERVER_NAME,
    PkiStore,
    check_file_name,
    read_certificate,
    revocations_of,
)

_COLUMNS: Final = ("name", "role", "serial", "not_after", "state")
#: In the list; no role of a user.
_SERVER_ROLE: Final = "server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the subcommand and of those below it."""
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)

    issue = _add(commands, "issue", _issue, "make a certificate and a key for a user")
    issue.add_argument("name", metavar="NAME", help="the user; also the name of the files")
    issue.add_argument("--role", required=True, choices=[role.value for role in Role])
    issue.add_argument(
        "--force",
        action="store_true",
        help="replace the user's files; earlier certificates of theirs stay valid until revoked",
    )
    _add_days(issue)

    renew = _add(commands, "renew-server", _renew_server, "replace the server's certificate")
    renew.add_argument(
        "--host",
        action="append",
        metavar="HOST",
        help="name or address of the server; may be repeated (default: those it has)",
    )
    _add_days(renew)

    revoke = _add(commands, "revoke", _revoke, "make certificates worth nothing")
    revoke.add_argument(
        "target",
        metavar="NAME|SERIAL|FILE",
        help="a user (all certificates of that name), a serial number, or a certificate's file",
    )

    listing = _add(commands, "list", _list, "show what was issued")
    listing.add_argument("-o", "--output", choices=["table", "json"], default="table")


def run(args: argparse.Namespace) -> int:
    """Do what was chosen."""
    code: int = args.run_cert(args, PkiStore(args.dir / PKI_DIRECTORY))
    return code


def _add(commands: Any, name: str, function: object, text: str) -> argparse.ArgumentParser:  # noqa: ANN401 -- argparse's type for it is private
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--dir", type=Path, required=True, metavar="D", help="directory of the installation"
    )
    parser.set_defaults(run_cert=function)
    return parser


def _add_days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=int, default=pki.LEAF_DAYS_DEFAULT, help="valid for (default: %(default)s)"
    )


def _issue(args: argparse.Namespace, store: PkiStore) -> int:
    name = check_file_name(parse_user_name(args.name))
    with store.lock():
        if store.has(name) and not args.force:
            raise FailedPreconditionError(
                f"issue a certificate for {name}",
                f"{store.certificate_file(name)} or its key exists; --force replaces them",
            )
        ca = store.read_pair(CA_NAME)
        earlier = _valid_of(name, store)
        pair = pki.issue_client(ca, name=name, role=Role(args.role), days=args.days)
        # The record first: there is no certificate that cannot be revoked by its name.
        store.record_issued(pair.certificate)
        store.write_pair(name, pair, replace=args.force)
    print(f"issued {store.certificate_file(name)} and {store.key_file(name)}")
    print(f"serial number {pair.certificate.serial_number:x}")
    for row in earlier:
        serial, directory = row["serial"], shlex.quote(str(args.dir))
        print(f"an earlier one ({row['role']}) is valid until {row['not_after']}; to revoke it:")
        print(f"  jobworker cert revoke {serial} --dir {directory}")
    return 0


def _valid_of(name: UserName, store: PkiStore) -> Sequence[dict[str, str]]:
    """What still lets somebody in as this user: new files do not end the old certificates."""
    return [
        row
        for row in _rows(store)
        if (row["name"], row["state"]) == (name, "valid") and row["role"] != _SERVER_ROLE
    ]


def _renew_server(args: argparse.Namespace, store: PkiStore) -> int:
    with store.lock():
        ca = store.read_pair(CA_NAME)
        hosts = args.host or _hosts_of(read_certificate(store.certificate_file(SERVER_NAME)))
        pair = pki.issue_server(ca, hosts=hosts, days=args.days)
        store.record_issued(pair.certificate)
        store.write_pair(SERVER_NAME, pair, replace=True)
    print(f"renewed {store.certificate_file(SERVER_NAME)} for {', '.join(hosts)}")
    return 0


def _revoke(args: argparse.Namespace, store: PkiStore) -> int:
    with store.lock():
        ca = store.read_pair(CA_NAME)
        crl = store.read_crl()
        targets = _find(args.target, store, ca)
        now = datetime.datetime.now(datetime.UTC)
        known = {entry.serial: entry for entry in revocations_of(crl)}
        fresh = [each for each in targets if each.serial_number not in known]
        for each in fresh:
            serial = each.serial_number
            known[serial] = pki.Revocation(serial=serial, revoked_at=now)
        if fresh:
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
            store.write_crl(pki.make_crl(ca, known.values(), number=number), replace=True)
    for each in targets:
        verb = "revoked" if each in fresh else "was revoked before:"
        print(f"{verb} {_name_and_role(each)[0]}, serial number {each.serial_number:x}")
    return 0


def _list(args: argparse.Namespace, store: PkiStore) -> int:
    rows = _rows(store)
    if args.output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    table = [[column.upper().replace("_", " ") for column in _COLUMNS]]
    table += [[row[column] for column in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _rows(store: PkiStore) -> Sequence[dict[str, str]]:
    """Of every certificate that was issued, the oldest first."""
    revoked = {entry.serial for entry in revocations_of(store.read_crl())}
    now = datetime.datetime.now(datetime.UTC)
    return [_row(certificate, revoked, now) for certificate in store.issued()]


def _row(
    certificate: x509.Certificate, revoked: set[int], now: datetime.datetime
) -> dict[str, str]:
    name, role = _name_and_role(certificate)
    not_after = certificate.not_valid_after_utc
    expired = not_after < now
    state = "expired" if expired else "valid"
    return {
        "name": name,
        "role": role,
        "serial": f"{certificate.serial_number:x}",
        "not_after": f"{not_after:%Y-%m-%dT%H:%M:%SZ}",
        "state": "revoked" if certificate.serial_number in revoked else state,
    }


def _find(target: str, store: PkiStore, ca: pki.KeyPair) -> Sequence[x509.Certificate]:
    """The certificates that a word of the command line means; never none."""
    action = f"revoke {target}"
    if "/" in target or target.endswith(".pem"):
        certificate = read_certificate(Path(target))
        try:
            certificate.verify_directly_issued_by(ca.certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise FailedPreconditionError(action, "it was issued by another CA") from error
        return [certificate]
    issued = store.issued()
    by_name = [each for each in issued if _name_and_role(each)[0] == target]
    by_serial = [each for each in issued if f"{each.serial_number:x}" == target.lower()]
    if by_name and by_serial:
        raise FailedPreconditionError(action, "it is both a name and a serial number")
    if not by_name and not by_serial:
        raise FailedPreconditionError(action, "no certificate of that name or serial was issued")
    return by_name or by_serial


def _name_and_role(certificate: x509.Certificate) -> tuple[str, str]:
    try:
        principal = parse_principal(certificate)
    except UnauthenticatedError:  # the server's
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return ", ".join(str(name.value) for name in names), _SERVER_ROLE
    return principal.name, principal.role.value


def _hosts_of(certificate: x509.Certificate) -> Sequence[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]
