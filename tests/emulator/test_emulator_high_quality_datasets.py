"""High-quality datasets: models, chunks and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_client import run_emulator
from emulator_high_quality import (
    RERANK,
    VERSIONS,
    WITH_MODELS,
    add_high_quality_document,
    create_high_quality_dataset,
    create_parent_child_dataset,
    record_contents,
    record_scores,
)

from dify_kb.emulator import Settings
from dify_kb.emulator.stub_models import EMBEDDING_MODEL, PROVIDER_NAME, RERANKING_MODEL

if TYPE_CHECKING:
    from pathlib import Path


async def test_stub_models_are_listed_with_descriptive_names() -> None:
    async with run_emulator() as client:
        listing = {}
        for kind in ("text-embedding", "rerank", "llm"):
            path = f"/workspaces/current/models/model-types/{kind}"
            (listing[kind],) = [(await client.request("GET", path)).body["data"]]

    (embedding,), (reranking,) = listing["text-embedding"], listing["rerank"]
    assert listing["llm"] == []
    assert embedding["provider"] == reranking["provider"] == PROVIDER_NAME
    assert [model["model"] for model in embedding["models"]] == [EMBEDDING_MODEL]
    assert [model["model"] for model in reranking["models"]] == [RERANKING_MODEL]
    for provider in (embedding, reranking):
        assert "stand-in" in provider["models"][0]["label"]["en_US"]


@pytest.mark.parametrize(("version", "models"), [(v, v == "1.16") for v in VERSIONS])
async def test_only_the_newest_version_has_models_by_default(version: str, *, models: bool) -> None:
    """The recorded servers had no models for most of the recording."""
    path = "/workspaces/current/models/model-types/text-embedding"
    for settings, expected in [
        (Settings(), models),
        (Settings(models=True), True),
        (Settings(models=False), False),
    ]:
        async with run_emulator(version=version, settings=settings) as client:
            assert bool((await client.request("GET", path)).body["data"]) is expected


async def test_unknown_models_are_refused_where_the_server_refuses_them() -> None:
    """A provider is refused immediately, a model only when used (recordings 902, 903, 906, 941)."""
    nobody = {"reranking_provider_name": "a/b/c", "reranking_model_name": "d"}
    async with run_emulator() as client:
        named = {"indexing_technique": "high_quality", "embedding_model": "nope"}
        refused = await client.request(
            "POST", "/datasets", json={"name": "x", "embedding_model_provider": "a/b/c"} | named
        )
        accepted = await client.create_dataset("y", embedding_model_provider=PROVIDER_NAME, **named)
        created = await client.create_by_text(accepted, "a", indexing_technique="high_quality")
        entry = await client.wait_until_indexed(accepted, created)
        search = await client.retrieve(accepted, "a", search_method="semantic_search")
        shown = await client.request("GET", f"/datasets/{accepted}")
        reranked = await client.retrieve(
            await create_high_quality_dataset(client),
            "wombat",
            search_method="semantic_search",
            **RERANK | {"reranking_model": nobody},
        )

    assert (refused.status, refused.body["message"]) == (400, "Provider a/b/c does not exist.")
    assert (entry["indexing_status"], entry["error"]) == ("error", "Model nope does not exist.")
    assert entry["completed_segments"] == 0
    assert (search.status, search.body["message"]) == (400, "Model nope does not exist.")
    assert shown.body["embedding_available"] is False
    assert (reranked.status, reranked.body["message"]) == (400, "Provider a/b/c does not exist.")


async def test_chunk_that_cannot_be_embedded_is_created_with_an_error() -> None:
    """The create returns 200; only the chunk's status shows the error (recording 953)."""
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client, "wombat")
        document = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"][0]
        path = f"/datasets/{dataset}/documents/{document['id']}/segments"
        change = {"embedding_model": "nope", "embedding_model_provider": PROVIDER_NAME}
        await client.request("PATCH", f"/datasets/{dataset}", json=change)
        created = await client.request("POST", path, json={"segments": [{"content": "quokka"}]})
        (segment,) = created.body["data"]

    assert created.status == 200
    assert (segment["status"], segment["enabled"]) == ("error", False)
    assert segment["error"] == "Model nope does not exist."


async def test_chunks_of_a_high_quality_dataset_have_tokens_and_no_keywords() -> None:
    """Recordings 913 to 915: chunks have only the keywords of the request."""
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(
            client, "Section 3: celery workers process background jobs"
        )
        (document,) = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
        path = f"/datasets/{dataset}/documents/{document['id']}/segments"
        (first,) = (await client.request("GET", path)).body["data"]
        new = {"content": "zebras have stripes", "keywords": ["zebra"]}
        (created,) = (await client.request("POST", path, json={"segments": [new]})).body["data"]
        changes = {"content": "zebras have black and white stripes", "keywords": ["stripes"]}
        updated = await client.request("POST", f"{path}/{created['id']}", json={"segment": changes})
        hits = await client.retrieve(dataset, "white zebras", search_method="semantic_search")

    assert (first["tokens"], first["keywords"], document["tokens"]) == (13, None, 13)
    assert (created["tokens"], created["keywords"]) == (5, ["zebra"])
    assert (updated.body["data"]["tokens"], updated.body["data"]["keywords"]) == (9, ["zebra"])
    assert record_contents(hits)[0] == "zebras have black and white stripes"


async def test_change_of_technique_reindexes_the_dataset() -> None:
    """Recordings 966 and 1046 to 1048: existing content is found by the new technique."""
    model = {"embedding_model": EMBEDDING_MODEL, "embedding_model_provider": PROVIDER_NAME}
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        await client.wait_until_indexed(
            dataset, await client.create_by_text(dataset, "a", "the wombat digs")
        )
        path = f"/datasets/{dataset}"
        better = await client.request(
            "PATCH", path, json={"indexing_technique": "high_quality"} | model
        )
        semantic = await client.retrieve(dataset, "wombats", search_method="semantic_search")
        lost = await client.retrieve(dataset, "wombat")
        back = await client.request("PATCH", path, json={"indexing_technique": "economy"})
        keyword = await client.retrieve(dataset, "wombat")

    assert better.body["embedding_model"] == EMBEDDING_MODEL
    assert record_contents(semantic) == record_contents(keyword) == ["the wombat digs"]
    assert record_contents(lost) == []
    assert back.body["embedding_model"] is None


async def test_first_document_sets_technique_and_default_model() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset(indexing_technique=None)
        await add_high_quality_document(client, dataset, "a", "wombat")
        shown = (await client.request("GET", f"/datasets/{dataset}")).body
        hits = await client.retrieve(dataset, "wombat", search_method="semantic_search")

    assert (shown["embedding_model_provider"], shown["embedding_model"]) == (
        PROVIDER_NAME,
        EMBEDDING_MODEL,
    )
    assert shown["embedding_available"] is True
    assert record_contents(hits) == ["wombat"]


async def test_short_provider_name_of_a_document_is_kept() -> None:
    """The details then report the model as unavailable, the list as available (reference 1.13)."""
    short = {"embedding_model": EMBEDDING_MODEL, "embedding_model_provider": "stand-in"}
    async with run_emulator() as client:
        dataset = await client.create_dataset(indexing_technique=None)
        await add_high_quality_document(client, dataset, "a", "wombat", **short)
        one = (await client.request("GET", f"/datasets/{dataset}")).body
        (listing,) = (await client.request("GET", "/datasets")).body["data"]

    assert (one["embedding_model_provider"], one["embedding_available"]) == ("stand-in", False)
    assert (listing["embedding_model_provider"], listing["embedding_available"]) == (
        PROVIDER_NAME,
        True,
    )


async def test_vectors_are_kept_in_the_database_file(tmp_path: Path) -> None:
    path = tmp_path / "kb.db"
    async with run_emulator(path) as client:
        dataset, _ = await create_parent_child_dataset(client)
    async with run_emulator(path) as client:
        hits = await client.retrieve(dataset, "burrows", search_method="semantic_search", top_k=1)

    assert record_contents(hits) == ["the wombat digs\nits burrow is deep"]


async def test_newest_version_completes_search_settings_from_the_dataset() -> None:
    """Older servers use only the settings of the request."""
    stored = {
        "search_method": "semantic_search",
        "reranking_enable": False,
        "top_k": 1,
        "score_threshold_enabled": False,
    } | {"reranking_model": RERANK["reranking_model"]}
    for version, expected in [("1.16", True), ("1.12.1", False)]:
        async with run_emulator(version=version, settings=WITH_MODELS) as client:
            dataset = await create_high_quality_dataset(client)
            body = {"retrieval_model": stored}
            await client.request("PATCH", f"/datasets/{dataset}", json=body)
            response = await client.retrieve(
                dataset, "wombat", search_method="semantic_search", reranking_enable=True
            )

        assert (record_scores(response)[0] == 1) is expected
