"""``jobworker doctor``: from what was measured and told to a verdict, a report, an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobworker.cgroup.interface import Mode
from jobworker.host import doctor
from jobworker.host.isolation_trials import KILL, SCRATCH, STATE, USER
from jobworker.host.main import main
from jobworker.host.trial import Finding, Outcome, judge
from jobworker.kernel.disks import BlockDevice
from jobworker.model.limits import EffectiveLimit, Limits, Resource
from jobworker.security.policy import Role
from jobworker.worker import RequireLimits, WorkerSettings

CPU, READ = Resource.CPU, Resource.IO_READ_BYTES
PASSED = "the kernel took the limit, and the job was not held to it"


def told(effective: int | None, note: str = "", device: str = "") -> EffectiveLimit:
    return EffectiveLimit(
        resource=READ, requested=100, effective=effective, note=note, device=device
    )


@pytest.mark.parametrize(
    ("effective", "is_held", "hole", "outcome", "reason"),
    [
        ([told(100)], True, "", Outcome.HOLDS, ""),
        ([told(100, "a hole")], True, "", Outcome.PARTLY, "a hole"),
        ([told(100)], True, "buffered passes", Outcome.PARTLY, "buffered passes"),
        ([told(100, "a hole")], True, "buffered passes", Outcome.PARTLY, "a hole"),
        ([told(100)], False, "", Outcome.DOES_NOT_HOLD, PASSED),
        ([told(100, "a hole")], False, "", Outcome.DOES_NOT_HOLD, f"{PASSED}; a hole"),
        ([told(None, "no file")], True, "", Outcome.DOES_NOT_HOLD, "no file"),
        ([told(None, "no file")], False, "", Outcome.DOES_NOT_HOLD, "no file"),
        ([told(100), told(None, "ENODEV")], True, "", Outcome.PARTLY, "ENODEV"),
        ([told(100, "same"), told(100, "same")], True, "", Outcome.PARTLY, "same"),
    ],
)
def test_a_verdict_needs_the_kernels_word_and_the_measurement(
    effective: list[EffectiveLimit], is_held: bool, hole: str, outcome: Outcome, reason: str
) -> None:
    finding = judge(READ.value, effective, is_held=is_held, measured="seen", hole=hole)
    assert (finding.outcome, finding.reason, finding.measured) == (outcome, reason, "seen")
    assert (finding.reason == "") == (outcome is Outcome.HOLDS)


def test_limits_of_other_resources_do_not_count() -> None:
    other = EffectiveLimit(resource=CPU, requested=100, effective=100)
    finding = judge(READ.value, [other], is_held=True, measured="")
    assert finding.outcome is Outcome.DOES_NOT_HOLD


def report(
    *findings: Finding, limits: Limits | None = None, settings: WorkerSettings | None = None
) -> doctor._Report:
    plan = doctor._Plan(
        settings=settings or WorkerSettings(),
        state_dir=Path("/nowhere"),
        policies={Role.USER: limits or Limits(), Role.ADMIN: Limits()},
    )
    return doctor._Report(
        plan=plan,
        mode=Mode.HYBRID,
        disks=(BlockDevice(major=8, minor=0, name="sda"),),
        place="/nowhere, ext4 on /dev/sda1",
        findings=findings,
    )


def finding(name: str, outcome: Outcome) -> Finding:
    reason = "" if outcome is Outcome.HOLDS else "for a reason"
    return Finding(name=name, outcome=outcome, measured="seen", reason=reason)


@pytest.mark.parametrize(
    ("outcome", "is_problem"),
    [
        (Outcome.HOLDS, False),
        (Outcome.PARTLY, False),  # a strict worker starts such a job, and its status tells
        (Outcome.DOES_NOT_HOLD, True),
        (Outcome.NOT_TRIED, True),
    ],
)
def test_only_what_is_asked_for_is_a_problem(outcome: Outcome, is_problem: bool) -> None:
    found = finding(CPU.value, outcome)
    assert bool(report(found, limits=Limits(cpu_millis=500)).problems) is is_problem
    assert report(found, limits=Limits(tasks=5)).problems == ()


def test_a_stop_and_a_scratch_are_always_asked_for_and_a_user_by_the_configuration() -> None:
    failed = [finding(name, Outcome.DOES_NOT_HOLD) for name in (KILL, USER, SCRATCH, STATE)]
    names = [each.name for each in report(*failed).problems]
    assert names == [KILL, USER, SCRATCH, STATE]
    own = WorkerSettings(uid_first=None)
    names = [each.name for each in report(*failed, settings=own).problems]
    assert names == [KILL, SCRATCH]


def test_the_table_says_verdict_policy_measurement_and_reason() -> None:
    text = doctor._as_table(
        report(
            finding(CPU.value, Outcome.HOLDS),
            finding(READ.value, Outcome.DOES_NOT_HOLD),
            finding(KILL, Outcome.HOLDS),
            limits=Limits(cpu_millis=500, io_read_bytes_per_s=20 << 20),
            settings=WorkerSettings(require_limits=RequireLimits.WARN),
        )
    )
    lines = text.splitlines()
    rows = [line.split() for line in lines]
    assert ["disks", "8:0", "sda"] in rows
    assert ["CPU", "holds", "0.5", "-"] in rows
    assert ["disk", "read", "does", "not", "hold", "20M", "-"] in rows
    assert ["stop", "reaches", "all", "holds", "always", "always"] in rows
    assert lines.count("  seen") == 3
    assert lines.count("  for a reason") == 1
    assert lines[-2] == "Asked for and not kept on this host: disk read."
    assert lines[-1].startswith('require_limits is "warn"')


def test_the_json_says_all_of_it() -> None:
    made = report(finding(CPU.value, Outcome.NOT_TRIED), limits=Limits(cpu_millis=500))
    data = json.loads(json.dumps(doctor._as_json(made)))
    assert data["cgroups"] == "hybrid"
    assert data["disks"] == ["8:0 sda"]
    assert data["is_kept"] is False
    assert data["findings"] == [
        {
            "name": "cpu_millis",
            "outcome": "not tried",
            "measured": "seen",
            "reason": "for a reason",
            "is_asked": True,
            "asked": {"user": 500},
        }
    ]


def test_every_resource_and_promise_has_a_title() -> None:
    assert set(doctor._TITLES) == {each.value for each in Resource} | {KILL, USER, SCRATCH, STATE}


def test_wrong_usage_is_2_and_a_broken_configuration_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["doctor", "--nonsense"])
    assert leaving.value.code == 2
    config = tmp_path / "jobworker.toml"
    config.write_text("[policy.user]\ncpu = 0\n")
    assert main(["doctor", "--config", str(config)]) == 1
    assert "$.policy.user.cpu" in capsys.readouterr().err
