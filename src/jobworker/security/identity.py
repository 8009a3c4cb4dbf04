"""Who is calling: from the client certificate of a connection to a name and a role.

Owns: every rule on what a client certificate must say.  Not the CA and the revocations (trust.py),
not what the caller may do (policy.py).

The identity is taken from the certificate itself and not from what gRPC makes of it: gRPC cuts a
common name at a NUL character, so that "admin\\0.evil" reads "admin" there, and mixes all kinds of
alternative names.  Every check is made on every call, because a handshake that resumes a session
makes none: the parsing is cached, time and revocation never are.

Source: RFC 5280, section 4.2.1 (extensions) and appendix A (common name, organization).
"""

from __future__ import annotations

import datetime
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jobworker.errors import InvalidArgumentError, UnauthenticatedError
from jobworker.model.ids import UserName, parse_user_name
from jobworker.security.policy import Principal, Role
from jobworker.security.tls import assert_tls13
from jobworker.security.trust import PARSE_ERRORS, TrustStore

#: One certificate of ours has under 1 KiB; more than this is nobody's leaf.
_PEM_BYTES_MAX: Final = 16 * 1024
#: Parsed certificates that are kept: more than a service has users at one time, about 4 MB.
_CACHE_ENTRIES_MAX: Final = 1024
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller, and by which certificate."""

    principal: Principal
    serial_hex: str
    not_after: datetime.datetime
    """UTC; the certificate, and with it every stream, ends after this moment."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    """What of a certificate does not change with time."""

    identity: Identity
    not_before: datetime.datetime
    serial: int
    issuer: x509.Name
    generation: int
    """Of the trust store when the issuer was checked."""


class Authenticator:
    """Answers who is calling.  Belongs to one thread (the event loop's); never blocks."""

    def __init__(
        self, trust: TrustStore, *, clock: Callable[[], datetime.datetime] | None = None
    ) -> None:
        self._trust = trust
        self._clock = clock or _utc_now
        self._cache: OrderedDict[bytes, _Parsed] = OrderedDict()

    def identify(self, auth_context: Mapping[str, Iterable[bytes]]) -> Identity:
        """The caller of an RPC, from its ``auth_context()``; raises UnauthenticatedError."""
        assert_tls13(auth_context)
        certificates = [bytes(pem) for pem in auth_context.get("x509_pem_cert", ())]
        if len(certificates) != 1:
            raise UnauthenticatedError(f"{len(certificates)} were presented instead of one")
        return self.authenticate(certificates[0])

    def authenticate(self, pem: bytes) -> Identity:
        """The holder of a certificate; raises UnauthenticatedError with the reason.

        Ask it again for a stream that goes on: revocation and time may have overtaken it.
        """
        parsed = self._cache.get(pem)
        if parsed is None or parsed.generation != self._trust.generation:
            parsed = _parse(pem, self._trust)
            self._cache[pem] = parsed
            if len(self._cache) > _CACHE_ENTRIES_MAX:
                self._cache.popitem(last=False)
        self._cache.move_to_end(pem)
        now = self._clock()
        if now < parsed.not_before:
            raise UnauthenticatedError(f"it is not valid before {_shown_time(parsed.not_before)}")
        if now > parsed.identity.not_after:
            raise UnauthenticatedError(f"it expired at {_shown_time(parsed.identity.not_after)}")
        self._trust.check_not_revoked(parsed.serial, parsed.issuer)
        return parsed.identity


def parse_principal(certificate: x509.Certificate) -> Principal:
    """What the certificate makes its holder; raises UnauthenticatedError if that is not clear.

    Only the subject counts: an alternative name is never an identity here.
    """
    subject = certificate.subject
    name = _only_value(subject, NameOID.COMMON_NAME, "common names (the user)")
    role = _only_value(subject, NameOID.ORGANIZATION_NAME, "organizations (the role)")
    try:
        user = parse_user_name(name)
    except InvalidArgumentError as error:
        raise UnauthenticatedError(str(error)) from error
    try:
        return Principal(name=UserName(user), role=Role(role))
    except ValueError as error:
        roles = " or ".join(repr(known.value) for known in Role)
        why = f"its organization {role!r} is no role: it takes {roles}"
        raise UnauthenticatedError(why) from error


def check_client_leaf(certificate: x509.Certificate) -> None:
    """Raises UnauthenticatedError unless key, signature and extensions are those of a client leaf.

    gRPC accepts a certificate without extended key usage, and RSA keys of 1024 bits.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise UnauthenticatedError("its key is none of the curves P-256 and P-384")
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        raise UnauthenticatedError("its signature is made with a hash weaker than SHA-256")
    extensions = certificate.extensions
    usages = _extension(extensions, x509.ExtendedKeyUsage)
    if usages is None or ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise UnauthenticatedError("its extended key usage does not name client authentication")
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise UnauthenticatedError("it is the certificate of a CA")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is not None and (usage.key_cert_sign or not usage.digital_signature):
        raise UnauthenticatedError("its key usage is not that of a client")


def _parse(pem: bytes, trust: TrustStore) -> _Parsed:
    if len(pem) > _PEM_BYTES_MAX:
        raise UnauthenticatedError(f"it has {len(pem)} bytes, and the most is {_PEM_BYTES_MAX}")
    generation = trust.generation
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        if len(certificates) != 1:
            raise UnauthenticatedError(f"{len(certificates)} were presented instead of one")
        certificate = certificates[0]
        check_client_leaf(certificate)
        principal = parse_principal(certificate)
        trust.check_issued(certificate)
        return _Parsed(
            identity=Identity(
                principal=principal,
                serial_hex=f"{certificate.serial_number:x}",
                not_after=certificate.not_valid_after_utc,
                fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            ),
            not_before=certificate.not_valid_before_utc,
            serial=certificate.serial_number,
            issuer=certificate.issuer,
            generation=generation,
        )
    except PARSE_ERRORS as error:
        raise UnauthenticatedError(f"it cannot be read ({error})") from error


def _only_value(subject: x509.Name, oid: x509.ObjectIdentifier, what: str) -> str:
    """what: in the plural, for the message."""
    values = [attribute.value for attribute in subject.get_attributes_for_oid(oid)]
    if len(values) != 1:
        raise UnauthenticatedError(f"it has {len(values)} {what} instead of one")
    value = values[0]
    if not isinstance(value, str):
        raise UnauthenticatedError(f"one of its {what} is not text")
    return value


def _extension(extensions: x509.Extensions, kind: type[_ExtensionT]) -> _ExtensionT | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _shown_time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
