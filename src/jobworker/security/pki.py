"""Making certificates: the installation's CA, its server and client leaves, its revocation list.

Owns: what goes into them.  Not where they are kept (store.py), not what is accepted from a caller
(identity.py, trust.py).

Source: RFC 5280, sections 4.1-4.2 (certificates) and 5.1-5.2 (revocation lists).
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jobworker.errors import InvalidArgumentError
from jobworker.model.ids import UserName, parse_user_name
from jobworker.security.policy import Role

CA_DAYS: Final = 3650
LEAF_DAYS_DEFAULT: Final = 90
"""Short, so that a stolen key that nobody missed stops being one."""
LEAF_DAYS_MAX: Final = 825
"""The most that common clients take for a leaf that a person installed."""

#: A client whose clock is a little behind must not find a certificate made just now "not yet
#: valid": the handshake would only tell it that the connection is closed.
_CLOCK_SKEW: Final = datetime.timedelta(minutes=5)

#: A label of a host name: RFC 1123, section 2.1.
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_HOST_CHARS_MAX: Final = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS #8, not encrypted: it is the file's mode that guards it."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry of a revocation list."""

    serial: int
    revoked_at: datetime.datetime


def make_ca(*, now: datetime.datetime | None = None, days: int = CA_DAYS) -> KeyPair:
    """A self-signed CA that may sign leaves and revocation lists, and no further CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Its own name for each CA: with equal names, a chain made by an older CA is found to have the
    # right issuer and a wrong signature, which no message explains.
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"jobworker CA {secrets.token_hex(4)}")]
    )
    builder = _builder(name, name, key.public_key(), now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    return KeyPair(certificate=builder.sign(key, hashes.SHA256()), key=key)


def issue_server(
    ca: KeyPair,
    *,
    hosts: Sequence[str],
    now: datetime.datetime | None = None,
    days: int = LEAF_DAYS_DEFAULT,
) -> KeyPair:
    """A leaf for a server that is reached under these host names and addresses."""
    if not hosts:
        raise InvalidArgumentError("hosts", hosts, "a server certificate takes at least one")
    names = x509.SubjectAlternativeName([_host_name(host) for host in dict.fromkeys(hosts)])
    # Clients look only at the alternative names (RFC 9525, section 6.3); the subject is for people.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jobworker server")])
    return _issue(
        ca, subject, ExtendedKeyUsageOID.SERVER_AUTH, now=now, days=days, alternative_names=names
    )


def issue_client(
    ca: KeyPair,
    *,
    name: UserName,
    role: Role,
    now: datetime.datetime | None = None,
    days: int = LEAF_DAYS_DEFAULT,
) -> KeyPair:
    """A leaf that makes its holder this user in this role."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, parse_user_name(name)),
        ]
    )
    return _issue(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, days=days)


def make_crl(
    ca: KeyPair,
    revocations: Iterable[Revocation],
    *,
    number: int,
    now: datetime.datetime | None = None,
) -> x509.CertificateRevocationList:
    """The CA's signed list.  number: more than that of the list before it."""
    now = now or utc_now()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now - _CLOCK_SKEW)
        # The field is not optional for us.  The next list comes when something is revoked and not
        # at a time, so this one is good for as long as its CA.
        .next_update(max(ca.certificate.not_valid_after_utc, now))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(ca), critical=False)
    )
    for entry in revocations:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(entry.revoked_at)
            .build()
        )
    return builder.sign(ca.key, hashes.SHA256())


def _issue(
    ca: KeyPair,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    *,
    now: datetime.datetime | None,
    days: int,
    alternative_names: x509.SubjectAlternativeName | None = None,
) -> KeyPair:
    if not 1 <= days <= LEAF_DAYS_MAX:
        raise InvalidArgumentError("days", days, f"it takes 1 to {LEAF_DAYS_MAX}")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, ca.certificate.subject, key.public_key(), now, days)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_key_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(_authority_key(ca), critical=False)
    if alternative_names is not None:
        builder = builder.add_extension(alternative_names, critical=False)
    return KeyPair(certificate=builder.sign(ca.key, hashes.SHA256()), key=key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime | None,
    days: int,
) -> x509.CertificateBuilder:
    now = now or utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_key(ca: KeyPair) -> x509.AuthorityKeyIdentifier:
    own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # not an address, so it must be a name
    labels = host.split(".")
    if len(host) > _HOST_CHARS_MAX or not all(map(_HOST_LABEL.fullmatch, labels)):
        raise InvalidArgumentError("host", host, "it takes a host name or an IP address")
    return x509.DNSName(host)


def utc_now() -> datetime.datetime:
    """With its zone, as certificates want it."""
    return datetime.datetime.now(datetime.UTC)
