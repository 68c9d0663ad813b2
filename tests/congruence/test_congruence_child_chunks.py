from __future__ import annotations

import pytest

from dify_kb import (
    AsyncClient,
    BadRequestError,
    Dataset,
    Document,
    ModelRef,
    NotFoundError,
    ProcessRule,
    Segment,
)

from .conftest import (
    UNKNOWN_ID,
    DatasetFactory,
    create_documents,
    is_older_than,
    list_embedding_models,
    list_segments,
    wait_until_indexed,
)

HELP = "cannot change or delete"
"""Text of the error on 1.8.1 (measured)."""


async def create_single_chunk(client: AsyncClient, dataset: Dataset) -> tuple[Document, Segment]:
    (document,) = await create_documents(client, dataset, "the wombat digs")
    (segment,) = await list_segments(client, dataset, document)
    return document, segment


async def create_parent_chunks(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> tuple[Dataset, Document, list[Segment]]:
    dataset = await create_dataset(indexing_technique="high_quality", embedding=embedding)
    created = await client.documents.create_by_text(
        dataset,
        "a.txt",
        "the wombat digs\nits burrow is deep\n\nthe quokka smiles\nat tourists",
        doc_form="hierarchical_model",
        process_rule=ProcessRule.parent_child(max_tokens=100, child_max_tokens=50),
    )
    (document,) = await wait_until_indexed(client, dataset, created)
    return dataset, document, await list_segments(client, dataset, document)


async def test_any_chunk_can_have_children(client: AsyncClient, dataset: Dataset) -> None:
    """This includes economy datasets, where they have no effect (measured)."""
    document, segment = await create_single_chunk(client, dataset)
    assert (await client.child_chunks.list(dataset, document.id, segment.id)).total == 0

    made = [
        await client.child_chunks.create(dataset, document.id, segment.id, text)
        for text in ("the wombat", "数据库", "digs")
    ]

    assert {one.segment_id for one in made} == {segment.id}
    assert [one.position for one in made] == [1, 2, 3]
    assert {one.type for one in made} == {"customized"}
    rows = [row async for row in client.child_chunks.iter(dataset, document.id, segment.id)]
    assert [row.content for row in rows] == ["the wombat", "数据库", "digs"]
    assert [row.id for row in rows] == [one.id for one in made]


async def test_children_are_listed_by_page_and_keyword(
    client: AsyncClient, dataset: Dataset
) -> None:
    document, segment = await create_single_chunk(client, dataset)
    for text in ("wombat one", "wombat two", "quokka"):
        await client.child_chunks.create(dataset, document.id, segment.id, text)

    page = await client.child_chunks.list(dataset, document.id, segment.id, page=2, limit=2)
    found = await client.child_chunks.list(dataset, document.id, segment.id, keyword="wombat")

    assert [row.content for row in page.data] == ["quokka"]
    assert (page.total, found.total) == (3, 2)


async def test_update_changes_the_content(client: AsyncClient, dataset: Dataset) -> None:
    """1.8.1 never finds a child chunk (measured); the error explains what to do instead."""
    document, segment = await create_single_chunk(client, dataset)
    made = await client.child_chunks.create(dataset, document.id, segment.id, "the wombat")

    if client.server_version == "1.8.1":
        with pytest.raises(NotFoundError, match=HELP):
            await client.child_chunks.update(dataset, document.id, segment.id, made.id, "digs")
        return
    updated = await client.child_chunks.update(dataset, document.id, segment.id, made.id, "digs")

    assert (updated.id, updated.content) == (made.id, "digs")
    page = await client.child_chunks.list(dataset, document.id, segment.id)
    assert [row.content for row in page.data] == ["digs"]


async def test_child_chunk_is_deleted(client: AsyncClient, dataset: Dataset) -> None:
    """1.8.1 never finds one; up to 1.12 deleting needs an embedding model (recording 603)."""
    document, segment = await create_single_chunk(client, dataset)
    made = await client.child_chunks.create(dataset, document.id, segment.id, "the wombat")
    where = (dataset, document.id, segment.id)

    if client.server_version == "1.8.1":
        with pytest.raises(NotFoundError, match=HELP):
            await client.child_chunks.delete(*where, made.id)
        return
    if is_older_than(client, "1.13") and not await list_embedding_models(client):
        with pytest.raises(BadRequestError, match="Default model not found"):
            await client.child_chunks.delete(*where, made.id)
        return
    await client.child_chunks.delete(*where, made.id)

    assert (await client.child_chunks.list(*where)).total == 0
    with pytest.raises(NotFoundError):
        await client.child_chunks.delete(*where, made.id)


async def test_unknown_segment_has_no_child_chunks(client: AsyncClient, dataset: Dataset) -> None:
    document, segment = await create_single_chunk(client, dataset)

    with pytest.raises(NotFoundError):
        await client.child_chunks.list(dataset, document.id, UNKNOWN_ID)
    with pytest.raises(NotFoundError):
        await client.child_chunks.create(dataset, document.id, UNKNOWN_ID, "the wombat")
    with pytest.raises(NotFoundError):
        await client.child_chunks.update(dataset, document.id, segment.id, UNKNOWN_ID, "the wombat")


async def test_parent_chunks_are_split_into_children(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> None:
    dataset, document, segments = await create_parent_chunks(client, create_dataset, embedding)

    assert len(segments) == 2
    for segment in segments:
        rows = [row async for row in client.child_chunks.iter(dataset, document.id, segment.id)]
        assert len(rows) == 2
        assert all(row.content in segment.content for row in rows)
        assert {row.type for row in rows} == {"automatic"}


async def test_parent_chunk_is_found_by_its_children(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> None:
    dataset, _document, segments = await create_parent_chunks(client, create_dataset, embedding)

    found = await client.datasets.retrieve(dataset, "its burrow is deep")

    assert found.records[0].segment.id == segments[0].id
    assert found.records[0].child_chunks
    assert found.records[0].child_chunks[0].content == "its burrow is deep"


async def test_children_of_a_parent_are_added_and_deleted(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> None:
    """1.8.1 cannot delete a child chunk (measured)."""
    dataset, document, segments = await create_parent_chunks(client, create_dataset, embedding)
    where = (dataset, document.id, segments[0].id)

    made = await client.child_chunks.create(*where, "a numbat moved in")

    assert (await client.child_chunks.list(*where)).total == 3
    if client.server_version == "1.8.1":
        with pytest.raises(NotFoundError, match=HELP):
            await client.child_chunks.delete(*where, made.id)
        return
    await client.child_chunks.delete(*where, made.id)
    assert (await client.child_chunks.list(*where)).total == 2
