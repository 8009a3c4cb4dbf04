"""Whose memory it was, from what kernels have counted and written."""

from __future__ import annotations

import pytest

from jobworker.cgroup.oom import Level, OomSite, OutOfMemory, judge
from jobworker.kernel.messages import OomKill, last_oom_kill

#: Of Linux 6.18 (hybrid) and 6.1 (cgroup v2); names shortened.
_OWN = (
    "<6>[  914.603448] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,"
    "mems_allowed=0,oom_memcg=/svc/jobs/7x/job,task_memcg=/svc/jobs/7x/job,task=dd,pid=21,uid=0"
)
_ABOVE = _OWN.replace("oom_memcg=/svc/jobs/7x/job", "oom_memcg=/svc")
_FAR_ABOVE = _OWN.replace("/svc", "/pod/svc").replace(
    "oom_memcg=/pod/svc/jobs/7x/job", "oom_memcg=/pod"
)
_INSIDE = _OWN.replace("=/svc/jobs/7x/job", "=/svc/jobs/7x/job/mine")
_HOST = (
    "<6>[    3.710000] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,"
    "task_memcg=/svc/jobs/7x/job,task=python3,pid=704,uid=0"
)
_OTHER = _OWN.replace("7x", "8y")
_ROOT = "/sys/fs/cgroup"


def _level(path: str, limit: int | None = None, **fields: int | bool | None) -> Level:
    given = {"was_reached": False, "ooms": 0, **fields}
    return Level(path=f"{_ROOT}{path}", limit_bytes=limit, **given)  # type: ignore[arg-type]


def _judge(
    own: Level,
    service: Level,
    *,
    noted: int | None = None,
    has_root: bool = True,
    messages: str = "",
) -> OutOfMemory:
    """A job in /svc/jobs/7x/job; ``noted`` is what the service had counted when it began."""
    above = [_level("/svc/jobs/7x"), _level("/svc/jobs"), service, _level("")]
    before = {} if noted is None else {service.path: noted}
    return judge(own, above, noted=before, has_root=has_root, messages=messages, kills=1)


def _v1(path: str, limit: int | None = None, *, was_reached: bool = False) -> Level:
    return _level(path, limit, was_reached=was_reached, ooms=None)


JOB = "/svc/jobs/7x/job"
FREE = _level("/svc")


@pytest.mark.parametrize(
    ("found", "site", "limit"),
    [
        pytest.param(
            _judge(_level(JOB, 64, ooms=1, was_reached=True), _level("/svc", 99, ooms=4), noted=3),
            OomSite.OWN,
            64,
            id="v2: its own limit was hit, whatever else was",
        ),
        pytest.param(
            _judge(_level(JOB, 64, ooms_inside=1), FREE), OomSite.INSIDE, None, id="v2: inside"
        ),
        pytest.param(
            _judge(_level(JOB, 64), _level("/svc", 99, ooms=4), noted=3),
            OomSite.ABOVE,
            99,
            id="v2: one above was hit since the job began",
        ),
        pytest.param(
            _judge(_level(JOB, 64), _level("/svc", 99, ooms=3), noted=3),
            OomSite.NOT_OWN,
            None,
            id="v2: one above was hit, maybe before",
        ),
        pytest.param(
            _judge(_level(JOB, 64), _level("/svc", 99, ooms=3), noted=3, messages=_HOST),
            OomSite.HOST,
            None,
            id="v2: the same, and the log tells",
        ),
        pytest.param(
            _judge(_level(JOB, 64), _level("/svc", 99, was_reached=True)),
            OomSite.HOST,
            None,
            id="v2: reached by the page cache is not hit",
        ),
        pytest.param(
            _judge(_level(JOB, 64), FREE, has_root=False),
            OomSite.NOT_OWN,
            None,
            id="v2: in a container one may be above that is not seen",
        ),
        pytest.param(_judge(_v1(JOB, 64), _v1("/svc")), OomSite.HOST, None, id="v1: none reached"),
        pytest.param(
            _judge(_v1(JOB, 64, was_reached=True), _v1("/svc")),
            OomSite.MAYBE_OWN,
            64,
            id="v1: reached, as far as can be known",
        ),
        pytest.param(
            _judge(_v1(JOB, 64), _v1("/svc", 99, was_reached=True)),
            OomSite.NOT_OWN,
            None,
            id="v1: one above was reached, maybe by the page cache",
        ),
        *(
            pytest.param(
                _judge(
                    _v1(JOB, 64, was_reached=True),
                    _v1("/svc", 99, was_reached=True),
                    messages=f"<6>[ 1.0] before\n{line}\n{_OTHER}\n<6>[ 2.0] after\n",
                ),
                site,
                limit,
                id=f"v1: the log tells {site.value} {limit}",
            )
            for line, site, limit in [
                (_OWN, OomSite.OWN, 64),
                (_ABOVE, OomSite.ABOVE, 99),
                (_FAR_ABOVE, OomSite.ABOVE, None),
                (_INSIDE, OomSite.INSIDE, None),
                (_HOST, OomSite.HOST, None),
                (_OTHER, OomSite.MAYBE_OWN, 64),
            ]
        ),
    ],
)
def test_the_site_is_told_as_far_as_the_evidence_goes(
    found: OutOfMemory, site: OomSite, limit: int | None
) -> None:
    assert (found.site, found.limit_bytes) == (site, limit)


def test_the_last_kill_in_a_cgroup_is_found_among_others() -> None:
    messages = f"{_HOST}\n{_OWN}\n{_OTHER}"
    assert last_oom_kill(messages, JOB) == OomKill(victim=JOB, limit=JOB)
    assert last_oom_kill(messages, "/svc/jobs/x/job") is None
    assert last_oom_kill(messages, "/7x/jo") is None
    assert last_oom_kill("", JOB) is None


def test_the_name_of_a_process_is_no_evidence() -> None:
    forged = _OTHER.replace("task=dd", f"task=,task_memcg={JOB}")
    assert last_oom_kill(forged, JOB) is None
