"""Certificates for tests: good ones as the product makes them, and bad ones of every kind."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jobworker.model.ids import UserName
from jobworker.security import pki
from jobworker.security.policy import Role
from jobworker.security.store import CA_NAME, SERVER_NAME, PkiStore, revocations_of

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH
HOSTS: Final = ("localhost", "127.0.0.1", "::1")


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def days(count: float) -> datetime.timedelta:
    return datetime.timedelta(days=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate and its key as PEM."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a forged leaf says; the defaults are those of a good client leaf for alice."""

    names: Sequence[str] = ("alice",)
    roles: Sequence[str] = ("user",)
    alternative_names: Sequence[x509.GeneralName] = ()
    usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT_AUTH,)
    key: Callable[[], PrivateKey] = field(default=lambda: ec.generate_private_key(ec.SECP256R1()))
    hash: hashes.SHA224 | hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA256)
    is_ca: bool = False
    has_constraints: bool = True
    digital_signature: bool = True
    not_before: datetime.datetime = field(default_factory=lambda: utc_now() - days(1))
    not_after: datetime.datetime = field(default_factory=lambda: utc_now() + days(1))


def forge(ca: pki.KeyPair, wanted: Wanted) -> Leaf:
    """Sign anything at all."""
    key = wanted.key()
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, role) for role in wanted.roles]
    attributes += [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in wanted.names]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wanted.not_before)
        .not_valid_after(wanted.not_after)
        .add_extension(_key_usage(wanted), critical=True)
    )
    if wanted.has_constraints:
        constraints = x509.BasicConstraints(ca=wanted.is_ca, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    if wanted.usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted.usages), critical=False)
    if wanted.alternative_names:
        names = x509.SubjectAlternativeName(wanted.alternative_names)
        builder = builder.add_extension(names, critical=False)
    return Leaf(certificate=builder.sign(ca.key, wanted.hash), key=key)


def _key_usage(wanted: Wanted) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=wanted.digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=wanted.is_ca,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


#: Client leaves that our own CA signed and that must be refused all the same, with a part of the
#: reason.  gRPC itself lets most of them pass.
REFUSED_LEAVES: Final[Mapping[str, tuple[Wanted, str]]] = {
    "no extended key usage": (Wanted(usages=None), "extended key usage"),
    "server authentication only": (Wanted(usages=[SERVER_AUTH]), "extended key usage"),
    "any extended key usage": (
        Wanted(usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        "extended key usage",
    ),
    "RSA 1024": (Wanted(key=lambda: rsa.generate_private_key(65537, 1024)), "its key"),
    "RSA 2048": (Wanted(key=lambda: rsa.generate_private_key(65537, 2048)), "its key"),
    "Ed25519": (Wanted(key=ed25519.Ed25519PrivateKey.generate), "its key"),
    "curve P-521": (Wanted(key=lambda: ec.generate_private_key(ec.SECP521R1())), "its key"),
    "SHA-224": (Wanted(hash=hashes.SHA224()), "hash"),
    "CA": (Wanted(is_ca=True), "of a CA"),
    "no digital signature": (Wanted(digital_signature=False), "key usage"),
    "NUL in the common name": (Wanted(names=["admin\0.evil"]), "user name"),
    "line end in the common name": (Wanted(names=["alice\n"]), "user name"),
    "space in the common name": (Wanted(names=["alice smith"]), "user name"),
    "non-ASCII common name": (Wanted(names=["аlice"]), "user name"),  # a Cyrillic letter
    "path in the common name": (Wanted(names=["../alice"]), "user name"),
    "no common name": (Wanted(names=[]), "0 common names"),
    "two common names": (Wanted(names=["alice", "admin"]), "2 common names"),
    "no organization": (Wanted(roles=[]), "0 organizations"),
    "two organizations": (Wanted(roles=["user", "admin"]), "2 organizations"),
    "unknown role": (Wanted(roles=["root"]), "no role"),
    "role in capitals": (Wanted(roles=["Admin"]), "no role"),
    "NUL in the role": (Wanted(roles=["admin\0"]), "no role"),
    "name only in an alternative name": (
        Wanted(names=[], alternative_names=[x509.DNSName("admin")]),
        "0 common names",
    ),
    "expired": (Wanted(not_before=utc_now() - days(2), not_after=utc_now() - days(1)), "expired"),
    "not yet valid": (
        Wanted(not_before=utc_now() + days(1), not_after=utc_now() + days(2)),
        "not valid before",
    ),
}

#: Leaves that look odd and are in order.
ACCEPTED_LEAVES: Final[Mapping[str, Wanted]] = {
    "plain": Wanted(),
    "curve P-384 and SHA-384": Wanted(
        key=lambda: ec.generate_private_key(ec.SECP384R1()), hash=hashes.SHA384()
    ),
    "both usages": Wanted(usages=[CLIENT_AUTH, SERVER_AUTH]),
    "no basic constraints": Wanted(has_constraints=False),
    "alternative names that look like others": Wanted(
        alternative_names=[
            x509.DNSName("admin"),
            x509.RFC822Name("admin@example.com"),
            x509.UniformResourceIdentifier("spiffe://example.com/admin"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])),
        ]
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """PEM contents for ``jobworker.security.tls.channel_credentials``."""

    ca: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Installation:
    """The PKI of a service in a directory, with the file names that ``jobworker init`` makes."""

    store: PkiStore

    @property
    def ca(self) -> pki.KeyPair:
        return self.store.read_pair(CA_NAME)

    @property
    def ca_file(self) -> Path:
        return self.store.certificate_file(CA_NAME)

    def client_files(self, name: str) -> ClientFiles:
        """Of a user that has files here."""
        return ClientFiles(
            ca=self.ca_file.read_bytes(),
            certificate=self.store.certificate_file(name).read_bytes(),
            key=self.store.key_file(name).read_bytes(),
        )

    def forged_files(self, wanted: Wanted) -> ClientFiles:
        """Of a leaf that the CA signs but the product would not make."""
        leaf = forge(self.ca, wanted)
        return ClientFiles(
            ca=self.ca_file.read_bytes(), certificate=leaf.certificate_pem, key=leaf.key_pem
        )

    def revoke(self, *certificates: x509.Certificate) -> None:
        """Write the next revocation list."""
        crl = self.store.read_crl()
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        fresh = [pki.Revocation(serial=c.serial_number, revoked_at=utc_now()) for c in certificates]
        entries = [*revocations_of(crl), *fresh]
        self.store.write_crl(pki.make_crl(self.ca, entries, number=number + 1), replace=True)


def make_installation(
    directory: Path, *, users: Sequence[str] = ("alice", "bob"), admins: Sequence[str] = ("admin",)
) -> Installation:
    """A CA, an empty revocation list, a server for loopback, clients.  directory: not yet there."""
    store = PkiStore.create(directory)
    ca = pki.make_ca()
    store.write_pair(CA_NAME, ca)
    store.write_crl(pki.make_crl(ca, [], number=1), replace=False)
    store.write_pair(SERVER_NAME, pki.issue_server(ca, hosts=HOSTS))
    for names, role in ((users, Role.USER), (admins, Role.ADMIN)):
        for name in names:
            pair = pki.issue_client(ca, name=UserName(name), role=role)
            store.record_issued(pair.certificate)
            store.write_pair(name, pair)
    return Installation(store)
