"""The unit for systemd takes nothing away that jobs need."""

from __future__ import annotations

from pathlib import Path

UNIT = Path(__file__).parent.parent.parent / "packaging/systemd/jobworker.service"

#: By systemd.exec(5); a job inherits what is refused to the service.
REFUSE_ISOLATION = {
    "PrivateUsers",  # uids of jobs would not be there
    "ProtectHostname",  # sethostname(2), also in a namespace of the job's own
    "RestrictNamespaces",  # clone(2) of them
    "SystemCallFilter",  # mount(2), pivot_root(2) and their kin
}


def test_the_unit_lets_isolated_jobs_start() -> None:
    lines = UNIT.read_text("utf-8").splitlines()
    settings = {line.partition("=")[0] for line in lines if "=" in line and line[0] != "#"}
    assert "NoNewPrivileges" in settings
    assert not settings & REFUSE_ISOLATION
