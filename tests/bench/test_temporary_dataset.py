from __future__ import annotations

import anyio
import pytest

from dify_kb import AsyncClient, KnowledgeError
from dify_kb.bench.temporary_dataset import PREFIX, find_leftover_datasets, temporary_dataset
from dify_kb.emulator import Emulator

DELETE = "datasets.delete"
CREATE = "datasets.create"


async def list_dataset_names(client: AsyncClient) -> list[str]:
    return [row.name async for row in client.datasets.iter()]


async def test_dataset_exists_only_inside_the_block(client: AsyncClient) -> None:
    async with temporary_dataset(client, "economy") as dataset:
        assert await list_dataset_names(client) == [dataset.name]
        assert dataset.name.startswith(PREFIX)
        assert [row.id for row in await find_leftover_datasets(client)] == [dataset.id]

    assert await list_dataset_names(client) == []


async def test_dataset_is_deleted_when_the_block_fails(client: AsyncClient) -> None:
    with pytest.raises(ZeroDivisionError):
        async with temporary_dataset(client, "economy"):
            _ = 1 / 0

    assert await list_dataset_names(client) == []


async def test_dataset_is_deleted_when_the_block_is_cancelled(client: AsyncClient) -> None:
    with anyio.CancelScope() as scope:
        async with temporary_dataset(client, "economy"):
            scope.cancel()
            await anyio.sleep_forever()

    assert await list_dataset_names(client) == []


async def test_cancellation_during_creation_leaves_no_dataset(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["stall 0.2s"])

    with anyio.move_on_after(0.05) as scope:
        async with temporary_dataset(client, "economy"):
            raise AssertionError("it was cancelled before")

    assert scope.cancelled_caught
    assert emulator.faults.left() == {}
    assert await list_dataset_names(client) == []


async def test_dataset_is_deleted_after_a_lost_response_to_create(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["commit-then-reset"])

    async with temporary_dataset(client, "economy") as dataset:
        assert await list_dataset_names(client) == [dataset.name]

    assert emulator.faults.left() == {}
    assert await list_dataset_names(client) == []


async def test_delete_is_retried_after_transient_errors(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(DELETE, ["503 retry-after=0", "reset"])

    async with temporary_dataset(client, "economy"):
        pass

    assert emulator.faults.left() == {}
    assert await list_dataset_names(client) == []


async def test_error_names_the_dataset_that_could_not_be_deleted(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan(DELETE, ["403"])

    with pytest.raises(KnowledgeError) as raised:
        async with temporary_dataset(client, "economy"):
            pass

    assert PREFIX in raised.value.summary
    assert "bench clean" in raised.value.hint
    assert emulator.faults.left() == {}


async def test_missing_dataset_counts_as_deleted(client: AsyncClient) -> None:
    async with temporary_dataset(client, "economy") as dataset:
        await client.datasets.delete(dataset)

    assert await list_dataset_names(client) == []


async def test_other_datasets_are_not_leftovers(client: AsyncClient) -> None:
    await client.datasets.create(f"my {PREFIX}notes")

    assert await find_leftover_datasets(client) == []
