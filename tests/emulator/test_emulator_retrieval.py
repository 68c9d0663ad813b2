"""High-quality bases: what the emulator finds in them, and by which model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from emulator_calls import Calls, Reply, serving

from dify_kb.emulator import Settings
from dify_kb.emulator.stand_ins import EMBEDDING, PROVIDER, RERANKING

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """the wombat digs a burrow
the quokka smiles at tourists
postgres is a relational database
redis keeps keys in memory"""
LINES: dict[str, object] = {
    "mode": "custom",
    "rules": {"pre_processing_rules": [], "segmentation": {"separator": "\n", "max_tokens": 100}},
}
FAMILY: dict[str, object] = {
    "mode": "hierarchical",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n\n", "max_tokens": 400},
        "parent_mode": "paragraph",
        "subchunk_segmentation": {"separator": "\n", "max_tokens": 60},
    },
}
PARENTS = "the wombat digs\nits burrow is deep\n\nthe quokka smiles\nat tourists"
OFFERED = Settings(models=True)
VERSIONS = ["1.4.3", "1.8.1", "1.12.1", "1.16"]
RERANK = {
    "reranking_enable": True,
    "reranking_mode": "reranking_model",
    "reranking_model": {
        "reranking_provider_name": PROVIDER,
        "reranking_model_name": RERANKING,
    },
}


def weights(vector: float, keyword: float) -> dict[str, object]:
    return {
        "reranking_mode": "weighted_score",
        "weights": {
            "weight_type": "customized",
            "vector_setting": {
                "vector_weight": vector,
                "embedding_provider_name": PROVIDER,
                "embedding_model_name": EMBEDDING,
            },
            "keyword_setting": {"keyword_weight": keyword},
        },
    }


async def good(calls: Calls, *texts: str, **fields: object) -> str:
    """Make a high-quality base of documents `0`, `1`, …, a chunk for each line."""
    dataset = await calls.dataset(indexing_technique="high_quality")
    for number, text in enumerate(texts or (TEXT,)):
        await put(calls, dataset, str(number), text, **fields)
    return dataset


async def put(calls: Calls, dataset: str, name: str, text: str, **fields: object) -> str:
    rule = {"indexing_technique": "high_quality", "process_rule": LINES}
    created = await calls.write(dataset, name, text, **(rule | fields))
    assert (await calls.done(dataset, created))["indexing_status"] == "completed", created.body
    return str(created.body["document"]["id"])


async def family(calls: Calls, text: str = PARENTS, **rules: object) -> tuple[str, str]:
    """Make a base of one document of parents and children; return their path."""
    dataset = await calls.dataset(indexing_technique="high_quality")
    rule: dict[str, Any] = FAMILY | {"rules": {**FAMILY["rules"], **rules}}  # type: ignore[dict-item]  # a mapping
    form = {"doc_form": "hierarchical_model", "process_rule": rule}
    document = await put(calls, dataset, "h.txt", text, **form)
    return dataset, f"/datasets/{dataset}/documents/{document}/segments"


def contents(reply: Reply) -> list[str]:
    return [record["segment"]["content"] for record in reply.body["records"]]


def scores(reply: Reply) -> list[float]:
    return [record["score"] for record in reply.body["records"]]


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


async def test_meaning_is_found_where_no_word_is_shared() -> None:
    async with serving() as calls:
        dataset = await good(calls)
        semantic = await calls.search(
            dataset, "wombats digging", search_method="semantic_search", top_k=2
        )
        words = await calls.search(dataset, "wombats digging", search_method="full_text_search")

    assert contents(semantic)[0] == "the wombat digs a burrow"
    assert len(contents(semantic)) == 2
    assert contents(words) == []


async def test_a_search_without_settings_has_four_hits() -> None:
    """The two that a new base shows are only shown (recording 930)."""
    async with serving() as calls:
        dataset = await good(calls, TEXT + "\nfive\nsix")
        shown = (await calls.call("GET", f"/datasets/{dataset}")).body["retrieval_model_dict"]
        reply = await calls.call("POST", f"/datasets/{dataset}/retrieve", json={"query": "wombat"})

    assert (shown["search_method"], shown["top_k"]) == ("semantic_search", 2)
    assert len(reply.body["records"]) == 4


async def test_a_threshold_holds_for_meanings_and_rerankers_but_not_for_words() -> None:
    high = {"score_threshold_enabled": True, "score_threshold": 0.99}
    async with serving() as calls:
        dataset = await good(calls)
        query = "postgres relational stores"
        semantic = await calls.search(dataset, query, search_method="semantic_search", **high)
        words = await calls.search(dataset, query, search_method="full_text_search", **high)
        reranked = await calls.search(
            dataset, query, search_method="full_text_search", **high, **RERANK
        )
        off = high | {"score_threshold_enabled": False}
        unbounded = await calls.search(dataset, query, search_method="semantic_search", **off)

    assert contents(semantic) == contents(reranked) == []
    assert contents(words) == ["postgres is a relational database"]
    assert 0 < scores(words)[0] < 1
    assert len(contents(unbounded)) == 4


@pytest.mark.parametrize("method", ["semantic_search", "full_text_search", "hybrid_search"])
async def test_a_reranker_scores_by_the_words_of_the_question(method: str) -> None:
    async with serving() as calls:
        dataset = await good(calls)
        reply = await calls.search(
            dataset, "relational wombat database", search_method=method, top_k=3, **RERANK
        )

    assert contents(reply)[:2] == ["postgres is a relational database", "the wombat digs a burrow"]
    assert scores(reply)[:2] == pytest.approx([2 / 3, 1 / 3])


async def test_weights_choose_between_meaning_and_words() -> None:
    async with serving() as calls:
        dataset = await good(calls, "wombats wombatting\na burrow of many words, with one wombat")
        by = {
            name: await calls.search(dataset, "wombat", search_method="hybrid_search", **settings)
            for name, settings in {"vector": weights(1, 0), "words": weights(0, 1)}.items()
        }

    assert contents(by["vector"])[0] == "wombats wombatting"
    assert contents(by["words"])[0].startswith("a burrow")
    assert all(scores(reply) == sorted(scores(reply), reverse=True) for reply in by.values())


@pytest.mark.parametrize(
    ("version", "plain", "weighted"),
    [("1.4.3", 2, 1), ("1.8.1", 2, 2), ("1.12.1", 1, 1), ("1.16", 1, 1)],
)
async def test_older_servers_list_a_chunk_once_for_each_half(
    version: str, plain: int, weighted: int
) -> None:
    """Recordings 933 and 937."""
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await good(calls)
        unranked = await calls.search(dataset, "wombat", search_method="hybrid_search")
        weighed = await calls.search(
            dataset, "wombat", search_method="hybrid_search", **weights(0.7, 0.3)
        )

    assert contents(unranked).count("the wombat digs a burrow") == plain
    assert contents(weighed).count("the wombat digs a burrow") == weighted


@pytest.mark.parametrize(
    ("version", "status", "count"),
    [("1.4.3", 500, 0), ("1.8.1", 500, 0), ("1.12.1", 200, 0), ("1.16", 200, 4)],
)
async def test_weights_of_a_guide_that_is_wrong(version: str, status: int, count: int) -> None:
    """`{"vector_search": 0.7}` stands in guides; no server takes it for weights."""
    wrong = {"reranking_mode": "weighted_score", "weights": {"vector_search": 0.7}}
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await good(calls)
        reply = await calls.search(dataset, "wombat", search_method="hybrid_search", **wrong)

    assert reply.status == status
    assert len(reply.body.get("records", ())) == count


@pytest.mark.parametrize(
    ("version", "status"), [("1.4.3", 400), ("1.8.1", 400), ("1.12.1", 200), ("1.16", 400)]
)
async def test_a_reranker_that_fails_in_a_hybrid_search(version: str, status: int) -> None:
    """An empty answer of 1.12 does not prove that nothing is there (reference 1.5)."""
    model = {"reranking_provider_name": PROVIDER, "reranking_model_name": "nope"}
    wanted = RERANK | {"reranking_model": model}
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await good(calls)
        hybrid = await calls.search(dataset, "wombat", search_method="hybrid_search", **wanted)
        alone = await calls.search(dataset, "wombat", search_method="semantic_search", **wanted)

    assert hybrid.status == status
    assert not hybrid.body.get("records")
    assert (alone.status, alone.body["message"]) == (400, "Model nope does not exist.")


@pytest.mark.parametrize("version", VERSIONS)
async def test_weights_count_only_where_nothing_reranks(version: str) -> None:
    """A hybrid search either reranks or weighs (findings 11.6)."""
    both = weights(0, 1) | RERANK
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await good(calls)
        reply = await calls.search(dataset, "wombat burrow", search_method="hybrid_search", **both)

    assert scores(reply)[0] == 1


@pytest.mark.parametrize("top_k", [0, 1, 3, -1])
async def test_top_k_bounds_every_way_of_searching(top_k: int) -> None:
    """A negative one counts from the end, as in Python (findings 8.13)."""
    async with serving() as calls:
        dataset = await good(calls, "wombat a\nwombat b\nwombat c\nwombat d")
        counts = [
            len(contents(await calls.search(dataset, "wombat", search_method=method, top_k=top_k)))
            for method in ("semantic_search", "full_text_search")
        ]

    assert counts == [len("abcd"[:top_k])] * 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_economy_base_has_nothing_but_keywords(version: str) -> None:
    """Recordings 1044 and 1045, with a model; without one it is said that there is none."""
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await calls.dataset()
        await calls.done(dataset, await calls.write(dataset, "a", "wombat"))
        semantic = await calls.search(dataset, "wombat", search_method="semantic_search")
        keyword = await calls.search(dataset, "wombat")

    assert semantic.status == 400
    assert "does not exist" in semantic.body["message"]
    assert contents(keyword) == ["wombat"]


@pytest.mark.parametrize(("version", "found"), [(v, v == "1.4.3") for v in VERSIONS])
async def test_only_the_oldest_finds_keywords_in_a_high_quality_base(
    version: str, *, found: bool
) -> None:
    """Recording 934."""
    async with serving(version=version, settings=OFFERED) as calls:
        dataset = await good(calls)
        reply = await calls.search(dataset, "wombat")

    assert bool(contents(reply)) is found


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


async def test_what_is_disabled_or_deleted_is_not_found() -> None:
    async with serving() as calls:
        dataset = await good(calls, "wombat one\nwombat two", "wombat three", "wombat four")
        rows = (await calls.call("GET", f"/datasets/{dataset}/documents")).body["data"]
        ids = {row["name"]: row["id"] for row in rows}
        documents = f"/datasets/{dataset}/documents"
        segments = (await calls.call("GET", f"{documents}/{ids['0']}/segments")).body["data"]
        await calls.call("DELETE", f"{documents}/{ids['0']}/segments/{segments[0]['id']}")
        off = {"document_ids": [ids["1"]]}
        await calls.call("PATCH", f"{documents}/status/disable", json=off)
        await calls.call("DELETE", f"{documents}/{ids['2']}")
        found = {
            method: sorted(contents(await calls.search(dataset, "wombat", search_method=method)))
            for method in ("semantic_search", "full_text_search", "hybrid_search")
        }

    assert {*map(tuple, found.values())} == {("wombat two",)}


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
async def test_filters_hold_for_every_way_of_searching(
    operator: str, value: object, names: str
) -> None:
    conditions = [{"name": "town", "comparison_operator": operator, "value": value}]
    asked = {"metadata_filtering_conditions": {"conditions": conditions}}
    async with serving() as calls:
        dataset = await good(calls)
        await _towns(calls, dataset, a="paris", b="tokyo", c=None)
        found = {
            method: {
                record["segment"]["document"]["name"]
                for record in (
                    await calls.search(dataset, "lives", search_method=method, **asked)
                ).body["records"]
            }
            for method in ("semantic_search", "full_text_search", "hybrid_search")
        }

    allowed = {*names} | ({"0"} if operator == "empty" else set())
    assert found["full_text_search"] == {*names}
    assert found["semantic_search"] == found["hybrid_search"] == allowed


async def _towns(calls: Calls, dataset: str, **towns: str | None) -> None:
    field = {"type": "string", "name": "town"}
    made = (await calls.call("POST", f"/datasets/{dataset}/metadata", json=field)).body
    for name, town in towns.items():
        document = await put(calls, dataset, name, "an animal lives here")
        if town is None:
            continue
        values = [{"id": made["id"], "name": "town", "value": town}]
        body = {"operation_data": [{"document_id": document, "metadata_list": values}]}
        await calls.call("POST", f"/datasets/{dataset}/documents/metadata", json=body)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_parent_is_found_by_its_best_child(version: str) -> None:
    async with serving(version=version, settings=OFFERED) as calls:
        dataset, _ = await family(calls)
        semantic = await calls.search(
            dataset, "its deep burrow", search_method="semantic_search", top_k=4
        )
        words = await calls.search(dataset, "tourists", search_method="full_text_search")

    first, second = semantic.body["records"]
    assert first["segment"]["content"] == "the wombat digs\nits burrow is deep"
    assert first["child_chunks"][0]["content"] == "its burrow is deep"
    assert len(first["child_chunks"]) == len(second["child_chunks"]) == 2
    assert first["score"] == max(child["score"] for child in first["child_chunks"])
    (record,) = words.body["records"]
    assert [child["content"] for child in record["child_chunks"]] == ["at tourists"]


async def test_a_whole_document_is_found_by_its_children() -> None:
    """Only the list of its children names them (recording 1037)."""
    async with serving() as calls:
        dataset, path = await family(calls, parent_mode="full-doc")
        (segment,) = (await calls.call("GET", path)).body["data"]
        children = await calls.call("GET", f"{path}/{segment['id']}/child_chunks")
        found = await calls.search(dataset, "tourists", search_method="semantic_search", top_k=1)

    assert segment["content"] == PARENTS
    assert segment["child_chunks"] == []
    assert children.body["total"] == 4
    assert contents(found) == [PARENTS]


async def test_children_are_found_as_they_are_written() -> None:
    async with serving() as calls:
        dataset, path = await family(calls)
        (segment, _) = (await calls.call("GET", path)).body["data"]
        children = f"{path}/{segment['id']}/child_chunks"
        made = (await calls.call("POST", children, json={"content": "giraffes"})).body["data"]
        added = await _children_found(calls, dataset, "giraffes")
        lions = {"content": "lions"}
        await calls.call("PATCH", f"{children}/{made['id']}", json=lions)
        changed = [await _children_found(calls, dataset, ask) for ask in ("giraffes", "lions")]
        await calls.call("DELETE", f"{children}/{made['id']}")
        gone = await _children_found(calls, dataset, "lions")

    assert (added, changed, gone) == (["giraffes"], [[], ["lions"]], [])


async def _children_found(calls: Calls, dataset: str, query: str) -> list[str]:
    reply = await calls.search(dataset, query, search_method="full_text_search")
    return [
        child["content"] for record in reply.body["records"] for child in record["child_chunks"]
    ]


async def test_a_parent_keeps_its_children_unless_new_ones_are_asked_for() -> None:
    """Recordings 1026 to 1032."""
    async with serving() as calls:
        dataset, path = await family(calls)
        new = {"segments": [{"content": "new parent\nwith two lines"}]}
        (made,) = (await calls.call("POST", path, json=new)).body["data"]
        kept = await _update(calls, path, made, content="kept")
        cut = await _update(
            calls, path, made, content="cut\ninto others", regenerate_child_chunks=True
        )
        same = await _update(calls, path, made, regenerate_child_chunks=True)
        found = [await _children_found(calls, dataset, ask) for ask in ("parent", "others")]

    assert _texts(made) == _texts(kept) == ["new parent", "with two lines"]
    assert (kept["content"], kept["keywords"]) == ("kept", [])
    assert _texts(cut) == _texts(same) == ["cut", "into others"]
    assert {child["id"] for child in cut["child_chunks"]}.isdisjoint(
        child["id"] for child in same["child_chunks"]
    )
    assert {child["type"] for child in same["child_chunks"]} == {"automatic"}
    assert found == [[], ["into others"]]


async def _update(calls: Calls, path: str, segment: Any, **changes: object) -> Any:
    reply = await calls.call("POST", f"{path}/{segment['id']}", json={"segment": changes})
    return reply.body["data"]


def _texts(segment: Any) -> list[str]:
    return [child["content"] for child in segment["child_chunks"]]


async def test_a_disabled_parent_is_not_found_by_its_children() -> None:
    async with serving() as calls:
        dataset, path = await family(calls)
        (segment, _) = (await calls.call("GET", path)).body["data"]
        await _update(calls, path, segment, enabled=False)
        off = await _children_found(calls, dataset, "wombat")
        await _update(calls, path, segment, enabled=True)
        on = await _children_found(calls, dataset, "wombat")
        await calls.call("DELETE", f"{path}/{segment['id']}")
        gone = await _children_found(calls, dataset, "wombat")

    assert (off, on, gone) == ([], ["the wombat digs"], [])


async def test_parents_of_an_economy_base_complete_and_are_never_found() -> None:
    """What a wrong choice of the technique comes to, without an error (reference of 1.12)."""
    async with serving() as calls:
        dataset = await calls.dataset()
        form = {"doc_form": "hierarchical_model", "process_rule": FAMILY}
        created = await calls.write(dataset, "h", PARENTS, **form)
        entry = await calls.done(dataset, created)
        found = await calls.search(dataset, "wombat")
        path = f"/datasets/{dataset}/documents/{created.body['document']['id']}/segments"
        made = await calls.call("POST", path, json={"segments": [{"content": "more"}]})

    assert (entry["indexing_status"], entry["error"]) == ("completed", None)
    assert (entry["completed_segments"], entry["total_segments"]) == (0, 2)
    assert contents(found) == []
    (segment,) = made.body["data"]
    assert segment["error"] == "The knowledge base index technique is not high quality!"


async def test_an_automatic_rule_gives_no_parents() -> None:
    async with serving() as calls:
        dataset = await calls.dataset(indexing_technique="high_quality")
        created = await calls.write(
            dataset, "a", indexing_technique="high_quality", doc_form="hierarchical_model"
        )
        entry = await calls.done(dataset, created)

    assert (entry["indexing_status"], entry["total_segments"]) == ("completed", 0)


async def test_questions_and_answers_are_found_by_the_question() -> None:
    """Without a model that asks, a document has only the questions that are written into it."""
    async with serving() as calls:
        dataset = await calls.dataset(indexing_technique="high_quality")
        document = await put(calls, dataset, "qa", "some text", doc_form="qa_model")
        path = f"/datasets/{dataset}/documents/{document}/segments"
        empty = (await calls.call("GET", path)).body["total"]
        asked = {"content": "What is celery?", "answer": "A task queue"}
        await calls.call("POST", path, json={"segments": [asked]})
        found = await calls.search(dataset, "celery", search_method="semantic_search")

    assert empty == 0
    (record,) = found.body["records"]
    assert (record["segment"]["content"], record["segment"]["answer"]) == (*asked.values(),)


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
