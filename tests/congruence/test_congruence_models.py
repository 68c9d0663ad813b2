from __future__ import annotations

import pytest

from dify_kb import (
    AsyncClient,
    BadRequestError,
    IndexingTechnique,
    ModelRef,
    ModelType,
    RetrievalModel,
)

from .conftest import DatasetFactory, create_documents, search_document_names


@pytest.mark.parametrize("model_type", [*ModelType])
async def test_models_are_listed_by_type(client: AsyncClient, model_type: ModelType) -> None:
    """The list of a workspace without models is empty, not an error."""
    providers = await client.workspace.models(model_type)

    for provider in providers:
        assert provider.models
        assert {ref.provider for ref in provider.model_refs()} == {provider.provider}
        assert all(ref.model for ref in provider.model_refs())


async def test_unknown_model_type_is_rejected(client: AsyncClient) -> None:
    with pytest.raises(BadRequestError):
        await client.workspace.models("bogus")


async def test_listed_model_creates_a_dataset(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> None:
    created = await create_dataset(indexing_technique="high_quality", embedding=embedding)

    dataset = await client.datasets.get(created)
    assert dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY
    assert dataset.embedding_model == embedding.model
    assert dataset.embedding_model_provider == embedding.provider
    assert dataset.embedding_available is True


async def test_unknown_model_provider_is_rejected(create_dataset: DatasetFactory) -> None:
    with pytest.raises(BadRequestError):
        await create_dataset(
            indexing_technique="high_quality",
            embedding=ModelRef(provider="nobody/nothing/nowhere", model="none"),
        )


@pytest.mark.parametrize("method", ["semantic", "full_text", "hybrid"])
async def test_high_quality_dataset_supports_every_search_method(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef, method: str
) -> None:
    dataset = await create_dataset(indexing_technique="high_quality", embedding=embedding)
    await create_documents(
        client, dataset, "the wombat digs its burrow at night", "the quokka smiles"
    )
    models = {
        "semantic": RetrievalModel.semantic(top_k=2),
        "full_text": RetrievalModel.full_text(top_k=2),
        "hybrid": RetrievalModel.hybrid_weighted(embedding=embedding, top_k=2),
    }

    found = await client.datasets.retrieve(
        dataset, "wombat digs burrow", retrieval_model=models[method]
    )

    assert found.records[0].segment.document.name == "a.txt"
    assert found.records[0].score is not None


async def test_high_quality_dataset_uses_its_stored_retrieval_model(
    client: AsyncClient, create_dataset: DatasetFactory, embedding: ModelRef
) -> None:
    dataset = await create_dataset(indexing_technique="high_quality", embedding=embedding)
    await create_documents(client, dataset, "the wombat digs its burrow at night")

    assert await search_document_names(client, dataset, "wombat burrow") == ["a.txt"]
