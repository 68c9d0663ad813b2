"""The retriever for a dataset of another Dify."""

from __future__ import annotations

import pytest
from retrieval_server import build_conditions, serve_retriever

from dify_kb import AsyncClient, Dataset, Item, ModelType, RetrievalModel
from dify_kb.external import DatasetRetriever
from dify_kb.models import TechniqueName

FILES = {"zebra.txt": "Zebras graze by day.", "fox.txt": "Foxes dig by night."}


async def load_dataset(client: AsyncClient, technique: TechniqueName) -> Dataset:
    dataset = await client.datasets.create(technique, indexing_technique=technique)
    items = [
        Item(name, text=text, metadata={"animal": name.removesuffix(".txt")})
        for name, text in FILES.items()
    ]
    (await client.load(dataset, items, metadata={"year": 2024})).raise_for_failures()
    return await client.datasets.get(dataset.id)


@pytest.fixture
async def stored_dataset(client: AsyncClient) -> Dataset:
    return await load_dataset(client, "high_quality")


async def test_dataset_is_searched_with_its_stored_settings(
    client: AsyncClient, stored_dataset: Dataset
) -> None:
    async with serve_retriever(DatasetRetriever(client.datasets, stored_dataset)) as server:
        records = (await server.retrieve("zebras by day", top_k=1)).records

    (record,) = records
    metadata = record["metadata"]
    assert record["content"] == FILES["zebra.txt"]
    assert record["title"] == "zebra.txt"
    assert 0 < record["score"] <= 1
    assert metadata.pop("document_id")
    assert metadata.pop("segment_id")
    assert metadata == {"animal": "zebra", "year": 2024, "position": 1}


async def test_economy_dataset_has_scores_by_rank(client: AsyncClient) -> None:
    dataset = await load_dataset(client, "economy")
    async with serve_retriever(DatasetRetriever(client.datasets, dataset)) as server:
        records = (await server.retrieve("zebras foxes by day")).records

    assert [(record["title"], record["score"]) for record in records] == [
        ("zebra.txt", 1.0),
        ("fox.txt", 0.5),
    ]


async def test_conditions_are_applied_by_the_other_server(
    client: AsyncClient, stored_dataset: Dataset
) -> None:
    """This includes conditions on fields that the response does not contain."""
    metadata_condition = build_conditions(("animal", "is", "fox"), ("year", ">", 2020))
    async with serve_retriever(DatasetRetriever(client.datasets, stored_dataset)) as server:
        records = (
            await server.retrieve("by", top_k=1, metadata_condition=metadata_condition)
        ).records

    assert [record["title"] for record in records] == ["fox.txt"]


async def test_threshold_and_model_are_sent(client: AsyncClient, stored_dataset: Dataset) -> None:
    (provider, *_) = await client.workspace.models(ModelType.TEXT_EMBEDDING)
    model = RetrievalModel.hybrid_weighted(embedding=provider.model_refs()[0], vector_weight=0.5)
    retriever = DatasetRetriever(client.datasets, stored_dataset.id, model)
    async with serve_retriever(retriever) as server:
        all_records = (await server.retrieve("zebras graze")).records
        above_threshold = (await server.retrieve("zebras graze", threshold=0.3)).records

    assert [record["title"] for record in all_records] == ["zebra.txt", "fox.txt"]
    assert [record["title"] for record in above_threshold] == ["zebra.txt"]


async def test_long_query_is_cut_to_the_limit_of_the_other_server(
    client: AsyncClient, stored_dataset: Dataset
) -> None:
    async with serve_retriever(DatasetRetriever(client.datasets, stored_dataset.id)) as server:
        records = (await server.retrieve("zebras graze " * 100)).records

    assert records[0]["title"] == "zebra.txt"


async def test_error_of_the_other_server_gives_a_500(
    client: AsyncClient, stored_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    await client.datasets.delete(stored_dataset)
    async with serve_retriever(DatasetRetriever(client.datasets, stored_dataset)) as server:
        response = await server.retrieve("zebras")

    assert response.status == 500
    assert "datasets.retrieve: the server returned 404" in caplog.text
