from __future__ import annotations

import anyio

from dify_kb.ingest.result_iterator import MAX_BUFFERED, ResultBuffer


async def test_all_waiting_producers_continue_when_there_is_space() -> None:
    """Each concurrent upload waits; one that is never woken would block its file forever."""
    buffer: ResultBuffer[int] = ResultBuffer()
    for number in range(MAX_BUFFERED):
        buffer.put(number)
    through: list[int] = []

    async def wait(number: int) -> None:
        await buffer.wait_for_space()
        through.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(wait, number)
            await anyio.sleep(0.01)
            assert through == []
            assert len(await buffer.get_all()) == MAX_BUFFERED

    assert sorted(through) == list(range(8))


async def test_refilled_buffer_blocks_again() -> None:
    buffer: ResultBuffer[int] = ResultBuffer()
    for _ in range(3):
        for number in range(MAX_BUFFERED):
            buffer.put(number)
        with anyio.move_on_after(0.01) as scope:
            await buffer.wait_for_space()
        assert scope.cancelled_caught
        await buffer.get_all()
        await buffer.wait_for_space()


async def test_buffer_returns_results_in_order_then_none() -> None:
    buffer: ResultBuffer[int] = ResultBuffer()
    buffer.put(1)
    buffer.put(2)
    assert await buffer.get_all() == (1, 2)

    buffer.close()
    assert await buffer.get_all() == ()
    assert not buffer
