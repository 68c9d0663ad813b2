from __future__ import annotations

import anyio
import pytest

from dify_kb import AsyncClient, KnowledgeError
from dify_kb.bench.temporary_dataset import PREFIX, find_leftover_datasets, temporary_dataset
from dify_kb.emulator import Emulator

DELETE = "datasets.delete"
CREATE = "datasets.create"


async def names(client: AsyncClient) -> list[str]:
    return [row.name async for row in client.datasets.iter()]


async def test_a_base_is_there_for_a_block_only(client: AsyncClient) -> None:
    async with temporary_dataset(client, "economy") as dataset:
        assert await names(client) == [dataset.name]
        assert dataset.name.startswith(PREFIX)
        assert [row.id for row in await find_leftover_datasets(client)] == [dataset.id]

    assert await names(client) == []


async def test_it_goes_when_the_block_fails(client: AsyncClient) -> None:
    with pytest.raises(ZeroDivisionError):
        async with temporary_dataset(client, "economy"):
            _ = 1 / 0

    assert await names(client) == []


async def test_it_goes_when_the_block_is_cancelled(client: AsyncClient) -> None:
    with anyio.CancelScope() as scope:
        async with temporary_dataset(client, "economy"):
            scope.cancel()
            await anyio.sleep_forever()

    assert await names(client) == []


async def test_a_cancellation_while_it_is_made_leaves_nothing(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["stall 0.2s"])

    with anyio.move_on_after(0.05) as scope:
        async with temporary_dataset(client, "economy"):
            raise AssertionError("it was cancelled before")

    assert scope.cancelled_caught
    assert emulator.faults.remaining() == {}
    assert await names(client) == []


async def test_a_lost_answer_is_no_base_that_is_forgotten(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["commit-then-reset"])

    async with temporary_dataset(client, "economy") as dataset:
        assert await names(client) == [dataset.name]

    assert emulator.faults.remaining() == {}
    assert await names(client) == []


async def test_a_delete_that_fails_for_a_while_is_repeated(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(DELETE, ["503 retry-after=0", "reset"])

    async with temporary_dataset(client, "economy"):
        pass

    assert emulator.faults.remaining() == {}
    assert await names(client) == []


async def test_what_could_not_be_deleted_is_named(client: AsyncClient, emulator: Emulator) -> None:
    emulator.faults.plan(DELETE, ["403"])

    with pytest.raises(KnowledgeError) as raised:
        async with temporary_dataset(client, "economy"):
            pass

    assert PREFIX in raised.value.summary
    assert "bench clean" in raised.value.hint
    assert emulator.faults.remaining() == {}


async def test_one_that_is_gone_already_is_well(client: AsyncClient) -> None:
    async with temporary_dataset(client, "economy") as dataset:
        await client.datasets.delete(dataset)

    assert await names(client) == []


async def test_bases_of_others_are_no_leftovers(client: AsyncClient) -> None:
    await client.datasets.create(f"my {PREFIX}notes")

    assert await find_leftover_datasets(client) == []
