"""The delays between attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.client.backoff import FIRST_DELAY_S, LONGEST_DELAY_S, Backoff
from jobworker.errors import UnavailableError

FAILURE = UnavailableError("reach it", "it is away")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def longest(_least: float, most: float) -> float:
    return most


def test_ceilings_double_up_to_the_longest() -> None:
    backoff = Backoff(1e9, clock=Clock(), draw=longest)
    delays = [backoff.next_delay_s(FAILURE) for _ in range(40)]
    assert delays[:4] == [FIRST_DELAY_S, FIRST_DELAY_S * 2, FIRST_DELAY_S * 4, FIRST_DELAY_S * 8]
    assert set(delays[6:]) == {LONGEST_DELAY_S}


@given(draws=st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_waiting_never_outlasts_patience(draws: list[float]) -> None:
    clock, rest = Clock(), iter(draws)
    backoff = Backoff(20, clock=clock, draw=lambda least, most: least + (most - least) * next(rest))
    began = clock.now
    for _ in draws:
        try:
            clock.now += backoff.next_delay_s(FAILURE)
        except UnavailableError:
            break
    assert clock.now - began <= 20


def test_progress_begins_a_new_row() -> None:
    clock = Clock()
    backoff = Backoff(10, clock=clock, draw=longest)
    for _ in range(3):
        backoff.next_delay_s(FAILURE)
    clock.now += 100
    backoff.progress()
    assert backoff.attempts == 0
    assert backoff.next_delay_s(FAILURE) == FIRST_DELAY_S
    clock.now += 100
    with pytest.raises(UnavailableError):
        backoff.next_delay_s(FAILURE)


@pytest.mark.anyio
async def test_a_pause_ends_with_the_failure_when_patience_is_over() -> None:
    backoff = Backoff(0, draw=longest)
    with pytest.raises(UnavailableError):
        await backoff.pause(FAILURE)
