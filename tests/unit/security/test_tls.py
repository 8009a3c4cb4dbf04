"""TLS 1.3 only, on real connections: judged by OpenSSL, which is not the library of gRPC."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from jobworker.errors import FailedPreconditionError, UnauthenticatedError
from jobworker.security import pki
from jobworker.security.server_credentials import ServerFiles, _Source, load_server_files
from jobworker.security.tls import assert_tls13
from support.certificates import (
    SERVER_AUTH,
    Installation,
    Wanted,
    days,
    forge,
    make_installation,
    utc_now,
)
from support.faults import no_descriptors


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("tls") / "pki")


def server_files(installation: Installation) -> ServerFiles:
    store = installation.store
    return ServerFiles(
        certificate=store.certificate_file("server"),
        key=store.key_file("server"),
        client_ca=installation.ca_file,
    )


@contextlib.contextmanager
def running_server(installation: Installation) -> Iterator[int]:
    files = server_files(installation)
    command = [sys.executable, str(Path(__file__).with_name("tls_server.py"))]
    command += map(str, (files.certificate, files.key, files.client_ca))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
            assert server.wait(30) == 0


def client_context(installation: Installation, name: str | None = "alice") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(installation.ca_file))
    context.set_alpn_protocols(["h2"])
    if name is not None:
        store = installation.store
        context.load_cert_chain(store.certificate_file(name), store.key_file(name))
    return context


def connect(port: int, context: ssl.SSLContext) -> tuple[str | None, int]:
    """TLS version and the server's serial number; raises OSError if the server does not want us."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.settimeout(10)
        # In version 1.3 the client is done before the server has looked at its certificate: only
        # the server's first bytes tell that it was accepted.
        if not secure.recv(1):
            raise ConnectionResetError("the server closed the connection")
        certificate = secure.getpeercert()
        assert certificate is not None
        return secure.version(), int(str(certificate["serialNumber"]), 16)


def test_version_13_is_spoken_and_12_is_not(installation: Installation) -> None:
    old = client_context(installation)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with running_server(installation) as port:
        assert connect(port, client_context(installation))[0] == "TLSv1.3"
        with pytest.raises(OSError, match=r"(?i)alert handshake failure|reset|eof"):
            connect(port, old)


def test_nobody_comes_in_without_a_certificate_of_our_ca(
    installation: Installation, tmp_path: Path
) -> None:
    stranger = client_context(installation, None)
    other = make_installation(tmp_path / "other").store
    stranger.load_cert_chain(other.certificate_file("alice"), other.key_file("alice"))
    with running_server(installation) as port:
        for context in (client_context(installation, None), stranger):
            with pytest.raises(OSError, match=r"(?i)alert|reset|closed|eof"):
                connect(port, context)
        assert connect(port, client_context(installation))[0] == "TLSv1.3"


def test_a_renewed_certificate_is_shown_to_the_next_client(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "pki")
    context = client_context(installation)
    with running_server(installation) as port:
        old = connect(port, context)[1]
        renewed = pki.issue_server(installation.ca, hosts=["localhost"])
        installation.store.write_pair("server", renewed, replace=True)
        assert connect(port, context)[1] == renewed.certificate.serial_number != old
        installation.store.key_file("server").write_bytes(b"damaged")
        assert connect(port, context)[1] == renewed.certificate.serial_number


def test_a_change_is_told_exactly_once(tmp_path: Path) -> None:
    """gRPC frees a configuration that another handshake uses if it is told one each time."""
    installation = make_installation(tmp_path / "pki")
    store = installation.store
    source = _Source(server_files(installation))
    assert source.fetch() is None
    store.write_pair("server", pki.issue_server(installation.ca, hosts=["a"]), replace=True)
    assert source.fetch() is not None
    assert source.fetch() is None
    os.utime(store.certificate_file("server"))  # another time, the same contents
    assert source.fetch() is None


def test_a_damaged_file_is_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not again for every connection."""
    files = server_files(make_installation(tmp_path / "pki"))
    source = _Source(files)
    files.certificate.write_bytes(b"damaged")
    assert source.fetch() is None
    assert source.fetch() is None
    assert [record.message for record in caplog.records] == ["server certificate not reloaded"]
    assert str(files.certificate) in caplog.records[0].__dict__["problem"]


def test_a_good_certificate_that_could_not_be_read_is_read_at_the_next_handshake(
    tmp_path: Path,
) -> None:
    installation = make_installation(tmp_path / "pki")
    source = _Source(server_files(installation))
    renewed = pki.issue_server(installation.ca, hosts=["a"])
    installation.store.write_pair("server", renewed, replace=True)
    with no_descriptors():
        assert source.fetch() is None
    assert source.fetch() is not None


def test_half_a_renewal_waits_for_the_other_half(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "pki")
    files = server_files(installation)
    source = _Source(files)
    renewed = pki.issue_server(installation.ca, hosts=["a"])
    files.key.write_bytes(renewed.key_pem)
    assert source.fetch() is None
    files.certificate.write_bytes(renewed.certificate_pem)
    assert source.fetch() is not None


def test_a_servers_rsa_key_is_refused(tmp_path: Path) -> None:
    """It would bring TLS 1.2 back."""
    installation = make_installation(tmp_path / "pki")
    files = server_files(installation)
    wanted = Wanted(usages=[SERVER_AUTH], key=lambda: rsa.generate_private_key(65537, 2048))
    leaf = forge(installation.ca, wanted)
    files.certificate.write_bytes(leaf.certificate_pem)
    files.key.write_bytes(leaf.key_pem)
    with pytest.raises(FailedPreconditionError, match=r"server\.key: it takes an elliptic curve"):
        load_server_files(files)


@pytest.mark.parametrize("age", [-2, 2])
def test_a_server_does_not_start_with_an_expired_certificate(tmp_path: Path, age: int) -> None:
    installation = make_installation(tmp_path / "pki")
    files = server_files(installation)
    middle = utc_now() - days(age)
    wanted = Wanted(usages=[SERVER_AUTH], not_before=middle - days(1), not_after=middle + days(1))
    leaf = forge(installation.ca, wanted)
    files.certificate.write_bytes(leaf.certificate_pem)
    files.key.write_bytes(leaf.key_pem)
    with pytest.raises(FailedPreconditionError, match=r"server\.pem: it is valid from .* to "):
        load_server_files(files)


def test_a_clients_certificate_is_no_servers(tmp_path: Path) -> None:
    installation = make_installation(tmp_path / "pki")
    files = server_files(installation)
    leaf = forge(installation.ca, Wanted())
    files.certificate.write_bytes(leaf.certificate_pem)
    files.key.write_bytes(leaf.key_pem)
    with pytest.raises(FailedPreconditionError, match="does not name server authentication"):
        load_server_files(files)


def test_the_policy_leaves_the_environment_alone_and_holds() -> None:
    program = (
        "import os; from jobworker.security import tls; before = dict(os.environ);"
        "assert tls.apply_tls_policy(); assert tls.apply_tls_policy();"
        "tls.require_tls_policy(); assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_server_does_not_start_where_grpc_was_loaded_without_the_policy() -> None:
    program = (
        "import grpc; from jobworker.security import tls; assert not tls.apply_tls_policy();"
        "tls.require_tls_policy()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "InternalError: cannot serve TLS 1.3 only" in done.stderr


def test_the_policy_may_come_with_the_environment() -> None:
    program = "import grpc; from jobworker.security import tls; tls.require_tls_policy()"
    environment = {**os.environ, "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES128-GCM-SHA256"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_policy_is_light() -> None:
    """Every start of the client pays for it."""
    program = (
        "import sys; import jobworker.security.tls;"
        "heavy = {'grpc', 'cryptography', 'ssl', 'asyncio'} & set(sys.modules); assert not heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("versions", [[b"TLSv1.2"], [b"TLSv1.3", b"TLSv1.2"], [b""], []])
def test_only_one_version_passes(versions: list[bytes]) -> None:
    with pytest.raises(UnauthenticatedError, match="and not TLSv1"):
        assert_tls13({"ssl_tls_version": versions})
    assert_tls13({"ssl_tls_version": [b"TLSv1.3"]})
