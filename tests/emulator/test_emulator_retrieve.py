"""Searches in high-quality datasets: methods, models, thresholds and filters."""

from __future__ import annotations

import pytest
from emulator_client import EmulatorClient, run_emulator
from emulator_high_quality import (
    RERANK,
    TEXT,
    VERSIONS,
    WITH_MODELS,
    add_high_quality_document,
    create_high_quality_dataset,
    record_contents,
    record_scores,
)

from dify_kb.emulator.stub_models import EMBEDDING_MODEL, PROVIDER_NAME


def build_weights(vector: float, keyword: float) -> dict[str, object]:
    return {
        "reranking_mode": "weighted_score",
        "weights": {
            "weight_type": "customized",
            "vector_setting": {
                "vector_weight": vector,
                "embedding_provider_name": PROVIDER_NAME,
                "embedding_model_name": EMBEDDING_MODEL,
            },
            "keyword_setting": {"keyword_weight": keyword},
        },
    }


async def test_semantic_search_needs_no_shared_word() -> None:
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client)
        semantic = await client.retrieve(
            dataset, "wombats digging", search_method="semantic_search", top_k=2
        )
        words = await client.retrieve(dataset, "wombats digging", search_method="full_text_search")

    assert record_contents(semantic)[0] == "the wombat digs a burrow"
    assert len(record_contents(semantic)) == 2
    assert record_contents(words) == []


async def test_a_search_without_settings_has_four_hits() -> None:
    """The `top_k` of 2 that a new dataset shows is not used (recording 930)."""
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client, TEXT + "\nfive\nsix")
        shown = (await client.request("GET", f"/datasets/{dataset}")).body["retrieval_model_dict"]
        response = await client.request(
            "POST", f"/datasets/{dataset}/retrieve", json={"query": "wombat"}
        )

    assert (shown["search_method"], shown["top_k"]) == ("semantic_search", 2)
    assert len(response.body["records"]) == 4


async def test_threshold_applies_to_vectors_and_rerankers_but_not_to_full_text() -> None:
    high = {"score_threshold_enabled": True, "score_threshold": 0.99}
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client)
        query = "postgres relational stores"
        semantic = await client.retrieve(dataset, query, search_method="semantic_search", **high)
        words = await client.retrieve(dataset, query, search_method="full_text_search", **high)
        reranked = await client.retrieve(
            dataset, query, search_method="full_text_search", **high, **RERANK
        )
        off = high | {"score_threshold_enabled": False}
        unbounded = await client.retrieve(dataset, query, search_method="semantic_search", **off)

    assert record_contents(semantic) == record_contents(reranked) == []
    assert record_contents(words) == ["postgres is a relational database"]
    assert 0 < record_scores(words)[0] < 1
    assert len(record_contents(unbounded)) == 4


@pytest.mark.parametrize("method", ["semantic_search", "full_text_search", "hybrid_search"])
async def test_a_reranker_scores_by_the_words_of_the_query(method: str) -> None:
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client)
        response = await client.retrieve(
            dataset, "relational wombat database", search_method=method, top_k=3, **RERANK
        )

    assert record_contents(response)[:2] == [
        "postgres is a relational database",
        "the wombat digs a burrow",
    ]
    assert record_scores(response)[:2] == pytest.approx([2 / 3, 1 / 3])


async def test_full_text_search_needs_all_words_where_recorded() -> None:
    """Recordings 1859 and 1941, with pgvector; stop words do not count."""
    found = {}
    for version in ("1.14.2", "1.16"):
        async with run_emulator(version=version) as client:
            dataset = await create_high_quality_dataset(client)
            for query in ("the relational database", "relational wombat"):
                response = await client.retrieve(dataset, query, search_method="full_text_search")
                found[version, query] = len(record_contents(response))

    assert [*found.values()] == [1, 0, 3, 2]


async def test_weights_choose_between_vectors_and_keywords() -> None:
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(
            client, "wombats wombatting\na burrow of many words, with one wombat"
        )
        by = {
            name: await client.retrieve(
                dataset, "wombat", search_method="hybrid_search", **settings
            )
            for name, settings in {
                "vector": build_weights(1, 0),
                "words": build_weights(0, 1),
            }.items()
        }

    assert record_contents(by["vector"])[0] == "wombats wombatting"
    assert record_contents(by["words"])[0].startswith("a burrow")
    assert all(
        record_scores(response) == sorted(record_scores(response), reverse=True)
        for response in by.values()
    )


@pytest.mark.parametrize(
    ("version", "plain", "weighted"),
    [("1.4.3", 2, 1), ("1.8.1", 2, 2), ("1.12.1", 1, 1), ("1.16", 1, 1)],
)
async def test_older_servers_list_a_chunk_once_for_each_half(
    version: str, plain: int, weighted: int
) -> None:
    """Recordings 933 and 937."""
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(client)
        unranked = await client.retrieve(dataset, "wombat", search_method="hybrid_search")
        weighed = await client.retrieve(
            dataset, "wombat", search_method="hybrid_search", **build_weights(0.7, 0.3)
        )

    assert record_contents(unranked).count("the wombat digs a burrow") == plain
    assert record_contents(weighed).count("the wombat digs a burrow") == weighted


@pytest.mark.parametrize(
    ("version", "status", "count"),
    [("1.4.3", 500, 0), ("1.8.1", 500, 0), ("1.12.1", 200, 0), ("1.16", 200, 4)],
)
async def test_malformed_weights_are_handled_by_version(
    version: str, status: int, count: int
) -> None:
    """Some guides use `{"vector_search": 0.7}`; no server accepts this as weights."""
    wrong = {"reranking_mode": "weighted_score", "weights": {"vector_search": 0.7}}
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(client)
        response = await client.retrieve(dataset, "wombat", search_method="hybrid_search", **wrong)

    assert response.status == status
    assert len(response.body.get("records", ())) == count


@pytest.mark.parametrize(
    ("version", "status"), [("1.4.3", 400), ("1.8.1", 400), ("1.12.1", 200), ("1.16", 400)]
)
async def test_failed_reranker_in_a_hybrid_search_is_handled_by_version(
    version: str, status: int
) -> None:
    """An empty result of 1.12 does not prove that nothing matches (reference 1.5)."""
    model = {"reranking_provider_name": PROVIDER_NAME, "reranking_model_name": "nope"}
    wanted = RERANK | {"reranking_model": model}
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(client)
        hybrid = await client.retrieve(dataset, "wombat", search_method="hybrid_search", **wanted)
        alone = await client.retrieve(dataset, "wombat", search_method="semantic_search", **wanted)

    assert hybrid.status == status
    assert not hybrid.body.get("records")
    assert (alone.status, alone.body["message"]) == (400, "Model nope does not exist.")


@pytest.mark.parametrize("version", VERSIONS)
async def test_reranking_model_overrides_weights(version: str) -> None:
    """A hybrid search uses either a reranking model or weights (findings 11.6)."""
    both = build_weights(0, 1) | RERANK
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(client)
        response = await client.retrieve(
            dataset, "wombat burrow", search_method="hybrid_search", **both
        )

    assert record_scores(response)[0] == 1


@pytest.mark.parametrize("method", ["semantic_search", "full_text_search", "hybrid_search"])
@pytest.mark.parametrize("top_k", [0, -1])
async def test_top_k_below_1_is_refused_since_1_14(method: str, top_k: int) -> None:
    async with run_emulator(version="1.14.2") as client:
        dataset = await create_high_quality_dataset(client, "wombat a")
        response = await client.retrieve(dataset, "wombat", search_method=method, top_k=top_k)

    assert (response.status, response.body["message"]) == (400, "top_k must be a positive integer")


@pytest.mark.parametrize("top_k", [0, 1, 3, -1])
async def test_top_k_limits_every_search_method(top_k: int) -> None:
    """A negative `top_k` counts from the end, as in Python (measured, 1.12.1)."""
    async with run_emulator(version="1.12.1", settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(
            client, "wombat a\nwombat b\nwombat c\nwombat d"
        )
        counts = [
            len(
                record_contents(
                    await client.retrieve(dataset, "wombat", search_method=method, top_k=top_k)
                )
            )
            for method in ("semantic_search", "full_text_search")
        ]

    assert counts == [len("abcd"[:top_k])] * 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_economy_dataset_supports_keyword_search_only(version: str) -> None:
    """Recordings 1044 and 1045, with a model; without one, the error is about the missing model."""
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await client.create_dataset()
        await client.wait_until_indexed(
            dataset, await client.create_by_text(dataset, "a", "wombat")
        )
        semantic = await client.retrieve(dataset, "wombat", search_method="semantic_search")
        keyword = await client.retrieve(dataset, "wombat")

    assert semantic.status == 400
    assert "does not exist" in semantic.body["message"]
    assert record_contents(keyword) == ["wombat"]


@pytest.mark.parametrize(("version", "found"), [(v, v == "1.4.3") for v in VERSIONS])
async def test_only_the_oldest_version_searches_keywords_in_a_high_quality_dataset(
    version: str, *, found: bool
) -> None:
    """Recording 934."""
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset = await create_high_quality_dataset(client)
        response = await client.retrieve(dataset, "wombat")

    assert bool(record_contents(response)) is found


async def test_disabled_and_deleted_documents_are_not_found() -> None:
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(
            client, "wombat one\nwombat two", "wombat three", "wombat four"
        )
        rows = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
        ids = {row["name"]: row["id"] for row in rows}
        documents = f"/datasets/{dataset}/documents"
        segments = (await client.request("GET", f"{documents}/{ids['0']}/segments")).body["data"]
        await client.request("DELETE", f"{documents}/{ids['0']}/segments/{segments[0]['id']}")
        off = {"document_ids": [ids["1"]]}
        await client.request("PATCH", f"{documents}/status/disable", json=off)
        await client.request("DELETE", f"{documents}/{ids['2']}")
        hits = {
            method: sorted(
                record_contents(await client.retrieve(dataset, "wombat", search_method=method))
            )
            for method in ("semantic_search", "full_text_search", "hybrid_search")
        }

    assert {*map(tuple, hits.values())} == {("wombat two",)}


@pytest.mark.parametrize(
    ("operator", "value", "names"),
    [
        ("contains", "ari", "a"),
        ("not contains", "ari", "b"),
        ("start with", "par", "a"),
        ("end with", "yo", "b"),
        ("is", "paris", "a"),
        ("is not", "paris", "b"),
        ("empty", None, "c"),
        ("not empty", None, "ab"),
        ("in", ["paris", "rome"], "a"),
        ("not in", ["paris", "rome"], "b"),
    ],
)
async def test_filters_apply_to_every_search_method(
    operator: str, value: object, names: str
) -> None:
    conditions = [{"name": "town", "comparison_operator": operator, "value": value}]
    filters = {"metadata_filtering_conditions": {"conditions": conditions}}
    async with run_emulator() as client:
        dataset = await create_high_quality_dataset(client)
        await _set_towns(client, dataset, a="paris", b="tokyo", c=None)
        hits = {
            method: {
                record["segment"]["document"]["name"]
                for record in (
                    await client.retrieve(dataset, "lives", search_method=method, **filters)
                ).body["records"]
            }
            for method in ("semantic_search", "full_text_search", "hybrid_search")
        }

    allowed = {*names} | ({"0"} if operator == "empty" else set())
    assert hits["full_text_search"] == {*names}
    assert hits["semantic_search"] == hits["hybrid_search"] == allowed


async def _set_towns(client: EmulatorClient, dataset: str, **towns: str | None) -> None:
    field = {"type": "string", "name": "town"}
    created = (await client.request("POST", f"/datasets/{dataset}/metadata", json=field)).body
    for name, town in towns.items():
        document = await add_high_quality_document(client, dataset, name, "an animal lives here")
        if town is None:
            continue
        values = [{"id": created["id"], "name": "town", "value": town}]
        body = {"operation_data": [{"document_id": document, "metadata_list": values}]}
        await client.request("POST", f"/datasets/{dataset}/documents/metadata", json=body)
