"""Parent and child chunks in searches, and Q&A chunks."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_client import EmulatorClient, run_emulator
from emulator_high_quality import (
    PARENT_CHILD_RULE,
    PARENT_CHILD_TEXT,
    VERSIONS,
    WITH_MODELS,
    add_high_quality_document,
    create_parent_child_dataset,
    record_contents,
)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_parent_is_found_by_its_best_child(version: str) -> None:
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        dataset, _ = await create_parent_child_dataset(client)
        semantic = await client.retrieve(
            dataset, "its deep burrow", search_method="semantic_search", top_k=4
        )
        words = await client.retrieve(dataset, "tourists", search_method="full_text_search")

    first, second = semantic.body["records"]
    assert first["segment"]["content"] == "the wombat digs\nits burrow is deep"
    assert first["child_chunks"][0]["content"] == "its burrow is deep"
    assert len(first["child_chunks"]) == len(second["child_chunks"]) == 2
    assert first["score"] == max(child["score"] for child in first["child_chunks"])
    (record,) = words.body["records"]
    assert [child["content"] for child in record["child_chunks"]] == ["at tourists"]


async def test_a_whole_document_is_found_by_its_children() -> None:
    """Only the list of child chunks returns its children (recording 1037)."""
    async with run_emulator() as client:
        dataset, path = await create_parent_child_dataset(client, parent_mode="full-doc")
        (segment,) = (await client.request("GET", path)).body["data"]
        children = await client.request("GET", f"{path}/{segment['id']}/child_chunks")
        hits = await client.retrieve(dataset, "tourists", search_method="semantic_search", top_k=1)

    assert segment["content"] == PARENT_CHILD_TEXT
    assert segment["child_chunks"] == []
    assert children.body["total"] == 4
    assert record_contents(hits) == [PARENT_CHILD_TEXT]


async def test_child_chunk_changes_are_searchable_immediately() -> None:
    async with run_emulator() as client:
        dataset, path = await create_parent_child_dataset(client)
        (segment, _) = (await client.request("GET", path)).body["data"]
        children = f"{path}/{segment['id']}/child_chunks"
        created = (await client.request("POST", children, json={"content": "giraffes"})).body[
            "data"
        ]
        added = await _find_children(client, dataset, "giraffes")
        lions = {"content": "lions"}
        await client.request("PATCH", f"{children}/{created['id']}", json=lions)
        changed = [await _find_children(client, dataset, ask) for ask in ("giraffes", "lions")]
        await client.request("DELETE", f"{children}/{created['id']}")
        gone = await _find_children(client, dataset, "lions")

    assert (added, changed, gone) == (["giraffes"], [[], ["lions"]], [])


async def _find_children(client: EmulatorClient, dataset: str, query: str) -> list[str]:
    response = await client.retrieve(dataset, query, search_method="full_text_search")
    return [
        child["content"] for record in response.body["records"] for child in record["child_chunks"]
    ]


async def test_parent_keeps_its_children_unless_regeneration_is_requested() -> None:
    """Recordings 1026 to 1032."""
    async with run_emulator() as client:
        dataset, path = await create_parent_child_dataset(client)
        new = {"segments": [{"content": "new parent\nwith two lines"}]}
        (created,) = (await client.request("POST", path, json=new)).body["data"]
        kept = await _update(client, path, created, content="kept")
        cut = await _update(
            client, path, created, content="cut\ninto others", regenerate_child_chunks=True
        )
        same = await _update(client, path, created, regenerate_child_chunks=True)
        hits = [await _find_children(client, dataset, ask) for ask in ("parent", "others")]

    assert _child_texts(created) == _child_texts(kept) == ["new parent", "with two lines"]
    assert (kept["content"], kept["keywords"]) == ("kept", [])
    assert _child_texts(cut) == _child_texts(same) == ["cut", "into others"]
    assert {child["id"] for child in cut["child_chunks"]}.isdisjoint(
        child["id"] for child in same["child_chunks"]
    )
    assert {child["type"] for child in same["child_chunks"]} == {"automatic"}
    assert hits == [[], ["into others"]]


async def _update(client: EmulatorClient, path: str, segment: Any, **changes: object) -> Any:
    response = await client.request("POST", f"{path}/{segment['id']}", json={"segment": changes})
    return response.body["data"]


def _child_texts(segment: Any) -> list[str]:
    return [child["content"] for child in segment["child_chunks"]]


async def test_a_disabled_parent_is_not_found_by_its_children() -> None:
    async with run_emulator() as client:
        dataset, path = await create_parent_child_dataset(client)
        (segment, _) = (await client.request("GET", path)).body["data"]
        await _update(client, path, segment, enabled=False)
        off = await _find_children(client, dataset, "wombat")
        await _update(client, path, segment, enabled=True)
        on = await _find_children(client, dataset, "wombat")
        await client.request("DELETE", f"{path}/{segment['id']}")
        gone = await _find_children(client, dataset, "wombat")

    assert (off, on, gone) == ([], ["the wombat digs"], [])


async def test_parents_in_an_economy_dataset_complete_but_are_never_found() -> None:
    """A wrong choice of technique has this effect, without an error (reference of 1.12)."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        form = {"doc_form": "hierarchical_model", "process_rule": PARENT_CHILD_RULE}
        created = await client.create_by_text(dataset, "h", PARENT_CHILD_TEXT, **form)
        entry = await client.wait_until_indexed(dataset, created)
        hits = await client.retrieve(dataset, "wombat")
        path = f"/datasets/{dataset}/documents/{created.body['document']['id']}/segments"
        added_segment = await client.request("POST", path, json={"segments": [{"content": "more"}]})

    assert (entry["indexing_status"], entry["error"]) == ("completed", None)
    assert (entry["completed_segments"], entry["total_segments"]) == (0, 2)
    assert record_contents(hits) == []
    (segment,) = added_segment.body["data"]
    assert segment["error"] == "The knowledge base index technique is not high quality!"


async def test_automatic_rule_creates_no_parents() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset(indexing_technique="high_quality")
        created = await client.create_by_text(
            dataset, "a", indexing_technique="high_quality", doc_form="hierarchical_model"
        )
        entry = await client.wait_until_indexed(dataset, created)

    assert (entry["indexing_status"], entry["total_segments"]) == ("completed", 0)


@pytest.mark.parametrize(("version", "parents"), [("1.12.1", 0), ("1.14.2", 2), ("1.16", 2)])
async def test_rule_without_parent_mode_means_paragraphs_since_1_13(
    version: str, parents: int
) -> None:
    """Recordings 2091 and 2092."""
    async with run_emulator(version=version, settings=WITH_MODELS) as client:
        _, path = await create_parent_child_dataset(client, parent_mode=None)
        listing = await client.request("GET", path)

    assert listing.body["total"] == parents


async def test_questions_and_answers_are_found_by_the_question() -> None:
    """Without a model that generates questions, a document has only those added by hand."""
    async with run_emulator() as client:
        dataset = await client.create_dataset(indexing_technique="high_quality")
        document = await add_high_quality_document(
            client, dataset, "qa", "some text", doc_form="qa_model"
        )
        path = f"/datasets/{dataset}/documents/{document}/segments"
        empty = (await client.request("GET", path)).body["total"]
        question = {"content": "What is celery?", "answer": "A task queue"}
        await client.request("POST", path, json={"segments": [question]})
        hits = await client.retrieve(dataset, "celery", search_method="semantic_search")

    assert empty == 0
    (record,) = hits.body["records"]
    assert (record["segment"]["content"], record["segment"]["answer"]) == (*question.values(),)
