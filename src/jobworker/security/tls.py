"""The TLS policy of both sides: mutual, version 1.3 only.

Owns: how gRPC is brought to it, the credentials of a channel, the check on a live connection.  Not
who a certificate makes its holder (identity.py), not the server's files (server_credentials.py).

gRPC for Python has no setting for the least TLS version.  What it has is the list of the TLS 1.2
suites: with one that takes an RSA certificate, and servers that have ECDSA ones, no version 1.2
handshake can agree on a suite, while the suites of version 1.3 are not on that list and stay as
they are (RFC 8446, appendix B.4: they name no key type).  The list is read once, when the extension
module is loaded, so this module imports gRPC itself and only inside functions.

Light on purpose: every start of the client imports it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobworker.errors import InternalError, UnauthenticatedError

if TYPE_CHECKING:
    import grpc

_SUITES_VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
#: A suite that no ECDSA certificate can serve; see the module's description.
_SUITES: Final = "ECDHE-RSA-AES128-GCM-SHA256"
_VERSION: Final = b"TLSv1.3"

#: From accept to the end of the handshake; gRPC's own default is two minutes, in which connections
#: that never say anything pile up.
HANDSHAKE_TIMEOUT_MS: Final = 5000
SERVER_OPTIONS: Final = (("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),)


class _Applied:
    """Whether gRPC was loaded under the policy: set once in the life of a process."""

    is_true = False


def apply_tls_policy() -> bool:
    """Load gRPC so that this process speaks TLS 1.3 only; False if it was loaded before, without.

    Then it is too late in this process.  A client may go on: its server refuses anything else.  A
    server must not: see ``require_tls_policy``.

    The environment is left as it was found: the suites are not for the programs started from here.
    """
    if _Applied.is_true:
        return True
    found = os.environ.get(_SUITES_VARIABLE)
    if "grpc" in sys.modules:
        # Only a value that was there at the start counts; what came later, gRPC has not read.
        _Applied.is_true = _environment_at_start(_SUITES_VARIABLE) == _SUITES
        return _Applied.is_true
    os.environ[_SUITES_VARIABLE] = _SUITES
    try:
        importlib.import_module("grpc")
    finally:
        if found is None:
            del os.environ[_SUITES_VARIABLE]
        else:
            os.environ[_SUITES_VARIABLE] = found
    _Applied.is_true = True
    return True


def require_tls_policy() -> None:
    """For servers: ``apply_tls_policy`` or raise InternalError."""
    if not apply_tls_policy():
        raise InternalError(
            "serve TLS 1.3 only",
            "gRPC was imported before jobworker.security.tls.apply_tls_policy() was called",
        )


def channel_credentials(*, ca: bytes, certificate: bytes, key: bytes) -> grpc.ChannelCredentials:
    """What a client presents and whom it trusts; all three are PEM."""
    apply_tls_policy()
    import grpc  # noqa: PLC0415 -- must be loaded after the line above

    return grpc.ssl_channel_credentials(
        root_certificates=ca, private_key=key, certificate_chain=certificate
    )


def assert_tls13(auth_context: Mapping[str, Iterable[bytes]]) -> None:
    """Raises UnauthenticatedError unless the connection of an RPC is a TLS 1.3 one.

    The policy above sees to it; this is for the day when a new gRPC reads another variable.
    """
    versions = [bytes(version) for version in auth_context.get("ssl_tls_version", ())]
    if versions != [_VERSION]:
        told = ", ".join(version.decode("ascii", "replace") for version in versions)
        raise UnauthenticatedError(f"the connection speaks {told or 'no TLS'} and not TLSv1.3")


def _environment_at_start(name: str) -> str | None:
    """A variable as the process was given it.  Source: proc_pid_environ(5)."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:  # a client on a system without /proc: then it cannot be known
        return None
    for entry in entries:
        key, _, value = entry.partition(b"=")
        if key == name.encode():
            return os.fsdecode(value)
    return None
