"""The server's side of TLS: its certificate, its key and the CA of its clients, from files.

Owns: checking the files, the gRPC credentials, taking up new files without a restart.  Not the
policy (tls.py), not what is asked of a client's certificate beyond the handshake (identity.py).

gRPC asks before each handshake whether there is something new.  It is told so only when the
contents have changed: answering with a fresh configuration each time makes it free one that a
handshake beside still uses (grpc/grpc#36693).
"""

from __future__ import annotations

import datetime
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.errors import FailedPreconditionError
from jobworker.security.tls import require_tls_policy
from jobworker.security.trust import PARSE_ERRORS, file_signature, load_ca_certificates

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """Where the server's PEM files are."""

    certificate: Path
    """The server's own, with those of intermediate CAs after it."""
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """Checked contents of the files."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes


def server_credentials(files: ServerFiles) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and follow the files for new connections.

    Raises FailedPreconditionError if the files cannot be used now; when they cannot be used later,
    the last good ones stay in force and an error is logged.
    """
    require_tls_policy()
    import grpc  # noqa: PLC0415 -- must be loaded after the line above

    source = _Source(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(source.material),
        source.fetch,  # type: ignore[arg-type]  # the stubs leave out None, "no change"
        require_client_authentication=True,
    )


class _Source:
    """What gRPC asks before each handshake, from threads of its own."""

    def __init__(self, files: ServerFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] | None = _signature(files)
        """Of the files in ``material``; ``None`` after a failure, so that they are read again."""
        self._problem: str | None = None
        self.material = load_server_files(files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """A new configuration exactly once after each good change, else ``None``.  Never raises."""
        with self._lock:
            signature = _signature(self._files)
            if signature == self._seen:
                return None
            try:
                material = load_server_files(self._files)
            except FailedPreconditionError as error:
                self._not_reloaded(str(error))
                return None
            self._seen, self._problem = signature, None
            if material == self.material:
                return None
            self.material = material
        logger.info("server certificate reloaded")
        return _configuration(material)

    def _not_reloaded(self, problem: str) -> None:
        # Also while somebody is between replacing the certificate and its key.  Good files may be
        # unreadable for a moment: they are read before each handshake, and the log is told once.
        self._seen = None
        if problem != self._problem:
            logger.error("server certificate not reloaded", extra={"problem": problem})
        self._problem = problem


def load_server_files(files: ServerFiles) -> _Material:
    """Read and check the files; raises FailedPreconditionError, naming the file."""
    certificate = _read(files.certificate)
    key = _read(files.key)
    load_ca_certificates(files.client_ca)
    leaf = _parse_leaf(files.certificate, certificate)
    private = _parse_key(files.key, key)
    if private.public_key() != leaf.public_key():
        raise _refusal(files.key, f"it does not belong to the certificate {files.certificate}")
    return _Material(certificate=certificate, key=key, client_ca=_read(files.client_ca))


def _parse_leaf(path: Path, pem: bytes) -> x509.Certificate:
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise _refusal(path, "it has no extended key usage") from error
    except PARSE_ERRORS as error:
        raise _refusal(path, f"it is no PEM certificate ({error})") from error
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        raise _refusal(path, "its extended key usage does not name server authentication")
    # gRPC would show it all the same, and each client would find a closed connection.
    now = datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        raise _refusal(
            path, f"it is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        )
    return leaf


def _parse_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except PARSE_ERRORS as error:
        # Without the parser's own words: they are about key material.
        raise _refusal(path, "it is no unencrypted PEM private key") from error
    # With an RSA key, TLS 1.2 would be back: see tls.py.
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _refusal(path, "it takes an elliptic curve key (P-256 or P-384)")
    if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise _refusal(path, "it takes one of the curves P-256 and P-384")
    return key


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    import grpc  # noqa: PLC0415 -- loaded under the TLS policy by server_credentials()

    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )


def _signature(files: ServerFiles) -> tuple[object, ...]:
    return tuple(map(file_signature, (files.certificate, files.key, files.client_ca)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error


def _refusal(path: Path, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(f"use the server file {path}", why)
