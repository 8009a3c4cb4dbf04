"""Limits and their changes to protobuf messages and back, as convert.py does it."""

from __future__ import annotations

from jobworker.api.fields import given, present, shown_text
from jobworker.api.scalars import RESOURCE_NUMBERS, member, time_from_proto, time_to_proto
from jobworker.api.v1 import job_worker_pb2 as pb
from jobworker.model.ids import UserName
from jobworker.model.job import LimitChange
from jobworker.model.limits import EffectiveLimit, Limits


def limits_to_proto(limits: Limits) -> pb.Limits:
    return pb.Limits(**given(limits))


def limits_from_proto(message: pb.Limits) -> Limits:
    """Raises InvalidLimitError."""
    return Limits(**present(message))


def effective_limit_to_proto(limit: EffectiveLimit) -> pb.EffectiveLimit:
    return pb.EffectiveLimit(
        resource=RESOURCE_NUMBERS[limit.resource],
        requested=limit.requested,
        effective=limit.effective,
        device=shown_text(limit.device),
        note=shown_text(limit.note),
    )


def effective_limit_from_proto(message: pb.EffectiveLimit) -> EffectiveLimit:
    return EffectiveLimit(
        resource=member(RESOURCE_NUMBERS, message.resource, "effective_limits.resource"),
        requested=message.requested,
        effective=message.effective if message.HasField("effective") else None,
        device=message.device,
        note=message.note,
    )


def limit_change_to_proto(change: LimitChange) -> pb.LimitChange:
    return pb.LimitChange(
        changed_at=time_to_proto(change.changed_at),
        changed_by=change.changed_by,
        before=limits_to_proto(change.before),
        after=limits_to_proto(change.after),
        effective_limits=map(effective_limit_to_proto, change.effective),
        outcome_unknown=change.outcome_unknown,
    )


def limit_change_from_proto(message: pb.LimitChange) -> LimitChange:
    return LimitChange(
        changed_at=time_from_proto(message.changed_at, "limit_changes.changed_at"),
        changed_by=UserName(message.changed_by),
        before=limits_from_proto(message.before),
        after=limits_from_proto(message.after),
        effective=tuple(map(effective_limit_from_proto, message.effective_limits)),
        outcome_unknown=message.outcome_unknown,
    )
