from __future__ import annotations

import anyio

from dify_kb.ingest.results import AHEAD, ResultBuffer


async def test_everybody_who_waits_for_room_goes_on_when_there_is_some() -> None:
    """As many wait as files are sent at a time; one left behind keeps its file for ever."""
    water: ResultBuffer[int] = ResultBuffer()
    for number in range(AHEAD):
        water.put(number)
    through: list[int] = []

    async def wait(number: int) -> None:
        await water.room()
        through.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(wait, number)
            await anyio.sleep(0.01)
            assert through == []
            assert len(await water.take()) == AHEAD

    assert sorted(through) == list(range(8))


async def test_room_that_is_taken_again_holds_again() -> None:
    water: ResultBuffer[int] = ResultBuffer()
    for _ in range(3):
        for number in range(AHEAD):
            water.put(number)
        with anyio.move_on_after(0.01) as scope:
            await water.room()
        assert scope.cancelled_caught
        await water.take()
        await water.room()


async def test_results_come_in_their_order_and_then_none() -> None:
    water: ResultBuffer[int] = ResultBuffer()
    water.put(1)
    water.put(2)
    assert await water.take() == (1, 2)

    water.end()
    assert await water.take() == ()
    assert not water
