"""Why a connection fails, found out with real files and real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from jobworker.client import Patience, Target, connect
from jobworker.client.diagnose import diagnose
from jobworker.errors import UnavailableError
from jobworker.security import pki
from support.certificates import (
    HOSTS,
    SERVER_AUTH,
    Installation,
    Wanted,
    days,
    forge,
    make_installation,
    utc_now,
)
from support.scripted import ScriptedService, serving, target_of

pytestmark = pytest.mark.anyio

PATIENCE = Patience(connect_s=5)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Another installation, with a CA of its own."""
    return make_installation(tmp_path_factory.mktemp("stranger") / "pki")


async def why_not(target: Target, patience: Patience = PATIENCE) -> str:
    """What the client says; its first part is always the same."""
    with pytest.raises(UnavailableError) as raised:
        async with connect(target, patience=patience):
            pass
    message = str(raised.value)
    beginning = f"cannot connect to {target.server}: "
    assert message.startswith(beginning)
    assert "\n" not in message
    return message.removeprefix(beginning)


def with_file(installation: Installation, role: str, path: Path) -> Target:
    """The target of alice with another file in the place of one of hers."""
    target = target_of(installation, 1)
    files = {"ca": target.ca, "cert": target.cert, "key": target.key} | {role: path}
    return Target(server=target.server, **files)


async def refused(installation: Installation, target: Target, **server) -> str:
    """The same, with a service at the target's port."""
    async with serving(ScriptedService(), installation, **server) as port:
        host = target.server.rpartition(":")[0]
        return await why_not(dataclasses.replace(target, server=f"{host}:{port}"))


def with_leaf(installation: Installation, directory: Path, wanted: Wanted) -> Target:
    """Reads and writes files, so call it in a thread."""
    leaf = forge(installation.ca, wanted)
    cert, key = directory / "own.pem", directory / "own.key"
    cert.write_bytes(leaf.certificate_pem)
    key.write_bytes(leaf.key_pem)
    return dataclasses.replace(target_of(installation, 1), cert=cert, key=key)


async def test_nobody_listens(installation) -> None:
    why = await why_not(target_of(installation, 1))
    assert why == "nobody listens there (connection refused)"


async def test_a_name_that_cannot_be_resolved(installation) -> None:
    target = dataclasses.replace(target_of(installation, 1), server="nowhere.invalid:1")
    assert "the name 'nowhere.invalid' cannot be resolved" in await why_not(target)


@pytest.mark.parametrize(("role", "what"), [("ca", "CA"), ("cert", "certificate"), ("key", "key")])
async def test_a_file_that_is_missing(installation, tmp_path: Path, role: str, what: str) -> None:
    path = tmp_path / "missing.pem"
    target = with_file(installation, role, path)
    why = await refused(installation, target)
    assert why == f"the {what} file {path} cannot be read (No such file or directory)"


@pytest.mark.parametrize("role", ["ca", "cert", "key"])
async def test_a_file_that_is_no_pem(installation, tmp_path: Path, role: str) -> None:
    path = tmp_path / "garbage.pem"
    path.write_bytes(b"\0garbage\n")
    target = with_file(installation, role, path)
    why = await refused(installation, target)
    assert str(path) in why
    assert "it takes PEM" in why


async def test_a_directory_in_place_of_a_file(installation, tmp_path: Path) -> None:
    target = dataclasses.replace(target_of(installation, 1), key=tmp_path)
    assert "Is a directory" in await refused(installation, target)


async def test_a_key_that_is_encrypted(installation, tmp_path: Path) -> None:
    path = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key(
        target_of(installation, 1).key.read_bytes(), password=None
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    target = dataclasses.replace(target_of(installation, 1), key=path)
    assert f"the key in {path} is encrypted" in await refused(installation, target)


async def test_a_key_of_another_certificate(installation) -> None:
    target = dataclasses.replace(
        target_of(installation, 1), key=target_of(installation, 1, user="bob").key
    )
    why = await refused(installation, target)
    assert why == f"the key in {target.key} does not belong to the certificate in {target.cert}"


async def test_an_expired_certificate(installation, tmp_path: Path) -> None:
    wanted = Wanted(not_before=utc_now() - days(2), not_after=utc_now() - days(1))
    target = await asyncio.to_thread(with_leaf, installation, tmp_path, wanted)
    assert f"the certificate in {target.cert} expired at 20" in await refused(installation, target)


async def test_a_certificate_of_tomorrow(installation, tmp_path: Path) -> None:
    wanted = Wanted(not_before=utc_now() + days(1), not_after=utc_now() + days(2))
    target = await asyncio.to_thread(with_leaf, installation, tmp_path, wanted)
    assert "is not valid before 20" in await refused(installation, target)


async def test_a_certificate_for_servers(installation, tmp_path: Path) -> None:
    wanted = Wanted(usages=[SERVER_AUTH])
    target = await asyncio.to_thread(with_leaf, installation, tmp_path, wanted)
    assert "does not name client authentication" in await refused(installation, target)


async def test_a_certificate_of_another_ca(installation, stranger) -> None:
    """The service says only that it does not accept it; the own files tell why."""
    other = target_of(stranger, 1)
    target = dataclasses.replace(target_of(installation, 1), cert=other.cert, key=other.key)
    why = await refused(installation, target)
    assert f"the certificate in {target.cert} is not issued by the CA in {target.ca}" in why


async def test_a_ca_of_another_service(installation, stranger) -> None:
    target = dataclasses.replace(target_of(installation, 1), ca=stranger.ca_file)
    why = await refused(installation, target)
    assert f"the service's certificate is not issued by the CA in {target.ca}" in why


async def test_another_name_than_the_service_has(installation) -> None:
    target = dataclasses.replace(target_of(installation, 1), server="127.0.0.2:1")
    why = await refused(installation, target, host="127.0.0.2")
    assert "the service's certificate is not for '127.0.0.2'" in why


@pytest.fixture(scope="module")
def expired_leaf(installation) -> str:
    """The name of a server certificate of last week."""
    pair = pki.issue_server(installation.ca, hosts=HOSTS, now=utc_now() - days(9), days=1)
    installation.store.write_pair("expired-server", pair)
    return "expired-server"


async def test_a_service_whose_certificate_has_expired(installation, expired_leaf: str) -> None:
    why = await refused(installation, target_of(installation, 1), leaf=expired_leaf)
    assert why == "the service's certificate has expired"


@contextlib.asynccontextmanager
async def plain_service(greeting: bytes | None) -> AsyncIterator[int]:
    """Something that listens and is not ours; ``None`` says nothing at all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        if greeting is not None:
            writer.write(greeting)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

    open_writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for writer in open_writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_service_without_tls(installation) -> None:
    async with plain_service(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        why = await why_not(target_of(installation, port))
    assert why == "the service there does not speak TLS"


async def test_a_service_that_says_nothing(installation) -> None:
    async with plain_service(None) as port:
        why = await why_not(target_of(installation, port), Patience(connect_s=0.5))
    assert why == "no answer within 3 s"


@contextlib.asynccontextmanager
async def resetting_service() -> AsyncIterator[int]:
    """Accepts and resets at once, as the kernel does for a process that was killed."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A linger time of zero sends RST in place of FIN: socket(7).
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_service_that_resets_connections(installation) -> None:
    """Python's TLS sockets leak when they are made of a connection that the peer has reset."""
    async with resetting_service() as port:
        target = target_of(installation, port)
        whys = [await asyncio.to_thread(diagnose, target) for _ in range(20)]
    assert {why.why for why in whys} == {
        "the service closed the connection without giving a reason"
    }
    assert not any(why.is_lasting for why in whys)
    gc.collect()


async def test_a_connection_that_stands_is_not_diagnosed(installation) -> None:
    async with (
        serving(ScriptedService(), installation) as port,
        connect(target_of(installation, port), patience=PATIENCE),
    ):
        pass
