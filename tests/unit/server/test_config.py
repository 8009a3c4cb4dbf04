"""The configuration file: defaults, notation, and every problem named."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobworker.client.backoff import Patience
from jobworker.errors import FailedPreconditionError
from jobworker.host.config_text import config_text
from jobworker.jobs.settings import RequireLimits, WorkerSettings
from jobworker.model.limits import Limits
from jobworker.model.policy import JobPolicy
from jobworker.model.spec import OnOutputLimit
from jobworker.security.policy import Role
from jobworker.server.config import Config, Shutdown, load_config
from jobworker.server.config_reader import Address


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "jobworker.toml"
    path.write_text(text)
    return load_config(path)


def problems_of(tmp_path: Path, text: str) -> str:
    with pytest.raises(FailedPreconditionError) as refusal:
        load(tmp_path, text)
    message = str(refusal.value)
    assert message.startswith(f"cannot use config {tmp_path}/jobworker.toml: ")
    return message


def test_the_text_of_init_says_what_holds_without_it(tmp_path: Path) -> None:
    assert load(tmp_path, config_text(listen="127.0.0.1:50051", state_dir=Path("state"))) == load(
        tmp_path, ""
    )


def test_every_key_of_the_text_has_its_comment() -> None:
    lines = config_text(listen="127.0.0.1:50051", state_dir=Path("state")).splitlines()
    commented = False
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line
        # The admin's keys are those of the user, which are explained above.
        if " = " in line and not line.startswith("#") and "admin" not in section:
            assert commented, line
        commented = bool(line) and (commented or line.startswith("#"))


def test_a_standard_user_is_limited_by_default(tmp_path: Path) -> None:
    policy = load(tmp_path, "").policies[Role.USER]
    assert policy.limits == Limits(
        cpu_millis=500,
        memory_bytes=256 << 20,
        tasks=128,
        io_read_bytes_per_s=20 << 20,
        io_write_bytes_per_s=20 << 20,
    )
    assert policy.max_output_bytes == 1 << 30
    assert policy.on_output_limit is OnOutputLimit.STOP
    assert policy.max_running_jobs == 50
    assert policy.max_kept_bytes == 10 << 30


def test_an_admin_is_not_limited_by_default(tmp_path: Path) -> None:
    policy = JobPolicy(max_output_bytes=10 << 30, may_loosen_isolation=True)
    assert load(tmp_path, "").policies[Role.ADMIN] == policy


def test_one_key_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    """An operator who raises the CPU does not take the memory limit away."""
    policy = load(tmp_path, "[policy.user]\ncpu = 2").policies[Role.USER]
    assert policy.limits.cpu_millis == 2000
    assert policy.limits.memory_bytes == 256 << 20


def test_none_takes_a_limit_away(tmp_path: Path) -> None:
    text = '[policy.user]\ncpu = "none"\nmax_output = "none"\n[worker]\nuid_first = "none"'
    config = load(tmp_path, text)
    assert config.policies[Role.USER].limits.cpu_millis is None
    assert config.policies[Role.USER].max_output_bytes is None
    assert config.worker.uid_first is None


def test_every_kind_of_value(tmp_path: Path) -> None:
    text = """
        [server]
        listen = "[::1]:0"
        metrics = "127.0.0.1:9465"
        shutdown = "stop"
        heartbeat = "500ms"
        [policy.admin]
        cpu = "1.5"
        memory = 1048576
        timeout = "1h30m"
        on_output_limit = "discard"
        [worker]
        require_limits = "warn"
        [worker.accounts]
        alice = "builder"
        "bob@example.com" = "nobody"
    """
    config = load(tmp_path, text)
    assert config.server.listen == Address("::1", 0)
    assert str(config.server.listen) == "[::1]:0"
    assert config.server.metrics == Address("127.0.0.1", 9465)
    assert config.server.shutdown is Shutdown.STOP
    assert config.server.heartbeat == 0.5
    policy = config.policies[Role.ADMIN]
    assert policy.limits == Limits(cpu_millis=1500, memory_bytes=1 << 20)
    assert policy.timeout_s == 5400
    assert policy.on_output_limit is OnOutputLimit.DISCARD
    assert config.worker.require_limits is RequireLimits.WARN
    assert config.worker.accounts == {"alice": "builder", "bob@example.com": "nobody"}


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/jobworker.toml").write_text('[server]\nstate_dir = "/var/lib/x"')
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/jobworker.toml"))
    assert config.tls.ca == tmp_path / "etc/pki/ca.pem"
    assert config.audit.file == tmp_path / "etc/audit.log"
    assert config.server.state_dir == Path("/var/lib/x")


def test_the_worker_section_becomes_the_workers_settings(tmp_path: Path) -> None:
    text = """
        [worker]
        cgroup_parent = "/jobs"
        default_grace = "3s"
        min_free = "1G"
        [worker.retention]
        max_jobs = 7
        max_age = "1d"
    """
    settings = load(tmp_path, text).worker.to_settings()
    assert settings.cgroup_parent == "/jobs"
    assert settings.default_grace_s == 3
    assert settings.min_free_bytes == 1 << 30
    assert settings.retention.max_jobs == 7
    assert settings.retention.max_age_s == 86400
    plain = WorkerSettings()
    silent = load(tmp_path, "").worker.to_settings()
    assert silent.uid_first == plain.uid_first
    assert silent.uid_count == plain.uid_count
    assert silent.default_grace_s == plain.default_grace_s
    assert silent.min_free_bytes == plain.min_free_bytes


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = """
        [server]
        listen = "localhost"
        max_streams = 0
        [policy.user]
        cpu = 0.001
        memory = "256MB"
        on_output_limit = "ignore"
        [worker]
        cgroup_paren = "/x"
        [worker.accounts]
        "-rf" = "root"
        [worker.retention]
        max_age = true
    """
    lines = problems_of(tmp_path, text).splitlines()[1:]
    assert {line.strip().partition(":")[0] for line in lines} == {
        "$.server.listen",
        "$.server.max_streams",
        "$.policy.user.cpu",
        "$.policy.user.memory",
        "$.policy.user.on_output_limit",
        "$.worker.cgroup_paren",
        "$.worker.accounts.-rf",
        "$.worker.retention.max_age",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[policy.user]\ncpu = 0.001", "$.policy.user.cpu: it takes 0.01 to 8192 CPUs"),
        ("[policy.user]\ncpu = 1e-9", "$.policy.user.cpu: it takes a number of CPUs"),
        ("[policy.user]\ncpu = nan", "$.policy.user.cpu: it takes a number of CPUs"),
        ("[policy.user]\ncpu = true", "$.policy.user.cpu: it takes text"),
        ("[policy.user]\nio_read = 512", "$.policy.user.io_read: it takes 4096 to"),
        ("[policy.user]\ntasks = 0", "$.policy.user.tasks: it takes 1 to"),
        ("[policy.user]\ntasks = 1.5", "$.policy.user.tasks: expected int or"),
        ("[policy.usr]", "$.policy.usr: there is no such key; is it user?"),
        ("[sevrer]", "$.sevrer: there is no such key; is it server?"),
        ("server = 3", "$.server: it takes a table"),
        ("[server]\nlisten = { host = 'x', port = 1 }", "$.server.listen: it takes text"),
        ("[server]\nlisten = 'x:70000'", "$.server.listen: it takes HOST:PORT"),
        ("[server]\nmetrics = 9465", "$.server.metrics: it takes text"),
        ("[server]\nheartbeat = '0s'", "$.server.heartbeat: it takes 100ms to 5s"),
        ("[server]\nheartbeat = '99ms'", "$.server.heartbeat: it takes 100ms to 5s"),
        ("[server]\nheartbeat = '5.001s'", "$.server.heartbeat: it takes 100ms to 5s"),
        ("[server]\nshutdown = 'LEAVE'", '$.server.shutdown: it takes "leave" or "stop"'),
        ("[server]\nstate_dir = ''", "$.server.state_dir: it takes a path"),
        ("[tls]\nca = 'none'\nkey = 1", "$.tls.key: it takes text"),
        ("[worker]\naccounts = 1", "$.worker.accounts: it takes a table"),
        ("[worker.accounts]\nalice = 1", "$.worker.accounts.alice: it takes the name"),
        ("[worker]\nuid_first = 0", "$.worker.uid_first: expected int >= 1"),
        (
            "[worker]\nuid_first = 4294901760",
            "$.worker.uid_count: the last id would be 4294967295, the most is 4294967294",
        ),
    ],
)
def test_a_problem_is_named_with_its_path(tmp_path: Path, text: str, problem: str) -> None:
    assert f": {problem}" in problems_of(tmp_path, text)


def test_the_range_of_user_ids_may_end_with_the_last_there_is(tmp_path: Path) -> None:
    worker = load(tmp_path, "[worker]\nuid_first = 4294901759").worker
    assert worker.to_settings().uids[-1] == (1 << 32) - 2


@pytest.mark.parametrize("heartbeat", ["100ms", "5s"])
def test_a_client_bears_with_two_heartbeats_that_do_not_come(
    tmp_path: Path, heartbeat: str
) -> None:
    config = load(tmp_path, f'[server]\nheartbeat = "{heartbeat}"')
    assert 3 * config.server.heartbeat <= Patience().silence_s


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in problems_of(tmp_path, "[server]\nlisten = \n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"absent\.toml: No such file"):
        load_config(tmp_path / "absent.toml")
