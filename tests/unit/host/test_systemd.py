"""The unit, and what systemd is told over the two kinds of address that it may give."""

from __future__ import annotations

import secrets
import shlex
import socket
from pathlib import Path

import pytest

from jobworker.host.places import CONFIG_DEFAULT, STATE_DEFAULT
from jobworker.host.systemd import notify

UNIT = Path(__file__).parents[3] / "packaging/systemd/jobworker.service"


def test_the_unit_leaves_it_to_the_configuration_where_the_state_is() -> None:
    """The doctor reads the configuration and knows of no unit: both must mean the same disk."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    settings = {name: value for name, _, value in lines}
    _, *words = shlex.split(settings["ExecStart"])
    assert words == ["serve", "--config", str(CONFIG_DEFAULT)]
    assert Path("/var/lib") / settings["StateDirectory"] == STATE_DEFAULT


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_state_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    address = f"@jobworker-{secrets.token_hex(8)}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address.replace("@", "\0", 1))
        told.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        assert told.recv(100) == b"READY=1"


def test_nobody_asking_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_nobody_listening_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    assert [found.message for found in caplog.records] == ["systemd not notified"]
