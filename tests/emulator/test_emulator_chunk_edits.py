"""Edits that an import of an archive relies on: parents, children, Q&A pairs and chunk flags.

All of this was measured on 1.4.3, 1.12.1 and 1.14.2.
"""

from __future__ import annotations

from typing import Any

import pytest
from emulator_client import EmulatorClient, Response, run_emulator

from dify_kb.emulator import VERSIONS, Settings

every_version = pytest.mark.parametrize("version", VERSIONS)
with_models = Settings(models=True)


def build_parent_rule(mode: str) -> dict[str, Any]:
    return {
        "mode": "hierarchical",
        "rules": {
            "pre_processing_rules": [],
            "segmentation": {"separator": "PPP", "max_tokens": 4000},
            "parent_mode": mode,
            "subchunk_segmentation": {"separator": "KKK", "max_tokens": 4000},
        },
    }


LINES: dict[str, Any] = {
    "mode": "custom",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "###", "max_tokens": 4000},
    },
}


async def index_text(client: EmulatorClient, text: str, technique: str, **fields: Any) -> str:
    """Create and index a document; return the path of its segments."""
    dataset = await client.create_dataset(technique, indexing_technique=technique)
    created = await client.create_by_text(
        dataset, "a.txt", text, **({"indexing_technique": technique} | fields)
    )
    entry = await client.wait_until_indexed(dataset, created)
    assert entry["indexing_status"] == "completed", entry["error"]
    return f"/datasets/{dataset}/documents/{created.body['document']['id']}/segments"


async def index_parents(client: EmulatorClient, text: str, mode: str = "paragraph") -> str:
    fields = {"doc_form": "hierarchical_model", "process_rule": build_parent_rule(mode)}
    return await index_text(client, text, "high_quality", **fields)


async def list_segments(client: EmulatorClient, path: str) -> Any:
    return (await client.request("GET", path)).body["data"]


async def list_children(client: EmulatorClient, segment: str) -> list[str]:
    response = await client.request("GET", f"{segment}/child_chunks")
    return [child["content"] for child in response.body["data"]]


async def update(client: EmulatorClient, segment: str, **changes: object) -> Response:
    return await client.request("POST", segment, json={"segment": changes})


@every_version
async def test_parents_keep_the_separator_of_their_children(version: str) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_parents(client, 'c1KKKc2PPP.d1KKK。d2PPP#e1KKK"e2')
        parents = await list_segments(client, path)
        children = [await list_children(client, f"{path}/{parent['id']}") for parent in parents]

    assert [parent["content"] for parent in parents] == ["c1KKKc2", "d1KKK。d2", '#e1KKK"e2']
    assert children == [["c1", "c2"], ["d1", "d2"], ["#e1", '"e2']]


@every_version
async def test_parent_keeps_its_children_until_they_are_regenerated(version: str) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_parents(client, "c1KKKc2")
        (parent,) = await list_segments(client, path)
        segment = f"{path}/{parent['id']}"
        await update(client, segment, content="c1 c2")
        kept = await list_children(client, segment)
        added = [
            await client.request("POST", f"{segment}/child_chunks", json={"content": text})
            for text in (". x", "# x")
        ]
        await update(client, segment, content="n1KKKn2", regenerate_child_chunks=True)
        replaced = await list_children(client, segment)
        new = await client.request("POST", path, json={"segments": [{"content": "p1KKKp2"}]})
        split = await list_children(client, f"{path}/{new.body['data'][0]['id']}")

    assert kept == ["c1", "c2"]
    shown = [response.body["data"] for response in added]
    assert [(child["content"], child["position"], child["type"]) for child in shown] == [
        (". x", 3, "customized"),
        ("# x", 4, "customized"),
    ]
    assert replaced == ["n1", "n2"]
    assert split == ["p1", "p2"]


@every_version
async def test_whole_document_lists_its_children_only_by_their_route(version: str) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_parents(client, ".a1KKKb1KKKc1", "full-doc")
        (parent,) = await list_segments(client, path)
        await update(client, f"{path}/{parent['id']}", content="whole")
        children = await list_children(client, f"{path}/{parent['id']}")

    assert (parent["content"], parent["child_chunks"]) == (".a1KKKb1KKKc1", [])
    assert children == ["a1", "b1", "c1"]


@every_version
@pytest.mark.parametrize("technique", ["economy", "high_quality"])
@pytest.mark.parametrize("text", ["", " "])
async def test_pairs_are_added_to_a_document_without_text(
    version: str, technique: str, text: str
) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_text(client, text, technique, doc_form="qa_model")
        pairs = [{"content": "q1", "answer": "a1"}, {"content": "#q2", "answer": "a22"}]
        before = await list_segments(client, path)
        added = await client.request("POST", path, json={"segments": pairs})
        refused = await client.request("POST", path, json={"segments": [{"content": "q"}]})

    assert before == []
    assert [
        (pair["content"], pair["answer"], pair["position"], pair["word_count"])
        for pair in added.body["data"]
    ] == [("q1", "a1", 1, 4), ("#q2", "a22", 2, 6)]
    assert refused.status == 400


@every_version
async def test_update_without_the_answer_loses_it(version: str) -> None:
    """New content fails since 1.11; enabling a chunk only clears its answer (2008)."""
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_text(client, "", "high_quality", doc_form="qa_model")
        pairs = [{"content": "q1", "answer": "a1"}, {"content": "q2", "answer": "a2"}]
        added = (await client.request("POST", path, json={"segments": pairs})).body["data"]
        one, two = (f"{path}/{pair['id']}" for pair in added)
        enabled = await update(client, one, enabled=True)
        changed = await update(client, two, content="new")
        repaired = await update(client, one, content="q1", answer="a1")

    assert (enabled.status, enabled.body["data"]["answer"]) == (200, None)
    pair = changed.body["data"]
    failed = version not in {"1.4.3", "1.8.1"}
    assert (changed.status, pair["answer"]) == (200, None)
    assert (pair["status"], pair["enabled"]) == (
        ("error", False) if failed else ("completed", True)
    )
    assert repaired.body["data"]["answer"] == "a1"


@every_version
async def test_request_that_disables_a_chunk_changes_nothing_else(version: str) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_text(client, "one###two", "economy", process_rule=LINES)
        one = f"{path}/{(await list_segments(client, path))[0]['id']}"
        disabled = await update(client, one, enabled=False, content="other", keywords=["x"])
        refused = await update(client, one, content="other")
        enabled = await update(client, one, enabled=True, content="other", answer="ignored")

    data = disabled.body["data"]
    assert (data["content"], data["enabled"], data["keywords"]) == ("one", False, ["one"])
    assert refused.status == 400
    data = enabled.body["data"]
    assert (data["content"], data["enabled"], data["answer"]) == ("other", True, None)


@every_version
@pytest.mark.parametrize("technique", ["economy", "high_quality"])
async def test_keywords_are_set_by_update_but_not_cleared(version: str, technique: str) -> None:
    """New content and keywords in one request: high-quality datasets ignore them since 1.8."""
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_text(client, "one###two", technique, process_rule=LINES)
        one = f"{path}/{(await list_segments(client, path))[0]['id']}"
        changes: list[dict[str, Any]] = [
            {"content": "one", "keywords": ["k1"]},
            {"content": "one", "keywords": []},
            {"keywords": ["k2"]},
            {"content": "other", "keywords": ["k3"]},
        ]
        shown = [(await update(client, one, **change)).body["data"] for change in changes]

    ignored = technique == "high_quality" and version != "1.4.3"
    assert [segment["keywords"] for segment in shown] == [
        ["k1"],
        ["k1"],
        ["k2"],
        ["k2"] if ignored else ["k3"],
    ]


@every_version
async def test_new_chunks_get_positions_behind_the_last_one(version: str) -> None:
    async with run_emulator(version=version, settings=with_models) as client:
        path = await index_text(client, "1###2###3###4###5", "economy", process_rule=LINES)
        segments = await list_segments(client, path)
        for number in (1, 4):
            await client.request("DELETE", f"{path}/{segments[number]['id']}")
        new = [{"content": "six"}, {"content": "seven"}]
        await client.request("POST", path, json={"segments": new})
        positions = [segment["position"] for segment in await list_segments(client, path)]

    assert positions == [1, 3, 4, 5, 6]
