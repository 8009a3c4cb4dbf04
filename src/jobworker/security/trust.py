"""Which client certificates are trusted now: the CA certificates, and what they revoked.

Owns: reading the two files, keeping the last good state, the checks of one leaf against it.  Not
what a leaf says about its holder (identity.py).

A damaged, missing or older list never takes effect: at the start it is an error, later the last
good state stays in force and ``problem`` says so until the files are right again.  Otherwise
deleting a file would let revoked certificates in.  A leaf whose issuer has no list is refused.

The handshake has checked the chain already, but not that of a resumed session (RFC 8446, section
2.2: certificates are not exchanged again), and that may be older than the present files.

Source: RFC 5280, sections 5 and 6.3.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from jobworker.errors import FailedPreconditionError, UnauthenticatedError

logger = logging.getLogger(__name__)

#: Of each file: a list entry takes about 40 bytes, so this is some 400,000 revoked certificates.
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_CRL_BEGIN: Final = b"-----BEGIN X509 CRL-----"

#: What the parser raises for bytes that are no good certificate or list; KeyError is for a name
#: made of a string type that it does not know.
PARSE_ERRORS: Final = (
    ValueError,
    KeyError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

FileSignature: TypeAlias = tuple[int, ...]
_Signatures: TypeAlias = tuple[FileSignature | None, FileSignature | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Issuer:
    """A CA certificate with its revocation list."""

    certificate: x509.Certificate
    revoked: frozenset[int]
    crl_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the files said when last good.  CA certificates without a list are left out."""

    issuers: tuple[_Issuer, ...]

    def numbers(self) -> Mapping[bytes, int]:
        """The number of each list by the key that signed it."""
        return {_key_id(issuer.certificate): issuer.crl_number for issuer in self.issuers}


class TrustStore:
    """The CA file and the revocation file.  Reading blocks; asking does not.

    Any thread may reload and ask: what is in force is one object, replaced as a whole.
    """

    def __init__(self, *, ca_file: Path, crl_file: Path) -> None:
        """Raises FailedPreconditionError if the files cannot be used."""
        self.ca_file = ca_file
        self.crl_file = crl_file
        self.problem: str | None = None
        """Why the files as they are now are not in force; ``None`` while they are."""
        self._seen: _Signatures | None = self._signatures()
        """Of the files that are in force; ``None`` after a failure, so that they are read again."""
        self._state = _load(ca_file, crl_file)
        self._generation = 0
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """Goes up with each change in force: what was checked before is to be checked again."""
        return self._generation

    def reload(self) -> bool:
        """Look at the files again; True if something else is in force from now on.  Blocks.

        Never raises for what is wrong with the files: see ``problem``.
        """
        with self._lock:
            return self._reload()

    def _reload(self) -> bool:
        # Taken before the reading: what changes in between is found at the next look.
        signatures = self._signatures()
        if signatures == self._seen:
            return False
        try:
            state = _load(self.ca_file, self.crl_file)
            _refuse_older(self._state, state)
        except FailedPreconditionError as error:
            self._not_reloaded(str(error))
            return False
        self._seen = signatures
        self.problem = None
        if state == self._state:
            return False
        self._state = state
        self._generation += 1
        logger.info("trust files reloaded", extra={"generation": self._generation})
        return True

    def _not_reloaded(self, problem: str) -> None:
        # Good files may be unreadable for a moment, for want of descriptors say: they are read
        # again at each look, although they do not change, and the log is told once.
        self._seen = None
        if problem != self.problem:
            logger.error("trust files not reloaded", extra={"problem": problem})
        self.problem = problem

    def check_issued(self, leaf: x509.Certificate) -> None:
        """Raises UnauthenticatedError unless a CA of ours signed it.  The slow half: cache it."""
        self._issuer_of(leaf)

    def check_not_revoked(self, leaf_serial: int, leaf_issuer: x509.Name) -> None:
        """Raises UnauthenticatedError if it is revoked.  The quick half: ask it on every call."""
        for issuer in self._state.issuers:
            if issuer.certificate.subject == leaf_issuer and leaf_serial in issuer.revoked:
                raise UnauthenticatedError(f"it is revoked (serial number {leaf_serial:x})")

    def _issuer_of(self, leaf: x509.Certificate) -> _Issuer:
        for issuer in self._state.issuers:
            if issuer.certificate.subject != leaf.issuer:
                continue
            try:
                leaf.verify_directly_issued_by(issuer.certificate)
            except (InvalidSignature, *PARSE_ERRORS):
                continue
            return issuer
        raise UnauthenticatedError("it was not issued by a CA that this service trusts")

    def _signatures(self) -> _Signatures:
        return file_signature(self.ca_file), file_signature(self.crl_file)


def file_signature(path: Path) -> FileSignature | None:
    """Changes whenever the file is replaced or written; ``None`` where there is none.  Blocks."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load_ca_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Those of a PEM file; raises FailedPreconditionError unless all may sign leaves."""
    action = f"use the CA file {path}"
    try:
        certificates = tuple(x509.load_pem_x509_certificates(_read(path, action)))
        for certificate in certificates:
            _check_ca(certificate, action)
    except PARSE_ERRORS as error:
        raise FailedPreconditionError(action, f"it is no PEM certificate ({error})") from error
    return certificates


def _check_ca(certificate: x509.Certificate, action: str) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound as error:
        raise FailedPreconditionError(action, "it holds a certificate of no CA") from error
    if not constraints.value.ca:
        raise FailedPreconditionError(action, "it holds a certificate of no CA")
    if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        raise FailedPreconditionError(action, "the key of a CA must be an elliptic curve's")


def _load(ca_file: Path, crl_file: Path) -> _State:
    certificates = load_ca_certificates(ca_file)
    action = f"use the revocation list {crl_file}"
    text = _read(crl_file, action)
    blocks = [_CRL_BEGIN + block for block in text.split(_CRL_BEGIN)[1:]]
    if not blocks:
        raise FailedPreconditionError(action, "there is no PEM revocation list in it")
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
        issuers = tuple(_issuer_of_list(crl, certificates, action) for crl in lists)
    except PARSE_ERRORS as error:
        raise FailedPreconditionError(action, f"it is damaged ({error})") from error
    return _State(issuers=issuers)


def _issuer_of_list(
    crl: x509.CertificateRevocationList, certificates: tuple[x509.Certificate, ...], action: str
) -> _Issuer:
    for certificate in certificates:
        key = certificate.public_key()
        # load_ca_certificates saw to the type; is_signature_valid wants to be told.
        if not isinstance(key, ec.EllipticCurvePublicKey) or crl.issuer != certificate.subject:
            continue
        if not crl.is_signature_valid(key):
            continue
        return _Issuer(
            certificate=certificate,
            revoked=frozenset(entry.serial_number for entry in crl),
            crl_number=_crl_number(crl),
        )
    raise FailedPreconditionError(action, "it is not signed by a CA of the CA file")


def _crl_number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _refuse_older(old: _State, new: _State) -> None:
    """A list that was replaced by an earlier one would let in what was revoked in between."""
    numbers = old.numbers()
    for issuer in new.issuers:
        least = numbers.get(_key_id(issuer.certificate), 0)
        if issuer.crl_number < least:
            raise FailedPreconditionError(
                "use the revocation list",
                f"its number is {issuer.crl_number}, and number {least} is in force",
            )


def _key_id(certificate: x509.Certificate) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def _read(path: Path, action: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise FailedPreconditionError(action, error.strerror or str(error)) from error
    if len(data) > _FILE_BYTES_MAX:
        raise FailedPreconditionError(action, f"it has more than {_FILE_BYTES_MAX} bytes")
    return data
