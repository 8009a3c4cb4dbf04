"""Fixtures of every suite: event loop, leak guards, blocking-call detector, Hypothesis profiles."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support import guards

#: Examples that are the same in every run, so that a red gate is red again when one looks.
settings.register_profile("ci", derandomize=True, max_examples=200, deadline=None)
#: Fresh examples in every run: finds what the fixed ones do not.
settings.register_profile("dev", max_examples=50, deadline=None)
for _profile in ("ci", "dev"):
    # The guards around each test are function-scoped and hold for all of its examples together.
    settings.register_profile(
        _profile,
        settings.get_profile(_profile),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
# A shell ignores the one for what it starts in the background, nohup(1) the other, and that is
# inherited: then no Ctrl-C and no lost terminal of a test would reach a command.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.load_profile("ci" if guards.is_strict() or "CI" in os.environ else "dev")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that this project runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def cgroup_name() -> str:
    """Name for the cgroup below which this run makes all of its own.

    The guards know it: a run beside this one on the same machine does not disturb it.
    """
    return f"jobworker-test-{os.getpid()}"


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Everything that a test opens, starts or makes is gone after it."""
    with contextlib.ExitStack() as stack:
        for guard in guards.GUARDS:
            stack.enter_context(guards.no_leak(guard))
        yield


@pytest.fixture(autouse=True)
def _no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Asynchronous tests run with the blocking-call detector."""
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with guards.no_blocking():
        yield
