"""What is wrong with the client's own files: CA, certificate and key.

Owns: the look into them, after a failure.  Not the network (diagnose.py).
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.client.target import Target


class FaultyFileError(Exception):
    """A file that no attempt can succeed with; the text names it and says why."""


def check_files(target: Target) -> None:
    """Raises FaultyFileError for what is certainly wrong, whatever the service says."""
    load_certificates("CA", target.ca)
    certificate = load_certificates("certificate", target.cert)[0]
    _check_time(target.cert, certificate)
    _check_usage(target.cert, certificate)
    if _load_public_key(target.key) != certificate.public_key():
        raise FaultyFileError(
            f"the key in {target.key} does not belong to the certificate in {target.cert}"
        )


def other_issuer(target: Target) -> str:
    """Why the certificate may mean nothing to the service, "" if nothing speaks against it.

    Not certain: a service may trust another CA for its clients than the one it is vouched for by.
    """
    certificate = load_certificates("certificate", target.cert)[0]
    for authority in load_certificates("CA", target.ca):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return ""
    return f"the certificate in {target.cert} is not issued by the CA in {target.ca}"


def load_certificates(role: str, path: Path) -> list[x509.Certificate]:
    """At least one; raises FaultyFileError."""
    data = _read(role, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        why = f"there is no certificate in the {role} file {path}: it takes PEM"
        raise FaultyFileError(why) from error


def _read(role: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"the {role} file {path} cannot be read ({error.strerror})"
        raise FaultyFileError(why) from error


def _load_public_key(path: Path) -> PublicKeyTypes:
    """The public half of the private key in a file."""
    data = _read("key", path)
    try:
        return serialization.load_pem_private_key(data, password=None).public_key()
    except TypeError as error:  # what cryptography raises for a missing password
        why = f"the key in {path} is encrypted: it takes one without a password"
        raise FaultyFileError(why) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FaultyFileError(f"there is no private key in {path}: it takes PEM") from error


def _check_time(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if now > certificate.not_valid_after_utc:
        at = _shown_time(certificate.not_valid_after_utc)
        raise FaultyFileError(f"the certificate in {path} expired at {at}")
    if now < certificate.not_valid_before_utc:
        at = _shown_time(certificate.not_valid_before_utc)
        raise FaultyFileError(f"the certificate in {path} is not valid before {at}")


def _check_usage(path: Path, certificate: x509.Certificate) -> None:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    if ExtendedKeyUsageOID.CLIENT_AUTH in usages:
        return
    why = "its extended key usage does not name client authentication"
    raise FaultyFileError(f"the certificate in {path} is none for a client: {why}")


def _shown_time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
