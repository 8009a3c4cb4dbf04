"""Which service, from options, variables and profiles.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobworker.cli.profiles import Profile, ProfileError, find_profile

TEXT = """\
[default]
server = "one:1"
ca = "ca.pem"
cert = "~/own.pem"
key = "/abs/own.key"

[other]
server = "two:2"
ca = "a"
cert = "b"
key = "c"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    directory = tmp_path / "jobworker"
    directory.mkdir()
    (directory / "profiles.toml").write_text(TEXT)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_the_default_profile_with_its_paths(environ, tmp_path: Path) -> None:
    assert find_profile({}, environ) == Profile(
        server="one:1",
        ca=tmp_path / "jobworker" / "ca.pem",
        cert=Path("~/own.pem").expanduser(),
        key=Path("/abs/own.key"),
    )


def test_an_option_wins_over_a_variable_and_a_variable_over_the_profile(environ) -> None:
    environ |= {"JOBCTL_SERVER": "env:1", "JOBCTL_CA": "/env/ca"}
    found = find_profile({"server": "option:1"}, environ)
    assert (found.server, found.ca, found.key) == (
        "option:1",
        Path("/env/ca"),
        Path("/abs/own.key"),
    )


def test_a_path_that_is_given_is_relative_to_where_one_is(environ) -> None:
    assert find_profile({"ca": "here.pem"}, environ).ca == Path("here.pem")


def test_a_profile_is_named_by_option_or_variable(environ) -> None:
    assert find_profile({"profile": "other"}, environ).server == "two:2"
    assert find_profile({}, environ | {"JOBCTL_PROFILE": "other"}).server == "two:2"
    chosen = find_profile({"profile": "other"}, environ | {"JOBCTL_PROFILE": "nonsense"})
    assert chosen.server == "two:2"


def test_with_all_options_no_file_is_needed(tmp_path: Path) -> None:
    given = {"server": "h:1", "ca": "a", "cert": "b", "key": "c"}
    assert find_profile(given, {"XDG_CONFIG_HOME": str(tmp_path)}).server == "h:1"


def test_a_relative_xdg_directory_is_ignored(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".config" / "jobworker"
    directory.mkdir(parents=True)
    (directory / "profiles.toml").write_text(TEXT)
    assert find_profile({}, {"XDG_CONFIG_HOME": "relative"}).server == "one:1"


def test_without_anything_the_message_names_options_and_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as raised:
        find_profile({"server": "h:1"}, {"XDG_CONFIG_HOME": str(tmp_path)})
    message = str(raised.value)
    assert message.startswith("cannot tell which service to use: give --ca, --cert, --key, or")
    assert str(tmp_path / "jobworker" / "profiles.toml") in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[other]\n", r"there is no profile 'p' in .* \(profiles: other\)"),
        ("", r"\(profiles: none\)"),
        ("[p]\nhost = 'x'\n", "unknown key 'host'"),
        ("[p]\nserver = 5\n", "server of \\[p\\] .* takes text"),
        ("[p]\nserver = ''\n", "takes text"),
        ("p = 1\n", "is no section"),
        ("[p\n", "is not TOML"),
        ("[p]\nserver = 'x:1'\n", "give --ca, --cert, --key"),
    ],
)
def test_a_faulty_profile_is_told(environ, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "jobworker" / "profiles.toml").write_text(text)
    with pytest.raises(ProfileError, match=reason):
        find_profile({"profile": "p"}, environ)


def test_a_file_that_is_not_text_is_told(environ, tmp_path: Path) -> None:
    (tmp_path / "jobworker" / "profiles.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="is not TOML"):
        find_profile({}, environ)


def test_a_directory_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobworker" / "profiles.toml").mkdir(parents=True)
    with pytest.raises(ProfileError, match="cannot be read"):
        find_profile({}, {"XDG_CONFIG_HOME": str(tmp_path)})
