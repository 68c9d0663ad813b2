"""Parents and their children in searches, and chunks of questions and answers."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_calls import Calls, serving
from emulator_retrievals import FAMILY, OFFERED, PARENTS, VERSIONS, contents, family, put


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
