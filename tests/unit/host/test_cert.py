"""``jobworker cert``: issue, revoke, list, renew."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from cryptography import x509

from jobworker.errors import UnauthenticatedError
from jobworker.host.main import main
from jobworker.security.identity import Authenticator
from jobworker.security.policy import Role
from jobworker.security.store import PkiStore, read_certificate
from jobworker.security.trust import TrustStore
from support.certificates import Wanted, days, forge, make_installation, utc_now


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_installation(tmp_path / "pki", users=["alice"], admins=["admin"])
    return tmp_path


def cert(directory: Path, *words: str) -> int:
    return main(["cert", *words, "--dir", str(directory)])


def is_accepted(directory: Path, name: str) -> bool:
    store = PkiStore(directory / "pki")
    trust = TrustStore(ca_file=store.certificate_file("ca"), crl_file=store.crl_file)
    try:
        Authenticator(trust).authenticate(store.certificate_file(name).read_bytes())
    except UnauthenticatedError:
        return False
    return True


def states(directory: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    capsys.readouterr()
    assert cert(directory, "list", "-o", "json") == 0
    found: dict[str, list[str]] = {}
    for row in json.loads(capsys.readouterr().out):
        found.setdefault(row["name"], []).append(row["state"])
    return found


def test_an_issued_certificate_is_accepted(directory: Path) -> None:
    assert cert(directory, "issue", "carol", "--role", "admin", "--days", "7") == 0
    store = PkiStore(directory / "pki")
    trust = TrustStore(ca_file=store.certificate_file("ca"), crl_file=store.crl_file)
    pair = store.read_pair("carol")
    identity = Authenticator(trust).authenticate(pair.certificate_pem)
    assert identity.principal.role is Role.ADMIN
    assert days(6) < identity.not_after - utc_now() <= days(7)


def test_a_name_that_is_taken_is_refused(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = (directory / "pki/alice.key").read_bytes()
    assert cert(directory, "issue", "alice", "--role", "user") == 1
    assert "cannot issue a certificate for alice" in capsys.readouterr().err
    assert (directory / "pki/alice.key").read_bytes() == key


def test_force_renews_and_the_old_one_is_still_revocable(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cert(directory, "issue", "alice", "--role", "user", "--force") == 0
    assert states(directory, capsys)["alice"] == ["valid", "valid"]
    assert cert(directory, "revoke", "alice") == 0
    assert states(directory, capsys)["alice"] == ["revoked", "revoked"]


def test_a_new_certificate_names_the_earlier_ones_that_still_let_the_user_in(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = PkiStore(directory / "pki")
    past = Wanted(not_before=utc_now() - days(2), not_after=utc_now() - days(1))
    store.record_issued(forge(store.read_pair("ca"), past).certificate)
    old = read_certificate(store.certificate_file("alice"))
    assert cert(directory, "issue", "alice", "--role", "admin", "--force") == 0
    lines = capsys.readouterr().out.splitlines()
    until = f"{old.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    (told,) = (line for line in lines if line.startswith("an earlier one"))
    assert told == f"an earlier one (user) is valid until {until}; to revoke it:"

    (command,) = (line for line in lines if "cert revoke" in line)
    assert main(shlex.split(command)[1:]) == 0
    assert f"serial number {old.serial_number:x}" in capsys.readouterr().out
    assert is_accepted(directory, "alice")
    assert sorted(states(directory, capsys)["alice"]) == ["expired", "revoked", "valid"]
    assert cert(directory, "revoke", "alice") == 0
    capsys.readouterr()
    assert cert(directory, "issue", "alice", "--role", "user", "--force") == 0
    assert "an earlier one" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ca", "server", "../x", "-x", "a b"])
def test_a_name_that_no_user_may_have_is_refused(directory: Path, name: str) -> None:
    before = sorted(directory.rglob("*"))
    assert main(["cert", "issue", "--role", "user", "--dir", str(directory), "--", name]) == 1
    assert sorted(directory.rglob("*")) == before


def test_a_revoked_name_is_refused_and_the_others_are_not(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_accepted(directory, "alice")
    assert cert(directory, "revoke", "alice") == 0
    assert not is_accepted(directory, "alice")
    assert is_accepted(directory, "admin")
    assert states(directory, capsys) == {"alice": ["revoked"], "admin": ["valid"]}


def test_a_certificate_is_revoked_by_its_serial_number_or_its_file(directory: Path) -> None:
    serial = read_certificate(directory / "pki/alice.pem").serial_number
    assert cert(directory, "revoke", f"{serial:X}") == 0
    assert not is_accepted(directory, "alice")
    assert cert(directory, "revoke", str(directory / "pki/admin.pem")) == 0
    assert not is_accepted(directory, "admin")
    assert not is_accepted(directory, "alice")


def test_revoking_again_changes_nothing(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert(directory, "revoke", "alice")
    before = (directory / "pki/ca.crl").read_bytes()
    capsys.readouterr()
    assert cert(directory, "revoke", "alice") == 0
    assert (directory / "pki/ca.crl").read_bytes() == before
    assert "was revoked before" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["nobody", "abcdef", "ca", "absent.pem"])
def test_what_was_never_issued_is_not_revoked(
    directory: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (directory / "pki/ca.crl").read_bytes()
    assert cert(directory, "revoke", target) == 1
    assert "jobworker: cannot " in capsys.readouterr().err
    assert (directory / "pki/ca.crl").read_bytes() == before


def test_a_file_of_another_ca_is_not_revoked(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_installation(tmp_path / "other").store.certificate_file("alice")
    assert cert(directory, "revoke", str(other)) == 1
    assert "issued by another CA" in capsys.readouterr().err


def test_the_list_tells_states(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = PkiStore(directory / "pki")
    past = Wanted(names=["dave"], not_before=utc_now() - days(2), not_after=utc_now() - days(1))
    store.record_issued(forge(store.read_pair("ca"), past).certificate)
    assert states(directory, capsys) == {
        "dave": ["expired"],
        "alice": ["valid"],
        "admin": ["valid"],
    }
    assert cert(directory, "list") == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "ROLE", "SERIAL", "NOT", "AFTER", "STATE"]
    assert rows[0].startswith("dave ")  # the oldest first
    assert {row.split()[0] for row in rows} == {"dave", "alice", "admin"}


def test_the_server_is_renewed_for_the_names_it_has(directory: Path) -> None:
    path = directory / "pki/server.pem"
    before = read_certificate(path)
    assert cert(directory, "renew-server", "--days", "30") == 0
    after = read_certificate(path)
    assert after.serial_number != before.serial_number
    kind = x509.SubjectAlternativeName
    names = {each.extensions.get_extension_for_class(kind).value for each in (before, after)}
    assert len(names) == 1
    PkiStore(directory / "pki").read_pair("server")


def test_without_an_installation_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cert(tmp_path, "issue", "alice", "--role", "user") == 1
    assert f"cannot use {tmp_path}/pki: No such file" in capsys.readouterr().err
