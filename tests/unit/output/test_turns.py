"""Readers take turns; one that is slow, or gone, keeps nobody waiting."""

from __future__ import annotations

import asyncio

import pytest

from jobworker.output.cursor import CHUNK_BYTES
from jobworker.output.turns import Reader, Turn, Turns

pytestmark = pytest.mark.anyio

#: Longer than any test: no turn ends by itself.
NEVER_S = 3600.0


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 -- a round of the loop, no time


async def test_only_so_many_have_their_turn_and_the_others_come_in_order() -> None:
    turns = Turns(2, NEVER_S)
    began: list[int] = []
    taken: dict[int, Turn] = {}

    async def read(number: int) -> None:
        taken[number] = await turns.take()
        began.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(read(number))
        await settle()
        assert began == [0, 1]
        taken[1].end()
        taken[1].end()  # once is enough, and once is all that counts
        await settle()
        assert began == [0, 1, 2]
        taken[0].end()
    assert began == [0, 1, 2, 3]


async def test_a_turn_that_nobody_ends_is_over_soon() -> None:
    turns = Turns(1, 0.01)
    slow = await turns.take()
    async with asyncio.timeout(10):
        await turns.take()
    assert slow.is_over


async def test_a_reader_that_leaves_while_it_waits_is_passed_over() -> None:
    turns = Turns(1, NEVER_S)
    first = await turns.take()
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(turns.take())
        staying = tasks.create_task(turns.take())
        await settle()
        leaving.cancel()
        await settle()
        first.end()
    assert not staying.result().is_over


async def test_a_turn_that_comes_too_late_for_its_reader_is_handed_on() -> None:
    turns = Turns(1, NEVER_S)
    first = await turns.take()
    async with asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(turns.take())
        staying = tasks.create_task(turns.take())
        await settle()
        # Its turn comes and it is cancelled before it hears of it.
        first.end()
        leaving.cancel()
        async with asyncio.timeout(10):
            await staying


async def test_a_slow_reader_goes_beside_the_others_until_it_is_quick_again() -> None:
    turns = Turns(1, 0.5)
    slow = Reader(turns)
    await slow.begin()
    async with asyncio.timeout(10):
        await turns.take()  # its turn is over by now
    slow.end()
    async with asyncio.timeout(10):
        first = await turns.take()
    # Nobody gives a turn back, and it needs none.
    await slow.begin()
    slow.end()
    assert not first.is_over
    async with asyncio.TaskGroup() as tasks:
        quick = tasks.create_task(slow.begin())
        await settle()
        assert not quick.done()
        first.end()


async def test_a_consumer_that_never_waits_lets_others_run() -> None:
    reader, rounds = Reader(Turns()), 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await settle()

    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count())
        for _ in range(100):
            await reader.begin()
            reader.end()
        counting.cancel()
    assert rounds > 1


async def test_where_many_are_slow_pieces_are_small() -> None:
    turns = Turns(1, 0.0)  # every turn is too long
    readers = [Reader(turns) for _ in range(500)]
    assert turns.piece_bytes == CHUNK_BYTES
    async with asyncio.timeout(60):
        for reader in readers:
            await reader.begin()
    assert turns.piece_bytes < CHUNK_BYTES
    for reader in readers:
        reader.end()
    assert turns.piece_bytes == CHUNK_BYTES
