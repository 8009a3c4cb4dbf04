"""Who is calling: what a client certificate must say, and for how long it counts."""

from __future__ import annotations

import base64
import datetime
import itertools
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from jobworker.errors import UnauthenticatedError
from jobworker.security import pki
from jobworker.security.identity import Authenticator
from jobworker.security.policy import Role
from jobworker.security.trust import TrustStore
from support.certificates import (
    ACCEPTED_LEAVES,
    REFUSED_LEAVES,
    Installation,
    Wanted,
    days,
    forge,
    make_installation,
    utc_now,
)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("identity") / "pki")


@pytest.fixture
def trust(installation: Installation) -> TrustStore:
    return TrustStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime.datetime:
        return self.now


def test_an_issued_certificate_names_its_holder(
    installation: Installation, trust: TrustStore
) -> None:
    pair = installation.store.read_pair("admin")
    identity = Authenticator(trust).authenticate(pair.certificate_pem)
    assert identity.principal.name == "admin"
    assert identity.principal.role is Role.ADMIN
    assert int(identity.serial_hex, 16) == pair.certificate.serial_number
    assert identity.not_after == pair.certificate.not_valid_after_utc
    assert identity.not_after.tzinfo is datetime.UTC
    assert len(identity.fingerprint) == 64


@pytest.mark.parametrize("kind", REFUSED_LEAVES)
def test_a_leaf_of_our_ca_is_refused_for(
    kind: str, installation: Installation, trust: TrustStore
) -> None:
    wanted, why = REFUSED_LEAVES[kind]
    leaf = forge(installation.ca, wanted)
    with pytest.raises(UnauthenticatedError, match=why) as refusal:
        Authenticator(trust).authenticate(leaf.certificate_pem)
    assert str(refusal.value).startswith("cannot accept the client certificate: ")


@pytest.mark.parametrize("kind", ACCEPTED_LEAVES)
def test_an_odd_leaf_is_accepted_for(
    kind: str, installation: Installation, trust: TrustStore
) -> None:
    leaf = forge(installation.ca, ACCEPTED_LEAVES[kind])
    identity = Authenticator(trust).authenticate(leaf.certificate_pem)
    assert identity.principal.name == "alice"
    assert identity.principal.role is Role.USER


def test_the_certificate_of_the_ca_itself_is_refused(
    installation: Installation, trust: TrustStore
) -> None:
    with pytest.raises(UnauthenticatedError):
        Authenticator(trust).authenticate(installation.ca.certificate_pem)


def test_the_servers_certificate_is_no_clients(
    installation: Installation, trust: TrustStore
) -> None:
    pair = installation.store.read_pair("server")
    with pytest.raises(UnauthenticatedError, match="extended key usage"):
        Authenticator(trust).authenticate(pair.certificate_pem)


def test_a_leaf_of_another_ca_is_refused(trust: TrustStore) -> None:
    """A resumed session brings one, when the CA was replaced since."""
    leaf = forge(pki.make_ca(), Wanted())
    with pytest.raises(UnauthenticatedError, match="not issued by a CA"):
        Authenticator(trust).authenticate(leaf.certificate_pem)


def test_the_name_of_our_ca_alone_is_not_enough(
    installation: Installation, trust: TrustStore
) -> None:
    other = pki.make_ca()
    liar = pki.KeyPair(certificate=installation.ca.certificate, key=other.key)
    leaf = forge(liar, Wanted())
    with pytest.raises(UnauthenticatedError, match="not issued by a CA"):
        Authenticator(trust).authenticate(leaf.certificate_pem)


def test_time_is_asked_on_every_call(installation: Installation, trust: TrustStore) -> None:
    """A resumed session and a long stream get older than their handshake."""
    clock = Clock()
    authenticator = Authenticator(trust, clock=clock)
    pem = forge(installation.ca, Wanted(not_after=clock.now + days(1))).certificate_pem
    authenticator.authenticate(pem)
    clock.now += days(2)
    with pytest.raises(UnauthenticatedError, match="expired at"):
        authenticator.authenticate(pem)


def test_revocation_is_asked_on_every_call(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "pki")
    trust = TrustStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)
    authenticator = Authenticator(trust)
    alice = installation.store.read_pair("alice")
    bob = installation.store.read_pair("bob")
    authenticator.authenticate(alice.certificate_pem)

    installation.revoke(alice.certificate)
    assert trust.reload()

    with pytest.raises(UnauthenticatedError, match="revoked"):
        authenticator.authenticate(alice.certificate_pem)
    assert authenticator.authenticate(bob.certificate_pem).principal.name == "bob"


def test_a_replaced_ca_ends_the_certificates_that_were_parsed(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "pki")
    trust = TrustStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)
    authenticator = Authenticator(trust)
    pem = installation.store.read_pair("alice").certificate_pem
    authenticator.authenticate(pem)

    ca = pki.make_ca()
    installation.store.write_pair("ca", ca, replace=True)
    installation.store.write_crl(pki.make_crl(ca, [], number=1), replace=True)
    assert trust.reload()

    with pytest.raises(UnauthenticatedError, match="not issued by a CA"):
        authenticator.authenticate(pem)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\0",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_certificate_is_refused(pem: bytes, trust: TrustStore) -> None:
    with pytest.raises(UnauthenticatedError):
        Authenticator(trust).authenticate(pem)


# The parser takes a negative serial number with a warning; the signature then is wrong.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_damaged_byte_is_refused_or_changes_nothing(
    installation: Installation, trust: TrustStore
) -> None:
    """Never another exception, never another name: the signature covers all that counts."""
    certificate = installation.store.read_pair("alice").certificate
    der = bytearray(certificate.public_bytes(serialization.Encoding.DER))
    authenticator = Authenticator(trust)
    for place, mask in itertools.product(range(len(der)), (0x01, 0x21, 0x80, 0xFF)):
        damaged = bytearray(der)
        damaged[place] ^= mask
        try:
            identity = authenticator.authenticate(as_pem(bytes(damaged)))
        except UnauthenticatedError:
            continue
        assert identity.principal.name == "alice"
        assert identity.principal.role is Role.USER


def as_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def test_two_certificates_are_not_one(installation: Installation, trust: TrustStore) -> None:
    alice = installation.store.read_pair("alice").certificate_pem
    admin = installation.store.read_pair("admin").certificate_pem
    authenticator = Authenticator(trust)
    with pytest.raises(UnauthenticatedError, match="2 were presented"):
        authenticator.authenticate(alice + admin)
    context = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [alice, admin]}
    with pytest.raises(UnauthenticatedError, match="2 were presented"):
        authenticator.identify(context)


def test_the_common_name_that_grpc_reports_does_not_count(
    installation: Installation, trust: TrustStore
) -> None:
    alice = installation.store.read_pair("alice").certificate_pem
    context = {
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [alice],
        "x509_common_name": [b"admin"],
    }
    assert Authenticator(trust).identify(context).principal.name == "alice"


def test_no_certificate_is_nobody(trust: TrustStore) -> None:
    with pytest.raises(UnauthenticatedError, match="0 were presented"):
        Authenticator(trust).identify({"ssl_tls_version": [b"TLSv1.3"]})


def test_an_older_tls_version_is_refused(installation: Installation, trust: TrustStore) -> None:
    alice = installation.store.read_pair("alice").certificate_pem
    context = {"ssl_tls_version": [b"TLSv1.2"], "x509_pem_cert": [alice]}
    with pytest.raises(UnauthenticatedError, match=r"speaks TLSv1\.2"):
        Authenticator(trust).identify(context)
