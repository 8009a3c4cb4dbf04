"""``jobworker init``: whole or not at all, and nothing of value overwritten."""

from __future__ import annotations

import argparse
import os
import shlex
import stat
from pathlib import Path

import pytest
from cryptography import x509

from jobworker.errors import FailedPreconditionError
from jobworker.host.init import _make_plan, add_arguments
from jobworker.host.main import main
from jobworker.host.places import CONFIG_DEFAULT, STATE_DEFAULT
from jobworker.security.identity import Authenticator
from jobworker.security.policy import Role
from jobworker.security.server_credentials import ServerFiles, load_server_files
from jobworker.security.store import PkiStore, read_certificate
from jobworker.security.trust import TrustStore
from jobworker.server.config import load_config

NAMES = {"ca", "server", "alice", "admin"}


def init(directory: Path, *options: str) -> int:
    return main(["init", "--dir", str(directory), *options])


def snapshot(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_installation_has_these_files(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    assert init(directory, "--host", "127.0.0.1") == 0
    assert {path.name for path in directory.iterdir()} == {"jobworker.toml", "pki"}
    expected = {f"{name}{end}" for name in NAMES for end in (".pem", ".key")}
    assert {path.name for path in (directory / "pki").iterdir()} == {*expected, "ca.crl", "issued"}


def test_only_the_owner_reads_keys_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        init(tmp_path / "d")
    finally:
        os.umask(before)
    assert mode(tmp_path / "d") == 0o711
    assert mode(tmp_path / "d/pki") == 0o700
    assert mode(tmp_path / "d/jobworker.toml") == 0o600
    assert {mode(path) for path in (tmp_path / "d/pki").glob("*.key")} == {0o600}


def test_what_it_makes_is_what_the_service_takes(tmp_path: Path) -> None:
    init(tmp_path / "d", "--host", "10.1.2.3")
    config = load_config(tmp_path / "d/jobworker.toml")
    tls = config.tls
    load_server_files(ServerFiles(certificate=tls.cert, key=tls.key, client_ca=tls.ca))
    authenticator = Authenticator(TrustStore(ca_file=tls.ca, crl_file=tls.crl))
    roles = {
        name: authenticator.authenticate((tmp_path / f"d/pki/{name}.pem").read_bytes()).principal
        for name in ("alice", "admin")
    }
    assert roles["alice"].role is Role.USER
    assert roles["admin"].role is Role.ADMIN
    assert str(config.server.listen) == "10.1.2.3:50051"


@pytest.mark.parametrize(
    ("hosts", "listen"),
    [
        ([], "127.0.0.1:50051"),
        (["localhost"], "127.0.0.1:50051"),
        (["::1"], "[::1]:50051"),
        (["build.example.com", "10.0.0.1"], "[::]:50051"),
    ],
)
def test_it_listens_where_its_hosts_lead(tmp_path: Path, hosts: list[str], listen: str) -> None:
    init(tmp_path / "d", *(word for host in hosts for word in ("--host", host)))
    assert str(load_config(tmp_path / "d/jobworker.toml").server.listen) == listen


def test_the_help_says_where_it_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a service at 10.0.0.1 it once promised that localhost leads to it."""
    with pytest.raises(SystemExit):
        main(["init", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "localhost always works" not in text
    assert "the first says where it listens: on that address alone" in text


@pytest.mark.parametrize(
    ("options", "state_dir"),
    [
        ([], "d/state"),
        (["--state-dir", "{}/elsewhere"], "elsewhere"),
        (["--state-dir", '{}/a "quoted" \\ name'], 'a "quoted" \\ name'),
    ],
)
def test_the_state_is_where_the_configuration_says(
    tmp_path: Path, options: list[str], state_dir: str
) -> None:
    init(tmp_path / "d", *(word.format(tmp_path) for word in options))
    assert load_config(tmp_path / "d/jobworker.toml").server.state_dir == tmp_path / state_dir


def test_the_state_of_the_whole_host_is_not_kept_in_etc() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plan = _make_plan(parser.parse_args(["--dir", "/etc/jobworker"]))
    assert plan.config == CONFIG_DEFAULT
    assert plan.state_dir == STATE_DEFAULT


def test_the_server_has_the_hosts_and_loopback_among_its_names(tmp_path: Path) -> None:
    init(tmp_path / "d", "--host", "build.example.com", "--host", "10.1.2.3")
    certificate = read_certificate(tmp_path / "d/pki/server.pem")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["build.example.com", "localhost"]
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    assert list(addresses) == ["10.1.2.3", "127.0.0.1", "::1"]


def test_a_second_init_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "d")
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert init(tmp_path / "d") == 1
    assert snapshot(tmp_path) == before
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("jobworker: cannot make an installation in ")
    assert "pki/ca.pem exists; --force replaces it" in output.err


@pytest.mark.parametrize("precious", ["pki/ca.key", "jobworker.toml", "pki/other"])
def test_what_somebody_else_left_is_not_overwritten(tmp_path: Path, precious: str) -> None:
    path = tmp_path / "d" / precious
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    before = snapshot(tmp_path)
    assert init(tmp_path / "d") == 1
    assert snapshot(tmp_path) == before
    assert not list((tmp_path / "d").glob(".pki*"))


def test_force_replaces_and_keeps_the_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "d")
    before = snapshot(tmp_path / "d")
    assert init(tmp_path / "d", "--force") == 0
    after = snapshot(tmp_path / "d")
    assert after["pki/ca.pem"] != before["pki/ca.pem"]
    (kept,) = (tmp_path / "d").glob("pki.replaced-*")
    assert (kept / "ca.key").read_bytes() == before["pki/ca.key"]
    (config,) = (tmp_path / "d").glob("jobworker.toml.replaced-*")
    assert config.read_bytes() == before["jobworker.toml"]
    assert f"kept {kept}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--user", "ca"], "it is the name of files of the service"),
        (["--user", "server"], "it is the name of files of the service"),
        (["--user", "../x"], "cannot use user name"),
        (["--user", "bob", "--admin", "bob"], "it is given twice"),
        (["--host", "a b"], "cannot use host"),
        (["--days", "0"], "cannot use days 0"),
    ],
)
def test_what_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    assert init(tmp_path / "d", *options) == 1
    assert why in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert init(tmp_path / "file/d") == 1
    assert "Not a directory" in capsys.readouterr().err


def test_the_commands_that_it_prints_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "with space"
    init(directory, "--user", "carol")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (serve,) = (line for line in lines if line.startswith("jobworker serve"))
    assert shlex.split(serve)[2:] == ["--config", str(directory / "jobworker.toml")]
    (run,) = (line for line in lines if line.startswith("jobctl run --server"))
    words = shlex.split(run)
    for option, file in (("--ca", "ca.pem"), ("--cert", "carol.pem"), ("--key", "carol.key")):
        path = Path(words[words.index(option) + 1])
        assert path == directory / "pki" / file
        assert path.is_file()


def test_every_leaf_is_on_record(tmp_path: Path) -> None:
    init(tmp_path / "d", "--user", "a", "--user", "b", "--admin", "c")
    store = PkiStore(tmp_path / "d/pki")
    recorded = {each.serial_number for each in store.issued()}
    made = {read_certificate(store.certificate_file(n)).serial_number for n in "abc"}
    server = read_certificate(store.certificate_file("server")).serial_number
    assert recorded == {*made, server}
    with pytest.raises(FailedPreconditionError):
        store.write_pair("a", store.read_pair("b"))
