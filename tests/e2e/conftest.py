"""One installation for the tests that need nothing special, and its users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import ADMIN, Daemon, Jobctl, serving


@pytest.fixture(scope="session")
def cgroup(cgroup_name: str) -> str:
    """Not that of other suites, which remove theirs while our service still runs."""
    return f"{cgroup_name}-e2e"


@pytest.fixture(scope="session")
def daemon(cgroup: str) -> Iterator[Daemon]:
    """Running; tests that restart it have one of their own."""
    with serving(cgroup=cgroup) as running:
        # The launcher comes with the first job, and would look like a leak of the first test.
        assert running.client()("run", "--", "true").code == 0
        yield running


@pytest.fixture
def alice(daemon: Daemon) -> Jobctl:
    """A standard user."""
    return daemon.client("alice")


@pytest.fixture
def bob(daemon: Daemon) -> Jobctl:
    """Another one."""
    return daemon.client("bob")


@pytest.fixture
def admin(daemon: Daemon) -> Jobctl:
    return daemon.client(ADMIN)
