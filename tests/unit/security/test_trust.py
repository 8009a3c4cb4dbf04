"""Which certificates are trusted: the CA file and the revocation list, good and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from jobworker.errors import FailedPreconditionError, UnauthenticatedError
from jobworker.security import pki
from jobworker.security.trust import TrustStore
from support.certificates import Installation, Wanted, forge, make_installation
from support.faults import no_descriptors


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return make_installation(tmp_path / "pki", users=["alice"], admins=[])


def open_trust(installation: Installation) -> TrustStore:
    return TrustStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)


def is_revoked(trust: TrustStore, pair: pki.KeyPair) -> bool:
    certificate = pair.certificate
    try:
        trust.check_not_revoked(certificate.serial_number, certificate.issuer)
    except UnauthenticatedError:
        return True
    return False


def test_unchanged_files_change_nothing(installation: Installation) -> None:
    trust = open_trust(installation)
    assert not trust.reload()
    assert trust.generation == 0


def test_a_revocation_takes_effect_with_the_next_look(installation: Installation) -> None:
    trust = open_trust(installation)
    alice = installation.store.read_pair("alice")
    assert not is_revoked(trust, alice)
    installation.revoke(alice.certificate)
    assert trust.reload()
    assert trust.generation == 1
    assert is_revoked(trust, alice)


@pytest.mark.parametrize("content", [b"", b"nonsense", None, b"-----BEGIN X509 CRL-----\nAAAA\n"])
def test_a_list_that_is_damaged_later_leaves_the_last_good_one_in_force(
    installation: Installation, content: bytes | None
) -> None:
    alice = installation.store.read_pair("alice")
    installation.revoke(alice.certificate)
    trust = open_trust(installation)
    crl_file = installation.store.crl_file
    good = crl_file.read_bytes()
    if content is None:
        crl_file.unlink()
    else:
        crl_file.write_bytes(content)

    assert not trust.reload()
    assert trust.problem is not None
    assert str(crl_file) in trust.problem
    assert is_revoked(trust, alice)

    crl_file.write_bytes(good)
    assert not trust.reload()
    assert trust.problem is None


def test_good_files_that_could_not_be_read_are_read_at_the_next_look(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    trust = open_trust(installation)
    alice = installation.store.read_pair("alice")
    installation.revoke(alice.certificate)
    with no_descriptors():
        assert not trust.reload()
        assert not trust.reload()
    assert trust.problem is not None
    assert trust.problem.endswith("Too many open files")
    assert [record.message for record in caplog.records] == ["trust files not reloaded"]
    assert trust.reload()
    assert is_revoked(trust, alice)
    assert trust.problem is None


def test_an_earlier_list_does_not_undo_a_later_one(installation: Installation) -> None:
    alice = installation.store.read_pair("alice")
    earlier = installation.store.crl_file.read_bytes()
    installation.revoke(alice.certificate)
    trust = open_trust(installation)
    installation.store.crl_file.write_bytes(earlier)
    assert not trust.reload()
    assert trust.problem is not None
    assert "number 2 is in force" in trust.problem
    assert is_revoked(trust, alice)


def test_a_list_that_somebody_else_signed_is_refused(installation: Installation) -> None:
    liar = pki.KeyPair(certificate=installation.ca.certificate, key=pki.make_ca().key)
    crl = pki.make_crl(liar, [], number=9)
    installation.store.write_crl(crl, replace=True)
    with pytest.raises(FailedPreconditionError, match="not signed by a CA"):
        open_trust(installation)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_without_a_good_list_there_is_no_start(
    installation: Installation, content: bytes | None
) -> None:
    if content is None:
        installation.store.crl_file.unlink()
    else:
        installation.store.crl_file.write_bytes(content)
    with pytest.raises(FailedPreconditionError, match=r"^cannot use the revocation list .*ca\.crl"):
        open_trust(installation)


def test_a_leaf_is_no_ca(installation: Installation) -> None:
    leaf = forge(installation.ca, Wanted())
    installation.ca_file.write_bytes(leaf.certificate_pem)
    with pytest.raises(FailedPreconditionError, match="no CA"):
        open_trust(installation)


def test_two_cas_are_trusted_while_one_replaces_the_other(installation: Installation) -> None:
    first, second = installation.ca, pki.make_ca()
    old, new = forge(first, Wanted()), forge(second, Wanted())
    trust = open_trust(installation)
    with pytest.raises(UnauthenticatedError):
        trust.check_issued(new.certificate)

    both = second.certificate_pem + first.certificate_pem
    installation.ca_file.write_bytes(both)
    trust.reload()
    with pytest.raises(UnauthenticatedError):
        trust.check_issued(new.certificate)  # its CA has no revocation list yet
    trust.check_issued(old.certificate)

    entry = pki.Revocation(serial=old.certificate.serial_number, revoked_at=pki.utc_now())
    lists = [pki.make_crl(first, [entry], number=2), pki.make_crl(second, [], number=1)]
    pems = [each.public_bytes(serialization.Encoding.PEM) for each in lists]
    installation.store.crl_file.write_bytes(b"".join(pems))
    assert trust.reload()
    trust.check_issued(new.certificate)
    trust.check_not_revoked(new.certificate.serial_number, new.certificate.issuer)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        trust.check_not_revoked(old.certificate.serial_number, old.certificate.issuer)
