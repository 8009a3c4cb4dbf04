"""Who is let in, and what is said to those who are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobworker.security.store import PkiStore
from support.certificates import SERVER_AUTH, Wanted, days, forge, make_installation, utc_now
from support.daemon import Daemon, Done, Jobctl

pytestmark = pytest.mark.kernel


def reason(done: Done) -> str:
    """What follows "cannot connect to HOST:PORT: "."""
    assert done.code == 125
    assert done.out == b""
    assert done.err.startswith("jobctl: cannot connect to 127.0.0.1:")
    assert done.err.count("\n") == 1
    return done.err.split(": ", 2)[2]


@pytest.fixture
def stranger(tmp_path: Path):
    return make_installation(tmp_path / "stranger")


@pytest.fixture
def forged(daemon: Daemon, tmp_path: Path):
    """Files of a certificate that the installation's own CA has signed."""

    def make(wanted: Wanted) -> dict[str, Path]:
        leaf = forge(PkiStore(daemon.pki("")).read_pair("ca"), wanted)
        cert, key = tmp_path / "forged.pem", tmp_path / "forged.key"
        cert.write_bytes(leaf.certificate_pem)
        key.write_bytes(leaf.key_pem)
        return {"cert": cert, "key": key}

    return make


def test_a_certificate_of_another_ca(alice, stranger) -> None:
    store = stranger.store
    other = alice.but_with(cert=store.certificate_file("alice"), key=store.key_file("alice"))
    assert "is not issued by the CA in" in reason(other("list"))


def test_a_ca_of_another_service(alice, stranger) -> None:
    told = reason(alice.but_with(ca=stranger.ca_file)("list"))
    assert f"the service's certificate is not issued by the CA in {stranger.ca_file}" in told


def test_a_key_of_somebody_else(alice, bob) -> None:
    told = reason(alice.but_with(key=bob.options["key"])("list"))
    assert "does not belong to the certificate" in told


def test_a_file_that_is_missing(alice) -> None:
    told = reason(alice.but_with(cert="/nonexistent.pem")("list"))
    assert told.startswith("the certificate file /nonexistent.pem cannot be read (No such file")


def test_an_expired_certificate(alice, forged) -> None:
    files = forged(Wanted(not_before=utc_now() - days(2), not_after=utc_now() - days(1)))
    assert "expired at" in reason(alice.but_with(**files)("list"))


def test_a_certificate_for_servers(alice, forged) -> None:
    files = forged(Wanted(usages=[SERVER_AUTH]))
    assert "client authentication" in reason(alice.but_with(**files)("list"))


def test_a_certificate_without_a_role(alice, forged) -> None:
    """The handshake lets it pass, and the service does not."""
    done = alice.but_with(**forged(Wanted(roles=["boss"])))("list")
    assert done.code == 125
    assert done.err.startswith("jobctl: cannot accept the client certificate: ")
    assert done.err.count("\n") == 1


def test_another_name_than_the_service_has(alice) -> None:
    port = str(alice.options["server"]).rpartition(":")[2]
    done = alice.but_with(server=f"127.0.0.2:{port}")("list")
    assert done.code == 125
    assert done.err.startswith(f"jobctl: cannot connect to 127.0.0.2:{port}: ")


def test_nobody_listens(alice) -> None:
    told = reason(alice.but_with(server="127.0.0.1:1")("list"))
    assert told == "nobody listens there (connection refused)\n"


@pytest.mark.parametrize("server", ["nonsense", "127.0.0.1", "127.0.0.1:0", "::1:50051"])
def test_an_address_that_is_none(alice, server: str) -> None:
    done = alice.but_with(server=server)("list")
    assert (done.code, done.err.count("\n")) == (125, 1)
    assert done.err.startswith("jobctl: cannot use server ")


def test_a_profile_in_place_of_options(daemon: Daemon, alice, tmp_path: Path) -> None:
    directory = tmp_path / "jobworker"
    directory.mkdir()
    text = "".join(f'{name} = "{value}"\n' for name, value in alice.options.items())
    (directory / "profiles.toml").write_text(f"[here]\n{text}")
    plain = Jobctl(options={})
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert plain("whoami", "--profile", "here", env=environment).code == 0
    assert plain("whoami", env=environment | {"JOBCTL_PROFILE": "here"}).code == 0
    absent = plain("whoami", env=environment)
    assert absent.code == 125
    assert absent.err.startswith("jobctl: cannot tell which service to use: ")
    unknown = plain("whoami", "--profile", "there", env=environment)
    assert "there is no profile 'there'" in unknown.err


def test_help_is_complete(alice) -> None:
    done = Jobctl(options={})("--help")
    assert (done.code, done.err) == (0, "")
    for verb in ("run", "start", "logs", "status", "stop", "list", "wait", "top", "whoami", "rm"):
        assert f"\n    {verb} " in done.out.decode()
        assert Jobctl(options={})(verb, "--help").code == 0
    assert b"exit codes:" in done.out
