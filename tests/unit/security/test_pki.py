"""What our certificates say, read back, and judged by OpenSSL."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.errors import InvalidArgumentError
from jobworker.model.ids import UserName
from jobworker.security import pki
from jobworker.security.policy import Role

NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def ca() -> pki.KeyPair:
    return pki.make_ca()


def issue_alice(
    ca: pki.KeyPair, *, now: datetime.datetime | None = None, days: int = 90
) -> x509.Certificate:
    pair = pki.issue_client(ca, name=UserName("alice"), role=Role.USER, now=now, days=days)
    return pair.certificate


def test_the_ca_signs_leaves_and_lists_and_no_other_ca(ca: pki.KeyPair) -> None:
    extensions = ca.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert isinstance(ca.key.curve, ec.SECP256R1)
    assert isinstance(ca.certificate.signature_hash_algorithm, hashes.SHA256)


def test_two_cas_have_two_names() -> None:
    assert pki.make_ca().certificate.subject != pki.make_ca().certificate.subject


def test_a_client_leaf_is_for_clients_only(ca: pki.KeyPair) -> None:
    leaf = issue_alice(ca)
    leaf.verify_directly_issued_by(ca.certificate)
    assert leaf.subject.rfc4514_string() == "CN=alice,O=user"
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_leaf_names_the_key_of_its_ca(ca: pki.KeyPair) -> None:
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    leaf = issue_alice(ca)
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == own.key_identifier


def test_a_server_leaf_has_its_names_and_addresses_once(ca: pki.KeyPair) -> None:
    hosts = ["build.example.com", "127.0.0.1", "::1", "localhost", "localhost"]
    leaf = pki.issue_server(ca, hosts=hosts).certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["build.example.com", "localhost"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize(
    "host", ["", "a b", "-a", "a..b", "a/b", "http://a", "a\n", "x" * 254, "ä.de"]
)
def test_a_host_that_is_none_is_refused(ca: pki.KeyPair, host: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use host "):
        pki.issue_server(ca, hosts=[host])


def test_a_leaf_is_valid_a_little_earlier_and_for_its_days(ca: pki.KeyPair) -> None:
    leaf = issue_alice(ca, now=NOW, days=7)
    assert NOW - leaf.not_valid_before_utc == datetime.timedelta(minutes=5)
    assert leaf.not_valid_after_utc - NOW == datetime.timedelta(days=7)


@pytest.mark.parametrize("days", [0, -1, 826])
def test_a_life_that_is_none_or_too_long_is_refused(ca: pki.KeyPair, days: int) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use days"):
        issue_alice(ca, days=days)


def test_a_name_that_no_user_may_have_gets_no_certificate(ca: pki.KeyPair) -> None:
    with pytest.raises(InvalidArgumentError, match="user name"):
        pki.issue_client(ca, name=UserName("a\0b"), role=Role.USER)


def test_serial_numbers_are_not_guessed(ca: pki.KeyPair) -> None:
    serials = {issue_alice(ca).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(serial.bit_length() > 100 for serial in serials)


def test_a_revocation_list_is_signed_and_numbered(ca: pki.KeyPair) -> None:
    crl = pki.make_crl(ca, [pki.Revocation(serial=77, revoked_at=NOW)], number=5)
    assert crl.is_signature_valid(ca.key.public_key())
    assert [entry.serial_number for entry in crl] == [77]
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 5


def test_openssl_agrees(ca: pki.KeyPair, tmp_path: Path) -> None:
    """A second reader of what we wrote: purposes, host name, revocation."""
    server = pki.issue_server(ca, hosts=["build.example.com"]).certificate_pem
    alice, bob = issue_alice(ca), issue_alice(ca)
    entry = pki.Revocation(serial=bob.serial_number, revoked_at=pki.utc_now())
    crl = pki.make_crl(ca, [entry], number=2)
    pem = serialization.Encoding.PEM
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    (tmp_path / "ca.crl").write_bytes(crl.public_bytes(pem))
    (tmp_path / "server.pem").write_bytes(server)
    (tmp_path / "alice.pem").write_bytes(alice.public_bytes(pem))
    (tmp_path / "bob.pem").write_bytes(bob.public_bytes(pem))

    def verify(*options: str) -> str:
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    host = ["-verify_hostname", "build.example.com"]
    with_crl = ["-crl_check", "-CRLfile", "ca.crl", "-purpose", "sslclient"]
    assert verify("-purpose", "sslserver", *host, "server.pem") == "server.pem: OK\n"
    assert "unsuitable certificate purpose" in verify("-purpose", "sslclient", "server.pem")
    assert verify(*with_crl, "alice.pem") == "alice.pem: OK\n"
    assert "certificate revoked" in verify(*with_crl, "bob.pem")
