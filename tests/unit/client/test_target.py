"""The address of a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobworker.client import Target
from jobworker.errors import InvalidArgumentError

FILES = {"ca": Path("ca"), "cert": Path("cert"), "key": Path("key")}


@pytest.mark.parametrize(
    ("server", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("jobs.example.com:1", "jobs.example.com", 1),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_host_and_port_are_told_apart(server: str, host: str, port: int) -> None:
    target = Target(server=server, **FILES)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    "server",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "host:²", "::1:50051", "a b:1",
     "dns:///host:1", "unix:/run/socket:1", "host\n:1", "[]:1", "host:-1"],
)  # fmt: skip
def test_anything_else_is_refused(server: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot use server"):
        Target(server=server, **FILES)
