"""Another Dify's knowledge base, served as an external one."""

from __future__ import annotations

import pytest
from external_calls import conditions, serving

from dify_kb import AsyncClient, Dataset, Item, ModelType, RetrievalModel
from dify_kb.external import DatasetRetriever

FILES = {"zebra.txt": "Zebras graze by day.", "fox.txt": "Foxes dig by night."}


async def filled(client: AsyncClient, technique: str) -> Dataset:
    dataset = await client.datasets.create(technique, indexing_technique=technique)
    items = [
        Item(name, text=text, metadata={"animal": name.removesuffix(".txt")})
        for name, text in FILES.items()
    ]
    (await client.load(dataset, items, metadata={"year": 2024})).raise_for_failures()
    return await client.datasets.get(dataset.id)


@pytest.fixture
async def good(client: AsyncClient) -> Dataset:
    return await filled(client, "high_quality")


async def test_a_base_is_searched_as_it_has_it_stored(client: AsyncClient, good: Dataset) -> None:
    async with serving(DatasetRetriever(client.datasets, good)) as server:
        records = (await server.ask("zebras by day", top_k=1)).records

    (record,) = records
    metadata = record["metadata"]
    assert record["content"] == FILES["zebra.txt"]
    assert record["title"] == "zebra.txt"
    assert 0 < record["score"] <= 1
    assert metadata.pop("document_id")
    assert metadata.pop("segment_id")
    assert metadata == {"animal": "zebra", "year": 2024, "position": 1}


async def test_an_economy_base_has_scores_by_place(client: AsyncClient) -> None:
    dataset = await filled(client, "economy")
    async with serving(DatasetRetriever(client.datasets, dataset)) as server:
        records = (await server.ask("zebras foxes by day")).records

    assert [(record["title"], record["score"]) for record in records] == [
        ("zebra.txt", 1.0),
        ("fox.txt", 0.5),
    ]


async def test_conditions_are_met_there(client: AsyncClient, good: Dataset) -> None:
    """Also those on fields that are no part of the answer."""
    asked = conditions(("animal", "is", "fox"), ("year", ">", 2020))
    async with serving(DatasetRetriever(client.datasets, good)) as server:
        records = (await server.ask("by", top_k=1, metadata_condition=asked)).records

    assert [record["title"] for record in records] == ["fox.txt"]


async def test_threshold_and_model_are_sent(client: AsyncClient, good: Dataset) -> None:
    (provider, *_) = await client.workspace.models(ModelType.TEXT_EMBEDDING)
    model = RetrievalModel.hybrid_weighted(embedding=provider.refs()[0], vector_weight=0.5)
    retriever = DatasetRetriever(client.datasets, good.id, model)
    async with serving(retriever) as server:
        everything = (await server.ask("zebras graze")).records
        good_ones = (await server.ask("zebras graze", threshold=0.3)).records

    assert [record["title"] for record in everything] == ["zebra.txt", "fox.txt"]
    assert [record["title"] for record in good_ones] == ["zebra.txt"]


async def test_a_long_question_is_cut_to_what_the_other_takes(
    client: AsyncClient, good: Dataset
) -> None:
    async with serving(DatasetRetriever(client.datasets, good.id)) as server:
        records = (await server.ask("zebras graze " * 100)).records

    assert records[0]["title"] == "zebra.txt"


async def test_what_the_other_refuses_is_a_plain_500(
    client: AsyncClient, good: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    await client.datasets.delete(good)
    async with serving(DatasetRetriever(client.datasets, good)) as server:
        reply = await server.ask("zebras")

    assert reply.status == 500
    assert "datasets.retrieve: the server answered 404" in caplog.text
