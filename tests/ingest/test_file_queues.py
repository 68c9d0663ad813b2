from __future__ import annotations

import gc

import anyio
import anyio.lowlevel
import pytest

from dify_kb.ingest.engine.file_queues import MAX_BYTES, MAX_FILES, UploadQueue
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.planning.file_plan import PlannedAction, PlannedFile
from dify_kb.ingest.sources.found_file import FoundFile

HALF = bytes(MAX_BYTES // 2)


def make_tracked_file(key: str, data: bytes | None = None) -> TrackedFile:
    found = FoundFile(key=key, size=len(data or b""), data=data)
    return TrackedFile.from_plan(PlannedFile(found=found, name=key, action=PlannedAction.SEND))


async def add(queue: UploadQueue, file: TrackedFile) -> None:
    await queue.wait_for_space(len(file.planned.found.data or b""))
    queue.put(file)


async def try_add(queue: UploadQueue, file: TrackedFile) -> bool:
    """Add a file if the queue has space; return whether it was added."""
    with anyio.move_on_after(0.02):
        await add(queue, file)
        return True
    return False


async def get_keys(queue: UploadQueue, number: int) -> list[str]:
    return [(await queue.get()).key for _ in range(number)]


async def fill(queue: UploadQueue) -> None:
    for number in range(MAX_FILES):
        await add(queue, make_tracked_file(f"{number}"))


async def test_upload_queue_keeps_the_order() -> None:
    queue = UploadQueue()
    for key in "abc":
        await add(queue, make_tracked_file(key))

    assert await get_keys(queue, 3) == ["a", "b", "c"]


async def test_file_of_an_emptied_document_comes_first() -> None:
    queue = UploadQueue()
    for key in "ab":
        await add(queue, make_tracked_file(key))
    queue.put(make_tracked_file("emptied"), first=True)

    assert await get_keys(queue, 3) == ["emptied", "a", "b"]


async def test_number_of_new_files_in_the_queue_is_bounded() -> None:
    queue = UploadQueue()
    await fill(queue)

    assert not await try_add(queue, make_tracked_file("more"))
    await queue.get()
    assert await try_add(queue, make_tracked_file("more"))


async def test_resent_files_are_always_accepted() -> None:
    """Otherwise workers would wait for space that only workers can free."""
    queue = UploadQueue()
    await fill(queue)

    for number in range(50):
        queue.put(make_tracked_file(f"again {number}"))

    assert len(await get_keys(queue, MAX_FILES + 50)) == MAX_FILES + 50


async def test_memory_is_freed_when_content_is_released() -> None:
    queue = UploadQueue()
    first, second, third = (make_tracked_file(key, HALF) for key in ("one", "two", "three"))
    await add(queue, first)
    await add(queue, second)

    assert not await try_add(queue, third)
    await get_keys(queue, 2)
    assert not await try_add(queue, third)
    queue.release(first)
    assert await try_add(queue, third)


async def test_resent_file_is_accounted_once() -> None:
    queue = UploadQueue()
    first = make_tracked_file("one", HALF)
    await add(queue, first)
    for _ in range(5):
        await get_keys(queue, 1)
        queue.put(first)

    assert await try_add(queue, make_tracked_file("two", HALF))
    queue.release(first)
    assert await try_add(queue, make_tracked_file("three", HALF))
    assert not await try_add(queue, make_tracked_file("four", b"text"))


async def test_file_larger_than_the_memory_limit_is_queued_alone() -> None:
    queue = UploadQueue()
    huge = make_tracked_file("huge", bytes(MAX_BYTES + 1))

    assert await try_add(queue, huge)
    assert not await try_add(queue, make_tracked_file("small", b"text"))
    queue.release(huge)
    assert await try_add(queue, make_tracked_file("small", b"text"))
    assert not await try_add(queue, huge)


async def test_releasing_an_unqueued_file_frees_no_memory() -> None:
    """Files that are only looked up or followed were not counted."""
    queue = UploadQueue()
    for number in range(10):
        queue.release(make_tracked_file(f"followed {number}", HALF))
    await add(queue, make_tracked_file("one", HALF))
    await add(queue, make_tracked_file("two", HALF))

    assert not await try_add(queue, make_tracked_file("three", HALF))


async def test_releasing_a_file_twice_frees_its_memory_once() -> None:
    queue = UploadQueue()
    first = make_tracked_file("one", HALF)
    await add(queue, first)
    await add(queue, make_tracked_file("two", HALF))
    queue.release(first)
    queue.release(first)

    assert await try_add(queue, make_tracked_file("three", HALF))
    assert not await try_add(queue, make_tracked_file("four", HALF))


async def test_cancelled_consumer_loses_no_file() -> None:
    queue = UploadQueue()
    for _ in range(20):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await queue.get()

    await add(queue, make_tracked_file("one"))
    assert await get_keys(queue, 1) == ["one"]


@pytest.mark.parametrize("consumers", [1, 8])
async def test_every_queued_file_is_returned_once(consumers: int) -> None:
    queue = UploadQueue()
    received: list[str] = []

    async def consume() -> None:
        while True:
            file = await queue.get()
            received.append(file.key)
            await anyio.lowlevel.checkpoint()
            queue.release(file)

    async with anyio.create_task_group() as tasks:
        for _ in range(consumers):
            tasks.start_soon(consume)
        for number in range(1000):
            await add(queue, make_tracked_file(f"{number}", b"x" * 1000))
        while len(received) < 1000:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert sorted(received, key=int) == [f"{number}" for number in range(1000)]


async def test_waiting_producer_continues_when_the_queue_is_cleared() -> None:
    """Otherwise a load that stops while its source is read would never end."""
    queue = UploadQueue()
    await fill(queue)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.wait_for_space, 0)
        await anyio.lowlevel.checkpoint()
        queue.clear()


async def test_cleared_files_are_not_returned() -> None:
    queue = UploadQueue()
    for key in "abc":
        await add(queue, make_tracked_file(key))

    queue.clear()

    await add(queue, make_tracked_file("d"))
    assert await get_keys(queue, 1) == ["d"]


async def test_woken_consumer_keeps_waiting_when_the_queue_is_cleared() -> None:
    """A file is added and the load stops before any other task runs."""
    queue = UploadQueue()
    received: list[str] = []

    async def consume() -> None:
        received.extend(await get_keys(queue, 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        tasks.start_soon(consume)
        await anyio.lowlevel.checkpoint()
        queue.put(make_tracked_file("a"))
        queue.clear()
        await anyio.lowlevel.checkpoint()
        queue.put(make_tracked_file("b"))
        queue.put(make_tracked_file("c"))

    assert received == ["b", "c"]


@pytest.mark.filterwarnings("error")
async def test_unused_queue_needs_no_closing() -> None:
    """A load may be cancelled before its first file."""
    queue = UploadQueue()
    await add(queue, make_tracked_file("one"))
    del queue
    gc.collect()


async def test_producer_waits_until_half_of_the_queue_is_free() -> None:
    """Otherwise it would be woken for every file."""
    queue = UploadQueue()
    await fill(queue)

    async with anyio.create_task_group() as group:
        group.start_soon(add, queue, make_tracked_file("more"))
        await anyio.lowlevel.checkpoint()
        await get_keys(queue, MAX_FILES // 2)
        await anyio.lowlevel.checkpoint()
        assert len(queue._files) == MAX_FILES // 2
        await get_keys(queue, 1)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert len(queue._files) == MAX_FILES // 2
