"""High-quality bases: their models, chunks and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_calls import serving
from emulator_retrievals import OFFERED, RERANK, VERSIONS, contents, family, good, put, scores

from dify_kb.emulator import Settings
from dify_kb.emulator.stand_ins import EMBEDDING, PROVIDER, RERANKING

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_stand_ins_are_listed_under_names_that_say_so() -> None:
    async with serving() as calls:
        listed = {}
        for kind in ("text-embedding", "rerank", "llm"):
            path = f"/workspaces/current/models/model-types/{kind}"
            (listed[kind],) = [(await calls.call("GET", path)).body["data"]]

    (embedding,), (reranking,) = listed["text-embedding"], listed["rerank"]
    assert listed["llm"] == []
    assert embedding["provider"] == reranking["provider"] == PROVIDER
    assert [model["model"] for model in embedding["models"]] == [EMBEDDING]
    assert [model["model"] for model in reranking["models"]] == [RERANKING]
    for provider in (embedding, reranking):
        assert "stand-in" in provider["models"][0]["label"]["en_US"]


@pytest.mark.parametrize(("version", "models"), [(v, v == "1.16") for v in VERSIONS])
async def test_only_the_newest_has_models_unless_told_otherwise(
    version: str, *, models: bool
) -> None:
    """The recorded servers had none for most of their time."""
    path = "/workspaces/current/models/model-types/text-embedding"
    for settings, expected in [
        (Settings(), models),
        (Settings(models=True), True),
        (Settings(models=False), False),
    ]:
        async with serving(version=version, settings=settings) as calls:
            assert bool((await calls.call("GET", path)).body["data"]) is expected


async def test_unknown_models_are_refused_where_the_server_refuses_them() -> None:
    """A provider at once, a model only when it is used (recordings 902, 903, 906, 941)."""
    nobody = {"reranking_provider_name": "a/b/c", "reranking_model_name": "d"}
    async with serving() as calls:
        named = {"indexing_technique": "high_quality", "embedding_model": "nope"}
        refused = await calls.call(
            "POST", "/datasets", json={"name": "x", "embedding_model_provider": "a/b/c"} | named
        )
        taken = await calls.dataset("y", embedding_model_provider=PROVIDER, **named)
        created = await calls.write(taken, "a", indexing_technique="high_quality")
        entry = await calls.done(taken, created)
        search = await calls.search(taken, "a", search_method="semantic_search")
        shown = await calls.call("GET", f"/datasets/{taken}")
        reranked = await calls.search(
            await good(calls),
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


async def test_a_chunk_that_cannot_be_embedded_is_made_with_the_error_in_it() -> None:
    """200 all the same (recording 953): its status is where the error is."""
    async with serving() as calls:
        dataset = await good(calls, "wombat")
        document = (await calls.call("GET", f"/datasets/{dataset}/documents")).body["data"][0]
        path = f"/datasets/{dataset}/documents/{document['id']}/segments"
        change = {"embedding_model": "nope", "embedding_model_provider": PROVIDER}
        await calls.call("PATCH", f"/datasets/{dataset}", json=change)
        made = await calls.call("POST", path, json={"segments": [{"content": "quokka"}]})
        (segment,) = made.body["data"]

    assert made.status == 200
    assert (segment["status"], segment["enabled"]) == ("error", False)
    assert segment["error"] == "Model nope does not exist."


async def test_chunks_of_a_high_quality_base_have_tokens_and_no_keywords() -> None:
    """Recordings 913 to 915: keywords are only those that are given."""
    async with serving() as calls:
        dataset = await good(calls, "Section 3: celery workers process background jobs")
        (document,) = (await calls.call("GET", f"/datasets/{dataset}/documents")).body["data"]
        path = f"/datasets/{dataset}/documents/{document['id']}/segments"
        (first,) = (await calls.call("GET", path)).body["data"]
        new = {"content": "zebras have stripes", "keywords": ["zebra"]}
        (made,) = (await calls.call("POST", path, json={"segments": [new]})).body["data"]
        changes = {"content": "zebras have black and white stripes", "keywords": ["stripes"]}
        updated = await calls.call("POST", f"{path}/{made['id']}", json={"segment": changes})
        found = await calls.search(dataset, "white zebras", search_method="semantic_search")

    assert (first["tokens"], first["keywords"], document["tokens"]) == (13, None, 13)
    assert (made["tokens"], made["keywords"]) == (5, ["zebra"])
    assert (updated.body["data"]["tokens"], updated.body["data"]["keywords"]) == (9, ["zebra"])
    assert contents(found)[0] == "zebras have black and white stripes"


async def test_a_base_changes_its_technique() -> None:
    """Recordings 966 and 1046 to 1048: what is in it is found in the other way then."""
    model = {"embedding_model": EMBEDDING, "embedding_model_provider": PROVIDER}
    async with serving() as calls:
        dataset = await calls.dataset()
        await calls.done(dataset, await calls.write(dataset, "a", "the wombat digs"))
        path = f"/datasets/{dataset}"
        better = await calls.call(
            "PATCH", path, json={"indexing_technique": "high_quality"} | model
        )
        semantic = await calls.search(dataset, "wombats", search_method="semantic_search")
        lost = await calls.search(dataset, "wombat")
        back = await calls.call("PATCH", path, json={"indexing_technique": "economy"})
        keyword = await calls.search(dataset, "wombat")

    assert better.body["embedding_model"] == EMBEDDING
    assert contents(semantic) == contents(keyword) == ["the wombat digs"]
    assert contents(lost) == []
    assert back.body["embedding_model"] is None


async def test_the_first_document_brings_technique_and_default_model() -> None:
    async with serving() as calls:
        dataset = await calls.dataset(indexing_technique=None)
        await put(calls, dataset, "a", "wombat")
        shown = (await calls.call("GET", f"/datasets/{dataset}")).body
        found = await calls.search(dataset, "wombat", search_method="semantic_search")

    assert (shown["embedding_model_provider"], shown["embedding_model"]) == (PROVIDER, EMBEDDING)
    assert shown["embedding_available"] is True
    assert contents(found) == ["wombat"]


async def test_a_short_provider_of_a_document_is_kept_as_it_is() -> None:
    """So that one base says it is unavailable, while the list says it is not (reference 1.13)."""
    short = {"embedding_model": EMBEDDING, "embedding_model_provider": "stand-in"}
    async with serving() as calls:
        dataset = await calls.dataset(indexing_technique=None)
        await put(calls, dataset, "a", "wombat", **short)
        one = (await calls.call("GET", f"/datasets/{dataset}")).body
        (listed,) = (await calls.call("GET", "/datasets")).body["data"]

    assert (one["embedding_model_provider"], one["embedding_available"]) == ("stand-in", False)
    assert (listed["embedding_model_provider"], listed["embedding_available"]) == (PROVIDER, True)


async def test_vectors_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kb.db"
    async with serving(path) as calls:
        dataset, _ = await family(calls)
    async with serving(path) as calls:
        found = await calls.search(dataset, "burrows", search_method="semantic_search", top_k=1)

    assert contents(found) == ["the wombat digs\nits burrow is deep"]


async def test_settings_that_a_search_leaves_out_are_the_base_s() -> None:
    """Newer servers fill them up; older ones take what is sent for all there is."""
    stored = {
        "search_method": "semantic_search",
        "reranking_enable": False,
        "top_k": 1,
        "score_threshold_enabled": False,
    } | {"reranking_model": RERANK["reranking_model"]}
    for version, expected in [("1.16", True), ("1.12.1", False)]:
        async with serving(version=version, settings=OFFERED) as calls:
            dataset = await good(calls)
            body = {"retrieval_model": stored}
            await calls.call("PATCH", f"/datasets/{dataset}", json=body)
            reply = await calls.search(
                dataset, "wombat", search_method="semantic_search", reranking_enable=True
            )

        assert (scores(reply)[0] == 1) is expected
