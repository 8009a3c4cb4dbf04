"""From what the supervisor saw and the cgroup counted to the account of a job's end.

The order of the evidence: what we did ourselves (stop, time limit, output limit) before what the
kernel did (memory) before what the command did.  A SIGKILL that nobody here sent is not an OOM
unless the cgroup counted one.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

from jobworker.cgroup.oom import Level, LimitHits, OomSite, OutOfMemory
from jobworker.errors import shown
from jobworker.model.ending import Ending, EndReason
from jobworker.model.usage import OutputTotals, Usage
from jobworker.shim.order import Order
from jobworker.shim.supervise import Cause, Outcome


def describe_ending(
    order: Order, outcome: Outcome, usage: Usage, hits: LimitHits, output: OutputTotals
) -> Ending:
    """The ending, with one sentence for people."""
    status = outcome.wait_status
    number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
    reason = _reason(outcome, usage, number)
    if usage.cpu_seconds is None:
        usage = dataclasses.replace(usage, cpu_seconds=outcome.cpu_s)
    parts = [
        _why(reason, order, outcome, usage, hits, code, number),
        *_remarks(reason, outcome, usage, hits),
    ]
    return Ending(
        reason=reason,
        exit_code=code,
        signal=number,
        stopped_by=outcome.stopped_by if reason is EndReason.STOPPED else "",
        message="; ".join(part for part in parts if part),
        # What was in use at the moment of reading says nothing once nobody is left.
        usage=dataclasses.replace(usage, memory_bytes=None, tasks=None),
        output=output,
    )


def describe_dead_start(usage: Usage, hits: LimitHits) -> str:
    """Why nothing was executed, for people, where the process that was to do so is dead."""
    why = f": {_memory_sentence(hits.memory, usage)}" if usage.oom_kills else ""
    return f"the process that starts it was killed{why}"


def _reason(outcome: Outcome, usage: Usage, number: int | None) -> EndReason:
    match outcome.cause:
        case Cause.OUTPUT:
            return EndReason.OUTPUT_LIMIT
        case Cause.TIMEOUT:
            return EndReason.TIMED_OUT
        case Cause.STOP:
            return EndReason.STOPPED
        case None:
            pass
    if number is None:
        return EndReason.EXITED
    if number == signal.SIGKILL and usage.oom_kills:
        return EndReason.OOM_KILLED
    return EndReason.SIGNALED


def _why(
    reason: EndReason,
    order: Order,
    outcome: Outcome,
    usage: Usage,
    hits: LimitHits,
    code: int | None,
    number: int | None,
) -> str:
    how = f"exit code {code}" if number is None else f"signal {_signal_name(number)}"
    match reason:
        case EndReason.EXITED:
            return f"exited with code {code}"
        case EndReason.SIGNALED:
            return f"ended by {how}, which jobworker did not send"
        case EndReason.STOPPED:
            forced = ", forced after the grace period" if outcome.was_killed else ""
            return f"stopped by {shown(outcome.stopped_by)}{forced}: {how}"
        case EndReason.TIMED_OUT:
            forced = ", forced after the grace period" if outcome.was_killed else ""
            return f"stopped at its time limit of {order.timeout_s:g} s{forced}: {how}"
        case EndReason.OOM_KILLED:
            return f"killed by the kernel: {_memory_sentence(hits.memory, usage)}"
        case EndReason.OUTPUT_LIMIT:
            return f"wrote more than its output limit of {order.max_output_bytes} bytes: {how}"
        case EndReason.START_FAILED | EndReason.LOST:
            # Said by others: the shim that starts, the worker that finds no record.
            return ""


def _memory_sentence(memory: OutOfMemory | None, usage: Usage) -> str:
    from jobworker.model.units import format_bytes  # noqa: PLC0415 - large, and few jobs end so

    if memory is None:
        return "out of memory"
    of_limit = "" if memory.limit_bytes is None else f" of {format_bytes(memory.limit_bytes)}"
    details = []
    if memory.site not in {OomSite.OWN, OomSite.MAYBE_OWN}:
        details.append(_own_limit(memory.own, format_bytes))
    if memory.kills is not None:
        details.append(
            "1 process killed" if memory.kills == 1 else f"{memory.kills} processes killed"
        )
    if usage.memory_peak_bytes is not None:
        details.append(f"peak {format_bytes(usage.memory_peak_bytes)}")
    told = f" ({', '.join(details)})" if details else ""
    return f"{_site_words(memory.site, of_limit)}{told}"


def _site_words(site: OomSite, of_limit: str) -> str:
    match site:
        case OomSite.OWN:
            return f"out of memory at its own limit{of_limit}"
        case OomSite.MAYBE_OWN:
            return f"out of memory, having reached its own limit{of_limit}"
        case OomSite.INSIDE:
            return "out of memory at the limit of a cgroup that it made"
        case OomSite.ABOVE:
            return f"out of memory at the limit{of_limit} of a cgroup above it"
        case OomSite.HOST:
            return "the host ran out of memory"
        case OomSite.NOT_OWN:
            return "out of memory, of the host or at the limit of a cgroup above it"


def _own_limit(own: Level, format_bytes: Callable[[int], str]) -> str:
    if own.limit_bytes is None:
        return "it had no limit of its own"
    limit = f"its own limit of {format_bytes(own.limit_bytes)}"
    return f"{limit} was reached too" if own.was_reached else f"{limit} was not reached"


def _remarks(reason: EndReason, outcome: Outcome, usage: Usage, hits: LimitHits) -> list[str]:
    remarks = []
    if usage.oom_kills and reason is not EndReason.OOM_KILLED:
        killed = f"the kernel killed {usage.oom_kills} of its processes for want of memory"
        remarks.append(f"{killed}: {_memory_sentence(hits.memory, usage)}")
    if usage.tasks_refused:
        forks = "fork" if usage.tasks_refused == 1 else "forks"
        limit = "a task limit above it" if hits.tasks is None else f"its task limit of {hits.tasks}"
        remarks.append(f"{limit} refused {usage.tasks_refused} {forks}")
    if reason is EndReason.OOM_KILLED and hits.memory is not None and hits.memory.kills is None:
        # The kernel took the whole job, of which some were still dying when we looked.
        return remarks
    if outcome.left_behind == 1:
        remarks.append("1 process that it left behind was killed")
    elif outcome.left_behind:
        remarks.append(f"{outcome.left_behind} processes that it left behind were killed")
    return remarks


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
