from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from dify_kb import AsyncClient, BadRequestError, ConfigError, Dataset, NotFoundError
from dify_kb.models import Tag

from .conftest import (
    UNKNOWN_ID,
    DatasetFactory,
    Target,
    delete_if_exists,
    has_broken_tags,
    is_older_than,
    unique_name,
)

HELP = "a bug of this version"
"""Text of the error on 1.12.1 (measured)."""

TagFactory = Callable[[], Awaitable[Tag | None]]


@pytest.fixture
async def create_tag(client: AsyncClient, target: Target) -> AsyncIterator[TagFactory]:
    """A function that creates tags, deleted at the end.

    1.12.1 does not return the ids of tags, so they could never be deleted. There the function
    returns None, on the emulator after trying, on a real server without trying.
    """
    async with AsyncExitStack() as stack:

        async def make() -> Tag | None:
            if has_broken_tags(client):
                if not target.is_real:
                    with pytest.raises(BadRequestError, match=HELP):
                        await client.tags.create(unique_name())
                return None
            made = await client.tags.create(unique_name())
            stack.push_async_callback(delete_if_exists, client.tags.delete, made.id)
            return made

        yield make


async def test_tags_are_listed(client: AsyncClient, target: Target, create_tag: TagFactory) -> None:
    """1.12.1 fails to list tags as soon as one exists, and the error explains that."""
    first, second = await create_tag(), await create_tag()

    if first is None or second is None:
        if not target.is_real:
            with pytest.raises(BadRequestError, match=HELP):
                await client.tags.list()
        return
    rows = {row.id: row for row in await client.tags.list()}
    assert rows[first.id].name == first.name
    assert {rows[one.id].type for one in (first, second)} == {"knowledge"}
    assert {rows[one.id].binding_count for one in (first, second)} == {0}


async def test_duplicate_name_is_refused(client: AsyncClient, create_tag: TagFactory) -> None:
    made = await create_tag()
    if made is None:
        return

    with pytest.raises(BadRequestError):
        await client.tags.create(made.name)
    if is_older_than(client, "1.14"):
        with pytest.raises(BadRequestError):
            await client.tags.update(made.id, made.name)
        return
    assert (await client.tags.update(made.id, made.name)).name == made.name


async def test_tag_name_has_1_to_50_characters(client: AsyncClient) -> None:
    for bad in ("", "x" * 51):
        with pytest.raises(ConfigError):
            await client.tags.create(bad)


async def test_update_renames_the_tag(client: AsyncClient, create_tag: TagFactory) -> None:
    made = await create_tag()
    if made is None:
        return
    name = unique_name(" 知识")

    renamed = await client.tags.update(made.id, name)

    assert (renamed.id, renamed.name) == (made.id, name)
    assert name in {row.name for row in await client.tags.list()}


async def test_tags_of_a_dataset(
    client: AsyncClient, dataset: Dataset, create_tag: TagFactory
) -> None:
    """The list of a dataset without tags is empty on every version."""
    assert not (await client.tags.list_for_dataset(dataset)).data
    first, second = await create_tag(), await create_tag()
    if first is None or second is None:
        return

    await client.tags.bind(dataset, [first.id, second.id])
    await client.tags.bind(dataset, [first.id])

    bound = await client.tags.list_for_dataset(dataset)
    assert bound.total == 2
    assert {row.id: row.name for row in bound.data} == {
        first.id: first.name,
        second.id: second.name,
    }
    fetched = await client.datasets.get(dataset)
    assert {row["id"] for row in fetched.tags or ()} == {first.id, second.id}
    counts = {row.id: row.binding_count for row in await client.tags.list()}
    assert (counts[first.id], counts[second.id]) == (1, 1)

    await client.tags.unbind(dataset, first.id)
    await client.tags.unbind(dataset, first.id)

    assert [row.id for row in (await client.tags.list_for_dataset(dataset)).data] == [second.id]


async def test_datasets_are_filtered_by_tags(
    client: AsyncClient, create_dataset: DatasetFactory, create_tag: TagFactory
) -> None:
    """`iter` filters in the client if needed: 1.12.1 rejects any `tag_ids` (measured)."""
    tagged, _other = await create_dataset(), await create_dataset()
    made = await create_tag()

    if made is None:
        with pytest.raises(BadRequestError, match="this version rejects tag_ids"):
            await client.datasets.list(tag_ids=[UNKNOWN_ID])
        assert [row async for row in client.datasets.iter(tag_ids=[UNKNOWN_ID])] == []
        return
    await client.tags.bind(tagged, [made.id])

    page = await client.datasets.list(tag_ids=[made.id])
    rows = [row.id async for row in client.datasets.iter(tag_ids=[made.id])]
    assert [row.id for row in page.data] == rows == [tagged.id]


async def test_deleted_tag_is_unbound(
    client: AsyncClient, dataset: Dataset, create_tag: TagFactory
) -> None:
    made = await create_tag()
    if made is None:
        return
    await client.tags.bind(dataset, [made.id])

    await client.tags.delete(made.id)

    assert not (await client.tags.list_for_dataset(dataset)).data
    assert made.id not in {row.id for row in await client.tags.list()}
    with pytest.raises(NotFoundError):
        await client.tags.delete(made.id)


async def test_unknown_dataset_cannot_be_tagged(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.tags.delete(UNKNOWN_ID)
    with pytest.raises(NotFoundError):
        await client.tags.update(UNKNOWN_ID, unique_name())
    with pytest.raises(NotFoundError):
        await client.tags.bind(UNKNOWN_ID, [UNKNOWN_ID])
    with pytest.raises(NotFoundError):
        await client.tags.unbind(UNKNOWN_ID, UNKNOWN_ID)
