from __future__ import annotations

import pytest

from dify_kb import AsyncClient, BadRequestError, ConfigError, Dataset, NotFoundError
from dify_kb.models import NewSegment, SegmentStatus

from .conftest import (
    UNKNOWN_ID,
    create_documents,
    list_segments,
    search_document_names,
    try_change,
    wait_until_true,
)

LINES = "the wombat digs\nthe quokka smiles\nplatypus eggs"


async def test_chunks_are_listed_in_the_order_of_the_text(
    client: AsyncClient, dataset: Dataset
) -> None:
    (document,) = await create_documents(client, dataset, LINES)

    rows = await list_segments(client, dataset, document)

    assert [row.content for row in rows] == LINES.split("\n")
    assert [row.position for row in rows] == [1, 2, 3]
    assert {row.document_id for row in rows} == {document.id}
    assert {row.status for row in rows} == {SegmentStatus.COMPLETED}
    assert all(row.enabled for row in rows)
    assert [row.word_count for row in rows] == [len(row.content) for row in rows]


async def test_new_chunks_are_appended_in_the_order_given(
    client: AsyncClient, dataset: Dataset
) -> None:
    (document,) = await create_documents(client, dataset, LINES)

    created = await client.segments.create(
        dataset, document.id, ["numbat naps", NewSegment(content="numbat naps"), "数据库 分段"]
    )

    assert [row.content for row in created] == ["numbat naps", "numbat naps", "数据库 分段"]
    assert [row.position for row in created] == [4, 5, 6]
    assert len({row.id for row in created}) == 3
    rows = await list_segments(client, dataset, document)
    assert [row.id for row in rows[3:]] == [row.id for row in created]
    assert await search_document_names(client, dataset, "numbat") == ["a.txt"]


async def test_chunk_is_found_by_its_assigned_keywords(
    client: AsyncClient, dataset: Dataset
) -> None:
    """In an economy dataset they replace the keywords that the server extracts from the text."""
    (document,) = await create_documents(client, dataset, LINES)

    (created,) = await client.segments.create(
        dataset,
        document.id,
        [NewSegment(content="it naps in a log", keywords=["numbat", "termites"])],
    )

    assert sorted(created.keywords or ()) == ["numbat", "termites"]
    found = await client.datasets.retrieve(dataset, "numbat")
    assert [record.segment.id for record in found.records] == [created.id]


async def test_get_segment(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, LINES)
    _first, second, _third = await list_segments(client, dataset, document)

    one = await client.segments.get(dataset, document.id, second.id)

    assert (one.id, one.content, one.position) == (second.id, "the quokka smiles", 2)
    with pytest.raises(NotFoundError):
        await client.segments.get(dataset, document.id, UNKNOWN_ID)


async def test_chunks_are_listed_by_page_keyword_and_status(
    client: AsyncClient, dataset: Dataset
) -> None:
    (document,) = await create_documents(client, dataset, LINES)

    page = await client.segments.list(dataset, document.id, limit=2, page=2)
    found = await client.segments.list(dataset, document.id, keyword="QUOKKA")
    done = await client.segments.list(dataset, document.id, status=["completed", "indexing"])
    waiting = await client.segments.list(dataset, document.id, status=["waiting"])

    assert [row.content for row in page.data] == ["platypus eggs"]
    assert page.total == 3
    assert [row.content for row in found.data] == ["the quokka smiles"]
    assert (found.total, done.total, waiting.total) == (1, 3, 0)


async def test_updated_content_is_found_and_the_old_one_is_not(
    client: AsyncClient, dataset: Dataset
) -> None:
    (document,) = await create_documents(client, dataset, LINES)
    first, *_rest = await list_segments(client, dataset, document)

    updated = await client.segments.update(
        dataset, document.id, first.id, content="the numbat naps", keywords=["numbat"]
    )

    assert (updated.id, updated.content, updated.position) == (first.id, "the numbat naps", 1)
    assert list(updated.keywords or ()) == ["numbat"]
    assert await search_document_names(client, dataset, "numbat") == ["a.txt"]
    assert await search_document_names(client, dataset, "wombat") == []
    assert (await client.segments.get(dataset, document.id, first.id)).content == "the numbat naps"


async def test_update_replaces_keywords(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "filler")
    (created,) = await client.segments.create(
        dataset, document.id, [NewSegment(content="it naps", keywords=["numbat", "termites"])]
    )

    updated = await client.segments.update(
        dataset, document.id, created.id, content="it naps", keywords=["echidna"]
    )

    assert list(updated.keywords or ()) == ["echidna"]
    assert await search_document_names(client, dataset, "echidna") == ["a.txt"]


async def test_disabled_chunk_is_not_found_until_enabled(
    client: AsyncClient, dataset: Dataset
) -> None:
    """While it is disabled, nothing else of it can be changed (measured)."""
    (document,) = await create_documents(client, dataset, LINES)
    first, *_rest = await list_segments(client, dataset, document)

    disabled = await client.segments.update(dataset, document.id, first.id, enabled=False)

    assert not disabled.enabled
    assert await search_document_names(client, dataset, "wombat") == []
    assert await search_document_names(client, dataset, "quokka") == ["a.txt"]
    with pytest.raises(BadRequestError):
        await client.segments.update(dataset, document.id, first.id, content="the numbat naps")

    async def enabled() -> bool:
        return await try_change(
            client.segments.update(
                dataset, document.id, first.id, enabled=True, content="the wombat digs"
            )
        )

    assert await wait_until_true(enabled)

    async def found() -> bool:
        return await search_document_names(client, dataset, "wombat") == ["a.txt"]

    assert await wait_until_true(found)


async def test_deleted_chunk_is_gone(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, LINES)
    first, *rest = await list_segments(client, dataset, document)

    await client.segments.delete(dataset, document.id, first.id)

    assert [row.id for row in await list_segments(client, dataset, document)] == [
        row.id for row in rest
    ]
    assert await search_document_names(client, dataset, "wombat") == []
    with pytest.raises(NotFoundError):
        await client.segments.get(dataset, document.id, first.id)
    with pytest.raises(NotFoundError):
        await client.segments.delete(dataset, document.id, first.id)


async def test_one_invalid_chunk_creates_none(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "filler")

    for bad in ("", "   "):
        with pytest.raises(BadRequestError):
            await client.segments.create(dataset, document.id, ["numbat", bad])
    with pytest.raises(ConfigError):
        await client.segments.create(dataset, document.id, [])

    assert len(await list_segments(client, dataset, document)) == 1


async def test_unknown_document_has_no_chunks(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "filler")

    with pytest.raises(NotFoundError):
        await client.segments.list(dataset, UNKNOWN_ID)
    with pytest.raises(NotFoundError):
        await client.segments.create(dataset, UNKNOWN_ID, ["numbat"])
    with pytest.raises(NotFoundError):
        await client.segments.update(dataset, document.id, UNKNOWN_ID, content="numbat")


async def test_paging_yields_every_chunk_once(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(
        client, dataset, "\n".join(f"line {n}" for n in range(205))
    )

    rows = await list_segments(client, dataset, document)

    assert [row.content for row in rows] == [f"line {n}" for n in range(205)]


async def test_replacing_the_document_replaces_its_chunks(
    client: AsyncClient, dataset: Dataset
) -> None:
    """Chunks that were added through the API are lost, too (measured)."""
    (document,) = await create_documents(client, dataset, LINES)
    await client.segments.create(dataset, document.id, ["numbat naps"])

    (again,) = await create_documents(client, dataset, "echidna spines")

    assert again.id == document.id
    assert [row.content for row in await list_segments(client, dataset, again)] == [
        "echidna spines"
    ]
    assert await search_document_names(client, dataset, "numbat") == []
