from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb import AsyncClient, Policy
from dify_kb.bench.corpus import generate_documents
from dify_kb.bench.quality.draft_queries import DraftPassage, draft_queries
from dify_kb.bench.quality.evaluation_queries import (
    EvaluationQuery,
    fold_text,
    parse_query,
    query_to_json,
)
from dify_kb.bench.quality.read_passages import read_dataset, read_folder
from dify_kb.cli.output import dump_json
from dify_kb.emulator import Emulator
from dify_kb.errors import KnowledgeError
from dify_kb.rag.extract import extract

MANUAL = """Care of the device

Cleaning

Wipe the blue cover with a damp cloth every week. Never pour water on the vents.

```sh
rm -rf everything that is not prose
```

| a | table with enough words to be a sentence |

How do I reset it?

Hold the red button for nine seconds. The lamp turns green afterwards.
"""


def draft_by_kind(*passages: DraftPassage, count: int = 50) -> dict[str, list[EvaluationQuery]]:
    drafts: dict[str, list[EvaluationQuery]] = {}
    for query in draft_queries(passages, count):
        drafts.setdefault(query.draft, []).append(query)
    return drafts


def test_each_kind_is_drafted_with_its_answer() -> None:
    drafts = draft_by_kind(DraftPassage(document="care-guide.md", text=MANUAL))

    pairs = {
        kind: {(query.query, str(query.relevant[0])) for query in drafts[kind]} for kind in drafts
    }
    assert ("How do I reset it?", "Hold the red button for nine seconds.") in pairs["question"]
    assert pairs["heading"] == {
        (
            "What does care guide say about Cleaning?",
            "Wipe the blue cover with a damp cloth every week.",
        )
    }
    assert ("The lamp turns green afterwards.",) * 2 in pairs["sentence"]
    assert {answer for _, answer in pairs["words"]} == {"care-guide.md"}
    assert not any(
        "rm -rf" in query or "table" in query for each in pairs.values() for query, _ in each
    )


def test_texts_that_occur_twice_are_not_used() -> None:
    twice = "Contact the support of the manufacturer in this case."
    drafts = draft_queries(
        [
            DraftPassage(document="a.txt", text=f"{twice} The lamp of the first device is green."),
            DraftPassage(document="b.txt", text=f"{twice} The lamp of the other device is yellow."),
        ],
        50,
    )

    assert drafts
    assert not any(str(item) == twice for query in drafts for item in query.relevant)


def test_drafts_are_spread_over_documents_and_the_same_each_time() -> None:
    passages = [
        DraftPassage(document=sample.name, text=text)
        for sample in generate_documents(20, formats={"md": 1})
        for text in extract(sample.data, "md")
    ]

    drafts = draft_queries(passages, 30)

    assert drafts == draft_queries(passages, 30)
    assert len(drafts) == len({query.query for query in drafts}) == 30
    texts = {passage.document: "" for passage in passages}
    for passage in passages:
        texts[passage.document] += fold_text(passage.text)
    sources = {
        name
        for query in drafts
        for name, text in texts.items()
        if query.relevant[0].document == name
        or (query.relevant[0].text and fold_text(str(query.relevant[0])) in text)
    }
    assert len(sources) >= 12
    for query in drafts:
        assert parse_query(dump_json(query_to_json(query)), "here") == query


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="ab?!. \n#-|`\u3042\uff1f", max_size=80), max_size=4))
def test_any_text_gives_valid_queries(texts: list[str]) -> None:
    for query in draft_queries([DraftPassage(document="a.md", text=text) for text in texts], 20):
        assert parse_query(dump_json(query_to_json(query)), "here") == query


def test_folder_is_read_and_unreadable_files_are_noted(tmp_path: Path) -> None:
    (tmp_path / "care.md").write_text(MANUAL)
    (tmp_path / "broken.docx").write_bytes(b"not a document")

    passages, notes = read_folder(tmp_path, 10)

    assert {passage.document for passage in passages} == {"care.md"}
    (note,) = notes
    assert note.startswith("broken.docx: ")
    (tmp_path / "care.md").write_text(" ")
    with pytest.raises(KnowledgeError, match="no text to draft queries from"):
        read_folder(tmp_path, 10)


async def test_sample_of_a_dataset_is_read(emulator: Emulator, quick: Policy) -> None:
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
        dataset = await client.datasets.create("d", indexing_technique="economy")
        with pytest.raises(KnowledgeError, match="no text"):
            await read_dataset(client, dataset, 2)
        for number in range(4):
            created = await client.documents.create_by_text(dataset, f"{number}.txt", MANUAL)
            await client.documents.wait(dataset, [created])
        before = len(emulator.history)

        passages = await read_dataset(client, dataset, 2)

    assert len({passage.document for passage in passages}) == 2
    calls = [exchange.endpoint for exchange in emulator.history[before:]]
    assert calls == ["documents.list", "segments.list", "segments.list"]
