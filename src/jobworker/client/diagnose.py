"""Why a connection fails: gRPC only tells "Socket closed", whatever the reason.

Owns: the order in which causes are looked for, and the look at the network.  Not the look into the
files (credentials.py).  Runs after a failure only, so it may take its time and import what it
likes; it blocks, so call it in a thread.

Each answer is the part after "cannot connect to HOST:PORT: ".
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Final

from jobworker.client.credentials import FaultyFileError, check_files, other_issuer
from jobworker.client.target import Target

#: For the connection and for each answer; a service on the other side of the world takes under one.
_PROBE_S: Final = 3.0

#: What every HTTP/2 client says first, and empty settings: RFC 9113, sections 3.4 and 6.5.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

#: X509_V_ERR_ numbers of <openssl/x509_vfy.h> and what they mean for one who wants to connect.
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_HOST_MISMATCH: Final = 62
_IP_MISMATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found."""

    why: str
    is_lasting: bool
    """Will the next attempt fail as well, unless somebody changes a file?"""


def diagnose(target: Target) -> Diagnosis:
    """Look at the own files first, since what is wrong there is certain, then at the service."""
    try:
        check_files(target)
    except FaultyFileError as error:
        return Diagnosis(why=str(error), is_lasting=True)
    try:
        with _connect(target) as connection:
            return _probe(target, connection)
    except TimeoutError:
        return Diagnosis(why=f"no answer within {_PROBE_S:g} s", is_lasting=False)
    except ConnectionRefusedError:
        return Diagnosis(why="nobody listens there (connection refused)", is_lasting=False)
    except ConnectionResetError:
        return _closed(target)
    except socket.gaierror as error:
        why = f"the name {target.host!r} cannot be resolved ({error.strerror})"
        return Diagnosis(why=why, is_lasting=False)
    except OSError as error:
        return Diagnosis(why=error.strerror or str(error), is_lasting=False)


def _connect(target: Target) -> ssl.SSLSocket:
    """Without the handshake; the caller closes it.  Raises OSError of the last address tried.

    The TLS socket is made before it is connected: made of a connection that the peer has reset
    meanwhile, it raises and stays open (CPython, ``SSLSocket._create``).
    """
    context = _context(target)
    failure = OSError(f"{target.host} has no address")
    for family, kind, _, _, address in socket.getaddrinfo(
        target.host, target.port, type=socket.SOCK_STREAM
    ):
        connection = context.wrap_socket(
            socket.socket(family, kind),
            server_hostname=target.host,
            do_handshake_on_connect=False,
        )
        connection.settimeout(_PROBE_S)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _context(target: Target) -> ssl.SSLContext:
    """What gRPC asks for as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cafile=target.ca)
    # An encrypted key is a finding of its own, made before; this never asks on the terminal.
    context.load_cert_chain(target.cert, target.key, password="")
    return context


def _probe(target: Target, connection: ssl.SSLSocket) -> Diagnosis:
    """Shake hands as gRPC does, with a TLS library that says what it minds."""
    try:
        connection.do_handshake()
        connection.sendall(_PREFACE)
        # In TLS 1.3 the client is done before the service has seen its certificate: a refusal
        # comes in place of the first answer (RFC 8446, section 4.4.2.4).
        if connection.recv(1):
            why = "the connection broke, and now the service answers: try again"
            return Diagnosis(why=why, is_lasting=False)
        return _closed(target)
    except ssl.SSLCertVerificationError as error:
        return _service_refused(target, error)
    except ssl.SSLError as error:
        return _alert(target, error)
    except ConnectionError:
        return _closed(target)


def _service_refused(target: Target, error: ssl.SSLCertVerificationError) -> Diagnosis:
    """This side does not accept the certificate of the service."""
    match error.verify_code:
        case code if code in (_HOST_MISMATCH, _IP_MISMATCH):
            why = f"the service's certificate is not for {target.host!r}: connect by another name"
        case code if code == _EXPIRED:
            why = "the service's certificate has expired"
        case code if code == _NOT_YET_VALID:
            why = "the service's certificate is not valid yet: compare the clocks"
        case _:
            told = error.verify_message
            why = f"the service's certificate is not issued by the CA in {target.ca} ({told})"
    return Diagnosis(why=why, is_lasting=True)


def _alert(target: Target, error: ssl.SSLError) -> Diagnosis:
    """The handshake failed for another reason; an alert is how the service gives it."""
    reason = error.reason or ""
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason:
        why = "the service there does not speak TLS"
        return Diagnosis(why=why, is_lasting=True)
    if "PROTOCOL_VERSION" in reason or "NO_PROTOCOLS" in reason:
        return Diagnosis(why="the service there does not speak TLS 1.3", is_lasting=True)
    if "ALERT" not in reason:
        return _closed(target)
    # "SSLV3_ALERT_CERTIFICATE_EXPIRED" and the like: the name after the last part is the alert's.
    alert = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
    why = f"the service refused the certificate {target.cert} ({alert})"
    other = other_issuer(target)
    return Diagnosis(why=f"{why}: {other}" if other else why, is_lasting=True)


def _closed(target: Target) -> Diagnosis:
    other = other_issuer(target)
    if other:
        return Diagnosis(why=other, is_lasting=True)
    why = "the service closed the connection without giving a reason"
    return Diagnosis(why=why, is_lasting=False)
