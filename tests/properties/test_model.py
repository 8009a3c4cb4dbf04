"""Laws of the values: names, specs and limits that exist are right; states only move forward."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.errors import InvalidArgumentError, InvalidLimitError, StateConflictError
from jobworker.model import (
    EffectiveLimit,
    Job,
    JobId,
    JobSpec,
    JobState,
    LimitChange,
    Limits,
    Resource,
    UserName,
)
from jobworker.model.ids import (
    JOB_ID_CHARS,
    is_job_id,
    is_job_id_prefix,
    new_job_id,
    parse_request_id,
    parse_user_name,
)
from jobworker.model.job import LIMIT_CHANGES_MAX
from jobworker.model.limits import _RANGES
from jobworker.model.spec import ARGUMENT_BYTES_MAX, ARGUMENTS_BYTES_MAX
from jobworker.model.state import advance

_AMOUNTS = st.integers(-(1 << 65), 1 << 65) | st.integers(-2, 5000)
_LIMITS = st.builds(
    Limits,
    **{
        name: st.none() | st.integers(least, min(most, least * 1000))
        for name, (least, most) in _RANGES.items()
    },
)


def test_job_ids_are_ids_and_never_the_same() -> None:
    ids = {new_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    for job_id in ids:
        assert is_job_id(job_id)
        assert all(is_job_id_prefix(job_id[:length]) for length in range(1, JOB_ID_CHARS + 1))


@given(text=st.text(max_size=25))
def test_what_is_no_path_component_is_no_id(text: str) -> None:
    if is_job_id(text):
        assert len(text) == JOB_ID_CHARS
        assert is_job_id_prefix(text)
    if is_job_id_prefix(text):
        assert text.isascii()
        assert text.isalnum()
        assert text == text.lower()


@given(text=st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._@-]{1,66}\Z"))
def test_a_user_name_is_safe_in_a_path_and_in_a_log(text: str) -> None:
    try:
        name = parse_user_name(text)
    except InvalidArgumentError as error:
        assert error.field == "user name"  # noqa: PT017 - either way is right
        return
    assert name == text
    assert 1 <= len(name) <= 64
    assert name.isascii()
    assert name.isprintable()
    assert not {"/", " ", "\n", "\0"} & set(name)
    assert name[0].isalnum()


@given(text=st.text(max_size=130))
def test_a_request_id_is_one_printable_word(text: str) -> None:
    try:
        request_id = parse_request_id(text)
    except InvalidArgumentError:
        return
    assert request_id == text
    assert request_id.isascii()
    assert request_id.isprintable()
    assert len(request_id.split()) == 1


@given(resource=st.sampled_from(Resource), amount=_AMOUNTS)
def test_a_limit_is_within_its_range_or_does_not_exist(resource: Resource, amount: int) -> None:
    least, most = _RANGES[resource.value]
    if least <= amount <= most:
        limits = Limits(**{resource.value: amount})
        assert limits.get(resource) == amount
        assert not limits.is_empty
    else:
        with pytest.raises(InvalidLimitError) as caught:
            Limits(**{resource.value: amount})
        assert caught.value.field == f"limits.{resource.value}"


@given(own=_LIMITS, default=_LIMITS, third=_LIMITS)
def test_limits_complete_each_other(own: Limits, default: Limits, third: Limits) -> None:
    both = own.or_else(default)
    for resource in Resource:
        expected = own.get(resource)
        assert both.get(resource) == (default.get(resource) if expected is None else expected)
    assert own.or_else(Limits()) == own == Limits().or_else(own) == own.or_else(own)
    assert own.or_else(default).or_else(third) == own.or_else(default.or_else(third))


_TEXTS = st.text(max_size=20) | st.sampled_from(["", "x=y", "a\0b", "\udcff", "é"])


@given(
    argv=st.lists(_TEXTS, max_size=4).map(tuple),
    env=st.dictionaries(_TEXTS, _TEXTS, max_size=3),
    cwd=st.none() | _TEXTS | _TEXTS.map(lambda text: f"/{text}"),
    timeout_s=st.none() | st.floats(),
    name=_TEXTS,
    labels=st.dictionaries(_TEXTS, _TEXTS, max_size=3),
    max_output_bytes=st.none() | _AMOUNTS,
)
def test_a_spec_that_exists_can_be_given_to_a_process(**values: object) -> None:
    try:
        spec = JobSpec(**values)  # type: ignore[arg-type]  # anything may be tried
    except InvalidArgumentError as error:
        text = str(error)
        is_named = bool(error.field) and text.startswith(f"cannot use {error.field}")
        if not is_named:
            pytest.fail(f"names no field: {text}")
        return
    assert spec.argv
    assert spec.argv[0]
    for text in (*spec.argv, *spec.env.values(), *spec.env):
        assert b"\0" not in text.encode()
    assert all(name and "=" not in name for name in spec.env)
    assert spec.cwd is None or spec.cwd.startswith("/")
    assert spec.timeout_s is None or 0 < spec.timeout_s < float("inf")
    assert spec.max_output_bytes is None or spec.max_output_bytes >= 0
    assert spec.name.isprintable() or "\x7f" not in spec.name


def test_arguments_are_bounded_one_by_one_and_together() -> None:
    JobSpec(argv=("x", "y" * (ARGUMENT_BYTES_MAX - 1)))
    with pytest.raises(InvalidArgumentError, match=r"argv\[1\]"):
        JobSpec(argv=("x", "y" * ARGUMENT_BYTES_MAX))
    with pytest.raises(InvalidArgumentError, match=r"argv\[1\]"):
        JobSpec(argv=("x", "é" * (ARGUMENT_BYTES_MAX // 2 + 1)))
    many = ARGUMENTS_BYTES_MAX // 100_000 + 1
    for too_much in ({"argv": ("x",) * 70_000}, {"argv": ("y" * 99_999,) * many}):
        with pytest.raises(InvalidArgumentError):
            JobSpec(**too_much)
    with pytest.raises(InvalidArgumentError, match="env"):
        JobSpec(argv=("x",), env={str(number): "y" * 99_999 for number in range(many)})


@pytest.mark.parametrize("old", JobState)
@pytest.mark.parametrize("new", JobState)
def test_states_move_forward_only(old: JobState, new: JobState) -> None:
    order = list(JobState)
    is_forward = order.index(new) > order.index(old)
    # What is queued is started before it runs or is stopped.
    is_skipped = old is JobState.QUEUED and new in {JobState.RUNNING, JobState.STOPPING}
    if is_forward and not is_skipped:
        assert advance(old, new) is new
    else:
        with pytest.raises(StateConflictError):
            advance(old, new)


_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@st.composite
def _changes(draw: st.DrawFn) -> LimitChange:
    after = draw(_LIMITS.filter(lambda limits: not limits.is_empty))
    is_unknown = draw(st.booleans())
    told = [(one, after.get(one)) for one in Resource if not is_unknown]
    return LimitChange(
        changed_at=_NOW,
        changed_by=UserName("root"),
        before=Limits(),
        after=after,
        effective=tuple(
            EffectiveLimit(resource=one, requested=amount, effective=amount)
            for one, amount in told
            if amount is not None
        ),
        outcome_unknown=is_unknown,
    )


@given(limits=_LIMITS, changes=st.lists(_changes(), max_size=LIMIT_CHANGES_MAX + 8))
def test_of_many_changes_the_last_ones_are_kept_and_all_are_in_force(
    limits: Limits, changes: list[LimitChange]
) -> None:
    spec = JobSpec(argv=("true",))
    job = Job(
        id=JobId("0" * JOB_ID_CHARS),
        owner=UserName("alice"),
        state=JobState.RUNNING,
        spec=spec,
        limits=limits,
        created_at=_NOW,
    )
    for change in changes:
        job = job.with_limit_change(change)
        if not change.outcome_unknown:
            limits = change.after.or_else(limits)
    assert job.limits == limits
    told = {one.resource: one.effective for one in job.effective}
    assert len(told) == len(job.effective)
    assert all(job.limits.get(resource) == amount for resource, amount in told.items())
    assert len(job.limit_changes) <= LIMIT_CHANGES_MAX
    assert job.limit_changes_dropped + len(job.limit_changes) == len(changes)
    assert list(job.limit_changes) == changes[job.limit_changes_dropped :]


@given(limits=_LIMITS, named=_LIMITS)
def test_only_what_is_named_is_taken_of_limits(limits: Limits, named: Limits) -> None:
    only = limits.only(named)
    for resource in Resource:
        is_named = named.get(resource) is not None
        assert only.get(resource) == (limits.get(resource) if is_named else None)
