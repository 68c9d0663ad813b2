from __future__ import annotations

import gc

import anyio
import anyio.lowlevel
import pytest

from dify_kb.ingest.engine.upload_queue import LONGEST, MOST_BYTES, UploadQueue
from dify_kb.ingest.planning.plan import Do, Planned
from dify_kb.ingest.sources.scan import FoundFile

HALF = bytes(MOST_BYTES // 2)


def planned(key: str, data: bytes | None = None) -> Planned:
    found = FoundFile(key=key, size=len(data or b""), data=data)
    return Planned(found=found, name=key, do=Do.SEND)


async def goes_in(line: UploadQueue, one: Planned) -> bool:
    with anyio.move_on_after(0.02):
        await line.put(one)
        return True
    return False


async def take(line: UploadQueue, number: int) -> list[str]:
    taken = [await line.next() for _ in range(number)]
    return [one.found.key for one in taken if one is not None]


async def test_files_come_out_in_their_order_and_then_nothing() -> None:
    line = UploadQueue()
    for key in "abc":
        await line.put(planned(key))
    line.close()

    assert await take(line, 3) == ["a", "b", "c"]
    assert await line.next() is None
    line.discard()


async def test_only_a_page_of_new_files_is_kept_ready() -> None:
    line = UploadQueue()
    for number in range(LONGEST):
        await line.put(planned(f"{number}"))

    assert not await goes_in(line, planned("more"))
    await line.next()
    assert await goes_in(line, planned("more"))
    line.discard()


async def test_those_that_come_back_always_have_room() -> None:
    """A worker that waited for room which only workers make would wait for ever."""
    line = UploadQueue()
    for number in range(LONGEST):
        await line.put(planned(f"{number}"))

    for number in range(50):
        line.again(planned(f"again {number}"))

    line.close()
    assert len(await take(line, LONGEST + 50)) == LONGEST + 50
    line.discard()


async def test_content_in_memory_makes_room_only_when_its_file_has_ended() -> None:
    line = UploadQueue()
    one, two, three = (planned(key, HALF) for key in ("one", "two", "three"))
    await line.put(one)
    await line.put(two)

    assert not await goes_in(line, three)
    await take(line, 2)
    assert not await goes_in(line, three)
    line.done(one)
    assert await goes_in(line, three)
    line.discard()


async def test_a_file_that_comes_back_weighs_once() -> None:
    line = UploadQueue()
    one = planned("one", HALF)
    await line.put(one)
    for _ in range(5):
        await take(line, 1)
        line.again(one)

    assert await goes_in(line, planned("two", HALF))
    line.done(one)
    assert await goes_in(line, planned("three", HALF))
    assert not await goes_in(line, planned("four", b"text"))
    line.discard()


async def test_what_is_larger_than_all_room_comes_alone() -> None:
    line = UploadQueue()
    huge = planned("huge", bytes(MOST_BYTES + 1))

    assert await goes_in(line, huge)
    assert not await goes_in(line, planned("small", b"text"))
    line.done(huge)
    assert await goes_in(line, planned("small", b"text"))
    assert not await goes_in(line, huge)
    line.discard()


async def test_the_end_of_a_file_that_never_stood_in_the_line_makes_no_room() -> None:
    """Those that are only looked for or followed end too; their content was not counted."""
    line = UploadQueue()
    for number in range(10):
        line.done(planned(f"followed {number}", HALF))
    await line.put(planned("one", HALF))
    await line.put(planned("two", HALF))

    assert not await goes_in(line, planned("three", HALF))
    line.discard()


async def test_a_file_that_ends_twice_makes_room_once() -> None:
    line = UploadQueue()
    one = planned("one", HALF)
    await line.put(one)
    await line.put(planned("two", HALF))
    line.done(one)
    line.done(one)

    assert await goes_in(line, planned("three", HALF))
    assert not await goes_in(line, planned("four", HALF))
    line.discard()


async def test_a_consumer_that_is_cancelled_takes_nothing_along() -> None:
    line = UploadQueue()
    for _ in range(20):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await line.next()

    await line.put(planned("one"))
    assert await take(line, 1) == ["one"]
    line.discard()


@pytest.mark.parametrize("consumers", [1, 8])
async def test_everything_put_comes_out_once(consumers: int) -> None:
    line = UploadQueue()
    taken: list[str] = []

    async def consume() -> None:
        while (one := await line.next()) is not None:
            taken.append(one.found.key)
            await anyio.lowlevel.checkpoint()
            line.done(one)

    async with anyio.create_task_group() as tasks:
        for _ in range(consumers):
            tasks.start_soon(consume)
        for number in range(1000):
            await line.put(planned(f"{number}", b"x" * 1000))
        line.close()

    assert sorted(taken, key=int) == [f"{number}" for number in range(1000)]
    line.discard()


@pytest.mark.filterwarnings("error")
async def test_a_line_that_nobody_used_leaves_nothing_to_close() -> None:
    """A load may be cancelled before its first file."""
    line = UploadQueue()
    await line.put(planned("one"))
    del line
    gc.collect()


async def test_everybody_sees_the_end() -> None:
    line = UploadQueue()
    ends: list[object] = []

    async def consume() -> None:
        ends.append(await line.next())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(consume)
        await anyio.sleep(0.01)
        line.close()
        line.close()

    assert ends == [None] * 5


async def test_who_waits_for_room_waits_until_half_of_it_is_free() -> None:
    """So that the producer is not woken for every file."""
    line = UploadQueue()
    for number in range(LONGEST):
        await line.put(planned(str(number)))

    async with anyio.create_task_group() as group:
        group.start_soon(line.put, planned("more"))
        await anyio.lowlevel.checkpoint()
        await take(line, LONGEST // 2)
        await anyio.lowlevel.checkpoint()
        assert len(line._files) == LONGEST // 2
        await take(line, 1)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert len(line._files) == LONGEST // 2
