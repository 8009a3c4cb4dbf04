"""Where certificates and keys are kept: one directory, its names and its modes.

Owns: ``ca``, ``server`` and one pair per user, each a certificate ``NAME.pem`` and a private key
``NAME.key``; ``ca.crl``; and ``issued/SERIAL.pem``, a copy of every leaf that was ever issued, by
which a name is found again when it is to be revoked.  Not what certificates say (pki.py).

A file is whole or absent, whoever looks and whenever the machine goes down: it is written under
another name, synced and then linked or renamed.  A private key is 0600 from its first moment on,
and no link that somebody left in the directory is followed.

Source: open(2) O_EXCL and O_NOFOLLOW; link(2); flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobworker.errors import FailedPreconditionError, InvalidArgumentError
from jobworker.model.ids import UserName
from jobworker.security.pki import KeyPair, Revocation
from jobworker.security.trust import PARSE_ERRORS

CA_NAME: Final = "ca"
SERVER_NAME: Final = "server"
CRL_FILE: Final = "ca.crl"
ISSUED_DIRECTORY: Final = "issued"
#: Their files are taken; a user of such a name could have no certificate here.
RESERVED_NAMES: Final = frozenset({CA_NAME, SERVER_NAME})

_DIRECTORY_MODE: Final = 0o700
_KEY_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class PkiStore:
    """The directory; nothing is read or held open in between."""

    directory: Path

    @classmethod
    def create(cls, directory: Path) -> PkiStore:
        """Make the directory (0700), which must not exist.  Raises OSError."""
        directory.mkdir(mode=_DIRECTORY_MODE)
        (directory / ISSUED_DIRECTORY).mkdir(mode=_DIRECTORY_MODE)
        return cls(directory)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Nobody else changes the store in the meantime; waits for those who do."""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal("use", self.directory, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def certificate_file(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def key_file(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    @property
    def crl_file(self) -> Path:
        return self.directory / CRL_FILE

    def has(self, name: str) -> bool:
        """Is there a certificate or a key of this name?"""
        return self.certificate_file(name).exists() or self.key_file(name).exists()

    def write_pair(self, name: str, pair: KeyPair, *, replace: bool = False) -> None:
        """Keep a certificate and its key.  Raises FailedPreconditionError if the name is taken."""
        if not replace and self.has(name):
            raise FailedPreconditionError(
                f"write {self.certificate_file(name)}", "it exists, or its key does"
            )
        # The key first: a certificate that is there has its key beside it.
        write_file(self.key_file(name), pair.key_pem, mode=_KEY_MODE, replace=replace)
        write_file(
            self.certificate_file(name), pair.certificate_pem, mode=_PUBLIC_MODE, replace=replace
        )

    def record_issued(self, certificate: x509.Certificate) -> None:
        """Keep a copy under the serial number."""
        path = self.directory / ISSUED_DIRECTORY / f"{certificate.serial_number:x}.pem"
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_file(path, pem, mode=_PUBLIC_MODE)

    def read_pair(self, name: str) -> KeyPair:
        """Raises FailedPreconditionError if it is missing or damaged."""
        certificate = read_certificate(self.certificate_file(name))
        path = self.key_file(name)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise _refusal("read", path, error) from error
        except PARSE_ERRORS as error:
            raise FailedPreconditionError(f"use {path}", "it is no PEM private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FailedPreconditionError(f"use {path}", "it is no elliptic curve key")
        if key.public_key() != certificate.public_key():
            raise FailedPreconditionError(f"use {path}", "it is not the key of its certificate")
        return KeyPair(certificate=certificate, key=key)

    def issued(self) -> Sequence[x509.Certificate]:
        """Every certificate that was issued, the oldest first."""
        directory = self.directory / ISSUED_DIRECTORY
        found = [read_certificate(path) for path in directory.glob("*.pem")]
        return sorted(found, key=lambda each: (each.not_valid_before_utc, each.serial_number))

    def read_crl(self) -> x509.CertificateRevocationList:
        """Raises FailedPreconditionError if it is missing or damaged."""
        try:
            return x509.load_pem_x509_crl(self.crl_file.read_bytes())
        except OSError as error:
            raise _refusal("read", self.crl_file, error) from error
        except PARSE_ERRORS as error:
            raise FailedPreconditionError(f"use {self.crl_file}", "it is damaged") from error

    def write_crl(self, crl: x509.CertificateRevocationList, *, replace: bool) -> None:
        pem = crl.public_bytes(serialization.Encoding.PEM)
        write_file(self.crl_file, pem, mode=_PUBLIC_MODE, replace=replace)


def revocations_of(crl: x509.CertificateRevocationList) -> tuple[Revocation, ...]:
    """The entries of a list, for the next one."""
    return tuple(
        Revocation(serial=entry.serial_number, revoked_at=entry.revocation_date_utc)
        for entry in crl
    )


def check_file_name(name: UserName) -> UserName:
    """Raises InvalidArgumentError if the files of a user of this name could not be told apart."""
    if name in RESERVED_NAMES:
        raise InvalidArgumentError("user name", name, "it is the name of files of the service")
    return name


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file; raises FailedPreconditionError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise _refusal("read", path, error) from error
    except PARSE_ERRORS as error:
        raise FailedPreconditionError(f"use {path}", "it is no PEM certificate") from error


def write_file(path: Path, data: bytes, *, mode: int, replace: bool = False) -> None:
    """Make a file that is whole or absent; raises FailedPreconditionError if it exists."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal("write", path, error) from error
    try:
        _write_in(directory, path.name, data, mode=mode, replace=replace)
    except OSError as error:
        raise _refusal("write", path, error) from error
    finally:
        os.close(directory)


def _write_in(directory: int, name: str, data: bytes, *, mode: int, replace: bool) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, _KEY_MODE, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)  # exactly so, whatever the umask
            os.fsync(fd)
        if replace:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            # Unlike rename, link fails where the name is taken, also in the last moment.
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(temporary, dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _refusal(verb: str, path: Path, error: OSError) -> FailedPreconditionError:
    return FailedPreconditionError(f"{verb} {path}", error.strerror or str(error))
