"""What goes over the wire comes back equal, and what no peer of this version sends is refused."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from jobworker.api import convert, events, fields, limits, scalars
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.errors import DataLossError, InvalidArgumentError, InvalidLimitError
from jobworker.model.ids import JobId, UserName
from jobworker.model.job import Job, JobFilter
from jobworker.model.limits import Limits
from jobworker.model.spec import JobSpec
from jobworker.model.state import JobState
from unit.api import strategies

PAIRS: dict[str, tuple[st.SearchStrategy[Any], Callable[..., Message], Callable[..., Any]]] = {
    "limits": (strategies.limits, limits.limits_to_proto, limits.limits_from_proto),
    "effective limit": (
        strategies.effective_limits,
        limits.effective_limit_to_proto,
        limits.effective_limit_from_proto,
    ),
    "limit change": (
        strategies.limit_changes,
        limits.limit_change_to_proto,
        limits.limit_change_from_proto,
    ),
    "spec": (strategies.specs, convert.spec_to_proto, convert.spec_from_proto),
    "usage": (strategies.usages, convert.usage_to_proto, convert.usage_from_proto),
    "totals": (strategies.totals, convert.totals_to_proto, convert.totals_from_proto),
    "ending": (strategies.endings, convert.ending_to_proto, convert.ending_from_proto),
    "job": (strategies.jobs, convert.job_to_proto, convert.job_from_proto),
    "page": (strategies.pages, convert.page_to_proto, convert.page_from_proto),
    "filter": (strategies.filters, convert.filter_to_proto, convert.filter_from_proto),
    "event": (strategies.events, events.event_to_proto, events.event_from_proto),
}


@pytest.mark.parametrize("kind", PAIRS)
@given(data=st.data())
def test_what_is_sent_comes_back_equal(kind: str, data: st.DataObject) -> None:
    values, to_proto, from_proto = PAIRS[kind]
    value = data.draw(values)
    message = to_proto(value)
    assert from_proto(type(message).FromString(message.SerializeToString())) == value


def test_the_strategies_set_every_field() -> None:
    # A field that no strategy sets is a field whose conversion may be missing.
    for kind, (values, to_proto, _) in PAIRS.items():
        fields, seen = _fields_ever_set(values, to_proto)
        assert seen == fields, kind


@given(strategies.timeouts)
def test_durations_come_back_equal(seconds: float) -> None:
    message = scalars.duration_to_proto(seconds)
    assert scalars.duration_from_proto(message, "timeout") == seconds


@given(st.floats(min_value=0, exclude_min=True, max_value=1e-8))
def test_a_duration_of_more_than_nothing_stays_so(seconds: float) -> None:
    assert scalars.duration_from_proto(scalars.duration_to_proto(seconds), "timeout") > 0


@given(strategies.times)
def test_times_are_those_of_protobuf(moment: datetime.datetime) -> None:
    message = scalars.time_to_proto(moment)
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert message == expected


@pytest.mark.parametrize(
    "message",
    [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=1, nanos=1_000_000_000),
        Duration(seconds=1 << 62),
    ],
    ids=lambda message: f"{message.seconds}s{message.nanos}ns",
)
def test_a_duration_out_of_range_is_a_wrong_argument(message: Duration) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^cannot use grace .*: it takes 0 or more seconds$"
    ):
        scalars.duration_from_proto(message, "grace")


@pytest.mark.parametrize(
    "message",
    [Timestamp(seconds=1 << 62), Timestamp(seconds=-(1 << 62)), Timestamp(nanos=-1)],
    ids=lambda message: f"{message.seconds}s{message.nanos}ns",
)
def test_a_time_out_of_range_is_a_wrong_argument(message: Timestamp) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^cannot use since .*: it is no time of the years"
    ):
        scalars.micros_from_proto(message, "since")


JOB = Job(
    id=JobId("0" * 20),
    owner=UserName("alice"),
    state=JobState.RUNNING,
    spec=JobSpec(argv=("true",)),
    limits=Limits(),
    created_at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda job: setattr(job, "state", 99), "state 99"),
        (lambda job: setattr(job, "state", 0), "state 0"),
        (lambda job: setattr(job.ending, "reason", 99), "ending.reason 99"),
        (lambda job: setattr(job.spec, "on_output_limit", 99), "on_output_limit 99"),
        (lambda job: job.effective_limits.add(resource=99), "effective_limits.resource 99"),
        (lambda job: job.spec.ClearField("argv"), "argv"),
        (lambda job: setattr(job.created_at, "seconds", 1 << 60), "created_at"),
    ],
)
def test_an_answer_that_this_version_does_not_know_is_data_loss(
    change: Callable[[Any], None], told: str
) -> None:
    message = convert.job_to_proto(JOB)
    change(message)
    with pytest.raises(DataLossError, match="cannot read the answer of the service") as caught:
        convert.job_from_proto(message)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [pb.StreamOutputResponse(), pb.StreamOutputResponse(chunk=pb.OutputChunk(stream=9))],  # type: ignore[arg-type]  # wrong on purpose
    ids=["no event", "unknown stream"],
)
def test_an_unknown_event_is_data_loss(message: pb.StreamOutputResponse) -> None:
    with pytest.raises(DataLossError, match="cannot read the answer of the service"):
        events.event_from_proto(message)


@pytest.mark.parametrize(
    ("parse", "field"),
    [
        (lambda: convert.filter_from_proto(pb.JobFilter(states=[77])), "states"),  # type: ignore[list-item]  # wrong on purpose
        (lambda: convert.filter_from_proto(pb.JobFilter(owner="a b")), "user name"),
        (lambda: convert.filter_from_proto(pb.JobFilter(id_prefix="../x")), "id_prefix"),
        (
            lambda: convert.filter_from_proto(
                pb.JobFilter(labels={str(number): "" for number in range(65)})
            ),
            "labels",
        ),
        (lambda: events.stream_from_proto(7), "stream"),
        (lambda: convert.spec_from_proto(pb.JobSpec()), "argv"),
        (
            lambda: convert.spec_from_proto(pb.JobSpec(argv=["a"], timeout=Duration())),
            "timeout",
        ),
    ],
)
def test_a_wrong_request_names_the_field(parse: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse()
    assert caught.value.field == field


def test_a_limit_of_zero_is_refused_and_not_taken_for_no_limit() -> None:
    with pytest.raises(InvalidLimitError, match="memory_bytes 0"):
        limits.limits_from_proto(pb.Limits(memory_bytes=0))


def test_text_from_the_kernel_that_is_no_unicode_can_be_told() -> None:
    job = dataclasses.replace(JOB, conditions=("cannot write /caf\udce9",))
    back = convert.job_from_proto(convert.job_to_proto(job))
    assert back.conditions == ("cannot write /caf?",)


def test_a_label_that_is_no_unicode_is_refused_by_the_sender() -> None:
    with pytest.raises(InvalidArgumentError, match="must be UTF-8"):
        convert.filter_to_proto(JobFilter(labels={"a": "\udce9"}))


def test_a_limit_that_only_a_newer_peer_knows_is_refused() -> None:
    # Field 99, a varint: what this version would drop without a word.
    message = pb.Limits.FromString(b"\x98\x06\x01")
    limits.limits_from_proto(message)
    with pytest.raises(InvalidArgumentError, match="cannot use limits field 99"):
        fields.refuse_unknown_fields(message, "limits")
    fields.refuse_unknown_fields(pb.Limits(tasks=5), "limits")


def _fields_ever_set(
    values: st.SearchStrategy[Any], to_proto: Callable[..., Message]
) -> tuple[set[str], set[str]]:
    """Of the message: all its fields, and those that some example sets."""
    fields: set[str] = set()
    seen: set[str] = set()

    @settings(database=None)
    @given(values)
    def look(value: object) -> None:
        message = to_proto(value)
        fields.update(field.name for field in message.DESCRIPTOR.fields)
        seen.update(field.name for field, _ in message.ListFields())

    look()
    return fields, seen
