"""A change of the trust files is noticed at once, however the files are changed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from jobworker.security import pki
from jobworker.security.store import PkiStore
from jobworker.security.trust import TrustStore
from jobworker.security.watch import watch_trust
from support.certificates import Installation, make_installation

pytestmark = pytest.mark.anyio


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return make_installation(tmp_path / "pki", users=["alice", "bob"], admins=[])


@pytest.fixture
def trust(installation: Installation) -> TrustStore:
    return TrustStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)


class CountedStore(TrustStore):
    """Counts how often it is told to look."""

    looks = 0

    def reload(self) -> bool:
        self.looks += 1
        return super().reload()


@pytest.fixture
def counted(installation: Installation) -> CountedStore:
    return CountedStore(ca_file=installation.ca_file, crl_file=installation.store.crl_file)


class Follower:
    """Takes the generations as they come; ``reached`` waits for one."""

    def __init__(self) -> None:
        self._news = asyncio.Condition()
        self._generation = 0

    async def run(self, trust: TrustStore, look_every_s: float) -> None:
        watching = watch_trust(trust, look_every_s=look_every_s)
        async with contextlib.aclosing(watching) as changes:
            async for generation in changes:
                async with self._news:
                    self._generation = generation
                    self._news.notify_all()

    async def reached(self, generation: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._generation >= generation)


@contextlib.asynccontextmanager
async def following(trust: TrustStore, *, look_every_s: float = 60) -> AsyncIterator[Follower]:
    follower = Follower()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follower.run(trust, look_every_s))
        yield follower
        task.cancel()


def revoke(installation: Installation, name: str) -> None:
    installation.revoke(installation.store.read_pair(name).certificate)


async def test_each_revocation_is_noticed(installation: Installation, trust: TrustStore) -> None:
    await asyncio.to_thread(revoke, installation, "alice")  # before the watch begins
    async with following(trust) as follower:
        await follower.reached(1)
        await asyncio.to_thread(revoke, installation, "bob")
        await follower.reached(2)


async def test_a_list_that_is_written_in_place_is_noticed(
    installation: Installation, trust: TrustStore
) -> None:
    crl_file = installation.store.crl_file

    def damage_and_replace() -> None:
        crl_file.write_bytes(b"damaged")
        crl_file.unlink()
        later = pki.make_crl(installation.ca, [], number=2)
        crl_file.write_bytes(later.public_bytes(serialization.Encoding.PEM))

    async with following(trust) as follower:
        await asyncio.to_thread(damage_and_replace)
        await follower.reached(1)
    assert trust.problem is None


async def test_a_directory_that_is_replaced_is_watched_on(
    installation: Installation, trust: TrustStore, tmp_path: Path
) -> None:
    """As ``jobworker init --force`` does it."""

    def replace() -> None:
        new = make_installation(tmp_path / "new", users=["alice"], admins=[])
        installation.store.directory.rename(tmp_path / "old")
        new.store.directory.rename(installation.store.directory)

    async with following(trust) as follower:
        await asyncio.to_thread(replace)
        await follower.reached(1)
        await asyncio.to_thread(revoke, installation, "alice")
        await follower.reached(2)


def trust_by_links(names: Path, target: Path) -> TrustStore:
    """The files of one directory, by links in another."""
    names.mkdir()
    for name in ("ca.pem", "ca.crl"):
        (names / name).symlink_to(target / name)
    return TrustStore(ca_file=names / "ca.pem", crl_file=names / "ca.crl")


async def test_links_are_followed_to_the_files(installation: Installation, tmp_path: Path) -> None:
    """As configuration management lays them out."""
    trust = await asyncio.to_thread(trust_by_links, tmp_path / "names", Path("..", "pki"))
    async with following(trust) as follower:
        await asyncio.to_thread(revoke, installation, "alice")
        await follower.reached(1)
        await asyncio.to_thread(revoke, installation, "bob")
        await follower.reached(2)


async def test_links_on_the_way_to_the_files_are_watched_too(
    installation: Installation, tmp_path: Path
) -> None:
    """As Kubernetes mounts secrets: their directory is a link, which is replaced."""
    current = tmp_path / "secret" / "..data"

    def lay_out() -> TrustStore:
        current.parent.mkdir()
        current.symlink_to(installation.store.directory)
        return trust_by_links(tmp_path / "names", current / ".." / "pki")

    def replace(user: str, version: Path) -> None:
        shutil.copytree(current, version / "pki")
        revoke(Installation(PkiStore(version / "pki")), user)
        link = current.with_name("..next")
        link.symlink_to(version / "pki")
        link.rename(current)

    trust = await asyncio.to_thread(lay_out)
    async with following(trust) as follower:
        await asyncio.to_thread(replace, "alice", tmp_path / "second")
        await follower.reached(1)
        await asyncio.to_thread(replace, "bob", tmp_path / "third")
        await follower.reached(2)


async def test_links_that_lead_round_in_a_circle_lead_nowhere(
    installation: Installation, trust: TrustStore
) -> None:
    crl_file = installation.store.crl_file
    good = crl_file.with_suffix(".good")

    def go_in_a_circle() -> None:
        crl_file.rename(good)
        crl_file.symlink_to(crl_file.name)

    async with following(trust) as follower:
        await asyncio.to_thread(go_in_a_circle)
        await asyncio.to_thread(good.rename, crl_file)
        await asyncio.to_thread(revoke, installation, "alice")
        await follower.reached(1)


async def test_a_change_that_the_kernel_does_not_tell_of_is_found(
    installation: Installation, trust: TrustStore, tmp_path: Path
) -> None:
    """By another name for the file, as on another host of a network file system."""
    other_name = tmp_path / "elsewhere" / "ca.crl"
    other_name.parent.mkdir()
    other_name.hardlink_to(installation.store.crl_file)
    later = pki.make_crl(installation.ca, [], number=2)
    async with following(trust, look_every_s=0.05) as follower:
        await asyncio.to_thread(
            other_name.write_bytes, later.public_bytes(serialization.Encoding.PEM)
        )
        await follower.reached(1)


async def test_nothing_is_done_while_nothing_changes(
    installation: Installation, counted: CountedStore
) -> None:
    async with following(counted) as follower:
        await asyncio.to_thread(revoke, installation, "alice")
        await follower.reached(1)
        before = counted.looks
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await follower.reached(2)
        # The rest of the one change may have been told in pieces.
        assert counted.looks - before <= 5
