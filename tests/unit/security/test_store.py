"""Certificates and keys in a directory: modes, wholeness, nothing overwritten."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from jobworker.errors import FailedPreconditionError, InvalidArgumentError
from jobworker.model.ids import UserName
from jobworker.security import pki
from jobworker.security.store import PkiStore, check_file_name, write_file


@pytest.fixture
def store(tmp_path: Path) -> PkiStore:
    return PkiStore.create(tmp_path / "pki")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_key_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = PkiStore.create(tmp_path / "pki")
        store.write_pair("ca", pki.make_ca())
    finally:
        os.umask(before)
    assert mode(store.directory) == 0o700
    assert mode(store.directory / "issued") == 0o700
    assert mode(store.key_file("ca")) == 0o600
    assert mode(store.certificate_file("ca")) == 0o644


def test_a_pair_reads_back(store: PkiStore) -> None:
    pair = pki.make_ca()
    store.write_pair("ca", pair)
    found = store.read_pair("ca")
    assert found.certificate == pair.certificate
    assert found.key_pem == pair.key_pem
    assert b"BEGIN PRIVATE KEY" in store.key_file("ca").read_bytes()  # PKCS #8


def test_a_pair_is_not_overwritten(store: PkiStore) -> None:
    first = pki.make_ca()
    store.write_pair("ca", first)
    with pytest.raises(FailedPreconditionError, match=r"^cannot write .*ca\.pem: it exists"):
        store.write_pair("ca", pki.make_ca())
    assert store.read_pair("ca").certificate == first.certificate


def test_half_a_pair_counts_as_one(store: PkiStore) -> None:
    store.key_file("ca").write_bytes(b"precious")
    with pytest.raises(FailedPreconditionError):
        store.write_pair("ca", pki.make_ca())
    assert store.key_file("ca").read_bytes() == b"precious"


def test_a_link_is_not_followed(store: PkiStore, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    path = store.directory / "x.key"
    path.symlink_to(target)
    with pytest.raises(FailedPreconditionError, match="File exists"):
        write_file(path, b"secret", mode=0o600)
    assert not target.exists()
    write_file(path, b"secret", mode=0o600, replace=True)
    assert not target.exists()
    assert not path.is_symlink()
    assert mode(path) == 0o600


def test_nothing_is_left_of_a_write_that_failed(store: PkiStore) -> None:
    path = store.directory / "x"
    write_file(path, b"one", mode=0o600)
    before = sorted(store.directory.iterdir())
    with pytest.raises(FailedPreconditionError, match="File exists"):
        write_file(path, b"two", mode=0o600)
    assert sorted(store.directory.iterdir()) == before
    assert path.read_bytes() == b"one"


def test_a_key_of_another_certificate_is_refused(store: PkiStore) -> None:
    store.write_pair("a", pki.make_ca())
    store.write_pair("b", pki.make_ca())
    store.key_file("a").write_bytes(store.key_file("b").read_bytes())
    with pytest.raises(FailedPreconditionError, match="not the key of its certificate"):
        store.read_pair("a")


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"x", "no PEM certificate")])
def test_a_missing_or_damaged_certificate_is_named(
    store: PkiStore, content: bytes | None, why: str
) -> None:
    store.write_pair("a", pki.make_ca())
    store.certificate_file("a").unlink()
    if content is not None:
        store.certificate_file("a").write_bytes(content)
    with pytest.raises(FailedPreconditionError, match=rf"a\.pem: .*{why}"):
        store.read_pair("a")


def test_the_lock_is_held_by_one(store: PkiStore) -> None:
    entered = threading.Event()

    def enter() -> None:
        with store.lock():
            entered.set()

    other = threading.Thread(target=enter)
    with store.lock():
        other.start()
        assert not entered.wait(0.1)
    other.join(10)
    assert entered.is_set()


@pytest.mark.parametrize("name", ["ca", "server"])
def test_the_names_of_the_services_files_are_taken(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="user name"):
        check_file_name(UserName(name))
