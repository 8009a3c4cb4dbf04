"""The doctor finds what the worker promises and what jobs are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobworker.cgroup.choose import open_hierarchy
from jobworker.host.trial import Outcome
from jobworker.model.limits import Resource
from support.worker import WorkerPlace

pytestmark = pytest.mark.kernel

_PROMISES = ("kill", "user", "scratch", "state")


def examine(*options: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    command = (sys.executable, "-m", "jobworker.host.main", "doctor", "-o", "json", *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_findings_are_what_the_host_promises(
    place: WorkerPlace, disk: str, tmp_path: Path, cgroup_name: str
) -> None:
    config = tmp_path / "jobworker.toml"
    config.write_text(
        f'[server]\nstate_dir = "{place.state_dir}"\n'
        f'[worker]\ncgroup_parent = "{cgroup_name}"\n'
        "[policy.user]\nio_read_iops = 100\n"
    )
    code, report = examine("--config", str(config))
    hierarchy = open_hierarchy("verdicts", parent=cgroup_name)
    verdicts = hierarchy.verdicts()
    hierarchy.release()
    assert report["cgroups"] == hierarchy.mode.value
    assert disk in {name.split()[0] for name in report["disks"]}
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert list(findings) == [*(resource.value for resource in Resource), *_PROMISES]
    for resource in Resource:
        verdict, finding = verdicts[resource.value], findings[resource.value]
        expected = Outcome.PARTLY if verdict.note else Outcome.HOLDS
        assert (finding["outcome"], finding["reason"]) == (expected.value, verdict.note), finding
        assert finding["measured"]
    for name in _PROMISES:
        assert findings[name]["outcome"] == "holds", findings[name]
    assert findings["io_read_ops_per_s"]["asked"] == {"user": 100}
    assert findings["io_write_ops_per_s"]["asked"] == {}
    assert report["is_kept"] is True
    assert code == 0
    assert list(place.state_dir.iterdir()) == []


def test_without_cgroups_nothing_holds_and_the_reason_is_the_workers(
    place: WorkerPlace, tmp_path: Path
) -> None:
    config = tmp_path / "jobworker.toml"
    config.write_text(
        f'[server]\nstate_dir = "{place.state_dir}"\n[worker]\ncgroup_parent = "no\\nname"\n'
    )
    code, report = examine("--config", str(config))
    verdicts = open_hierarchy("verdicts", parent="no\nname").verdicts()
    assert report["cgroups"] == "none"
    findings = {finding["name"]: finding for finding in report["findings"]}
    for resource in Resource:
        finding = findings[resource.value]
        assert (finding["outcome"], finding["reason"]) == (
            "does not hold",
            verdicts[resource.value].note,
        )
    assert findings["kill"]["outcome"] == "holds"
    assert report["is_kept"] is False
    assert code == 1


def test_a_file_system_without_a_disk_is_found_out(place: WorkerPlace) -> None:
    """The kernel takes the limits, since there are disks elsewhere: only measuring tells."""
    command = (
        "mkdir $1/memory && mount -t tmpfs none $1/memory && chmod 711 $1/memory && "
        "exec $2 -m jobworker.host.main doctor -o json --state-dir $1/memory"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", str(place.state_dir), sys.executable],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    for finding in report["findings"]:
        if finding["name"].startswith("io_"):
            assert finding["outcome"] in {"does not hold", "not tried"}, finding
        elif finding["name"] != "cpu_millis":
            assert finding["outcome"] == "holds", finding
