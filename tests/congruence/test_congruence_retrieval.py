from __future__ import annotations

import pytest

from dify_kb import AsyncClient, BadRequestError, ConfigError, Dataset, RetrievalModel
from dify_kb.models import MAX_QUERY_LENGTH, Query

from .conftest import (
    DatasetFactory,
    create_documents,
    document_names,
    search_document_names,
    wait_until_true,
)


async def test_keywords_find_the_documents_that_contain_them(
    client: AsyncClient, dataset: Dataset
) -> None:
    await create_documents(client, dataset, "the wombat digs", "the quokka smiles", "platypus eggs")

    assert await search_document_names(client, dataset, "wombat") == ["a.txt"]
    assert await search_document_names(client, dataset, "quokka") == ["b.txt"]
    assert await search_document_names(client, dataset, "axolotl") == []


async def test_records_with_more_keywords_rank_first(client: AsyncClient, dataset: Dataset) -> None:
    await create_documents(client, dataset, "wombat burrow", "wombat burrow tunnel", "wombat")

    found = await search_document_names(client, dataset, "wombat burrow tunnel")

    assert found == ["b.txt", "a.txt", "c.txt"]


async def test_words_of_other_scripts_are_found(client: AsyncClient, dataset: Dataset) -> None:
    await create_documents(client, dataset, "数据库 索引", "wombat")

    assert await search_document_names(client, dataset, "数据库") == ["a.txt"]


async def test_record_names_its_document(client: AsyncClient, dataset: Dataset) -> None:
    (document,) = await create_documents(client, dataset, "the wombat digs")

    found = await client.datasets.retrieve(dataset, "wombat")

    assert found.query == Query(content="wombat")
    (record,) = found.records
    assert record.segment.content == "the wombat digs"
    assert record.segment.document_id == record.segment.document.id == document.id
    assert record.segment.position == 1
    assert record.segment.enabled
    assert not record.score  # null up to 1.8, then 0.0 (measured)


@pytest.mark.parametrize("top_k", [1, 2, 4, 100])
async def test_top_k_limits_the_records(client: AsyncClient, dataset: Dataset, top_k: int) -> None:
    await create_documents(client, dataset, "wombat one\nwombat two\nwombat three", "wombat four")

    found = await client.datasets.retrieve(
        dataset, "wombat", retrieval_model=RetrievalModel.keyword(top_k=top_k)
    )

    assert len(found.records) == min(top_k, 4)
    assert len({record.segment.id for record in found.records}) == len(found.records)


async def test_query_has_1_to_250_characters(client: AsyncClient, dataset: Dataset) -> None:
    """The server accepts the longest query; the client does not send a longer one."""
    await create_documents(client, dataset, "the wombat digs")
    longest = "wombat ".ljust(MAX_QUERY_LENGTH, "x")

    assert await search_document_names(client, dataset, longest) == ["a.txt"]
    for bad in ("", longest + "x"):
        with pytest.raises(ConfigError):
            await client.datasets.retrieve(dataset, bad)


async def test_empty_dataset_returns_no_records(client: AsyncClient, dataset: Dataset) -> None:
    assert await search_document_names(client, dataset, "wombat") == []


async def test_economy_dataset_passed_by_id_needs_a_search_method(
    client: AsyncClient, dataset: Dataset
) -> None:
    """The server would use the stored semantic search; with a `Dataset` the client requests
    keyword search (measured).
    """
    await create_documents(client, dataset, "the wombat digs")

    with pytest.raises(BadRequestError):
        await client.datasets.retrieve(dataset.id, "wombat")
    found = await client.datasets.retrieve(
        dataset.id, "wombat", retrieval_model=RetrievalModel.keyword()
    )
    assert document_names(found) == ["a.txt"]


async def test_datasets_are_searched_separately(
    client: AsyncClient, create_dataset: DatasetFactory
) -> None:
    first, second = await create_dataset(), await create_dataset()
    await create_documents(client, first, "the wombat digs")
    await create_documents(client, second, "the quokka smiles")

    assert await search_document_names(client, first, "quokka") == []
    assert await search_document_names(client, second, "quokka") == ["a.txt"]


async def test_deleted_document_is_no_longer_found(client: AsyncClient, dataset: Dataset) -> None:
    """The server removes its chunks some time after the response (server source)."""
    first, _second = await create_documents(client, dataset, "wombat one", "wombat two")

    await client.documents.delete(dataset, first.id)

    async def gone() -> bool:
        return await search_document_names(client, dataset, "wombat") == ["b.txt"]

    assert await wait_until_true(gone)
