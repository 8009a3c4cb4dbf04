"""Which service to use and with which files: from options, variables and profiles.toml.

::

    [default]                        # a section for each profile
    server = "jobs.example.com:50051"
    ca = "ca.pem"                    # relative to this file; ~ is the home directory
    cert = "~/certs/alice.pem"
    key = "~/certs/alice.key"

The file is ``jobworker/profiles.toml`` below ``$XDG_CONFIG_HOME`` or ``~/.config`` (XDG Base
Directory Specification).  An option wins over a variable, a variable over the profile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobworker.errors import FailedPreconditionError

DEFAULT_PROFILE: Final = "default"
FIELDS: Final = ("server", "ca", "cert", "key")


class ProfileError(FailedPreconditionError):
    """It is not settled which service to use."""

    def __init__(self, why: str) -> None:
        super().__init__("tell which service to use", why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A service and the files to show to it, not looked at yet."""

    server: str
    ca: Path
    cert: Path
    key: Path


def find_profile(
    options: Mapping[str, str | None], environ: Mapping[str, str] | None = None
) -> Profile:
    """Put together what options, variables and the profile say; raises ProfileError.

    options: ``profile`` and the names in ``FIELDS``.
    """
    environ = os.environ if environ is None else environ
    given = {
        name: options.get(name) or environ.get(f"JOBCTL_{name.upper()}") or "" for name in FIELDS
    }
    wanted = options.get("profile") or environ.get("JOBCTL_PROFILE")
    path = profiles_path(environ)
    kept: Mapping[str, str] = {}
    if wanted or not all(given.values()):
        kept = _read_profile(path, wanted or DEFAULT_PROFILE, is_wanted=bool(wanted))
    values = {name: given[name] or kept.get(name, "") for name in FIELDS}
    missing = [f"--{name}" for name in FIELDS if not values[name]]
    if missing:
        raise ProfileError(f"give {', '.join(missing)}, or a profile in {path}")
    return Profile(
        server=values["server"],
        ca=Path(values["ca"]).expanduser(),
        cert=Path(values["cert"]).expanduser(),
        key=Path(values["key"]).expanduser(),
    )


def profiles_path(environ: Mapping[str, str]) -> Path:
    """Where profiles are kept."""
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # the specification: a relative path is to be ignored
        base = Path("~/.config").expanduser()
    return base / "jobworker" / "profiles.toml"


def _read_profile(path: Path, name: str, *, is_wanted: bool) -> Mapping[str, str]:
    """One section, its paths made absolute; an absent default profile is an empty one."""
    profiles = _read_file(path)
    if name not in profiles:
        if not is_wanted:
            return {}
        known = ", ".join(sorted(profiles)) or "none"
        raise ProfileError(f"there is no profile {name!r} in {path} (profiles: {known})")
    section = profiles[name]
    if not isinstance(section, dict):
        raise ProfileError(f"{name!r} in {path} is no section: it takes [{name}]")
    for key, value in section.items():
        if key not in FIELDS:
            known = ", ".join(FIELDS)
            raise ProfileError(f"[{name}] in {path} has an unknown key {key!r} (keys: {known})")
        if not isinstance(value, str) or not value:
            raise ProfileError(f"{key} of [{name}] in {path} takes text")
    return {
        key: value if key == "server" else str(path.parent / Path(value).expanduser())
        for key, value in section.items()
    }


def _read_file(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 -- 5 ms that those who give all the options need not wait

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProfileError(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not TOML: {error}") from error
