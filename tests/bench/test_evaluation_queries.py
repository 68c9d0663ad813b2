from __future__ import annotations

from pathlib import Path

import pytest

from dify_kb.bench.quality.evaluation_queries import (
    EvaluationQuery,
    RelevantItem,
    find_ranks,
    parse_query,
    query_to_json,
    read_queries,
)
from dify_kb.errors import ConfigError
from dify_kb.models import Record
from dify_kb.wire import codec

ID = "0b9f5a3e-6a55-4a57-93a1-1d2f5d1d3c11"


def record(segment: str, name: str, content: str, document: str = ID) -> Record:
    return codec.decode(
        Record,
        {
            "segment": {
                "id": segment,
                "document_id": document,
                "content": content,
                "position": 1,
                "document": {"id": document, "name": name},
            }
        },
    )


def test_query_line_names_documents_and_texts() -> None:
    line = f'{{"query": "q", "relevant": ["a/b.md", "hold it", "{ID}", {{"text": "x.md"}}]}}'

    asked = parse_query(line, "here")

    assert asked == EvaluationQuery(
        query="q",
        relevant=[
            RelevantItem(document="a/b.md"),
            RelevantItem(text="hold it"),
            RelevantItem(document=ID),
            RelevantItem(text="x.md"),
        ],
    )
    assert query_to_json(asked)["relevant"] == [
        {"document": "a/b.md"},
        {"text": "hold it"},
        {"document": ID},
        {"text": "x.md"},
    ]


@pytest.mark.parametrize(
    ("target", "name", "content", "found"),
    [
        (RelevantItem(document="a/b.md"), "a__b.md", "x", True),
        (RelevantItem(document="a__b.md"), "a__b.md", "x", True),
        (RelevantItem(document=ID), "any.md", "x", True),
        (RelevantItem(document="b.md"), "a__b.md", "see b.md", False),
        (RelevantItem(text="Hold the  button"), "n.md", "… hold\nthe BUTTON …", True),
        (RelevantItem(text="hold the button"), "n.md", "holdthebutton", True),
        (RelevantItem(text="hold the button"), "hold the button", "x", False),
    ],
)
def test_relevance_of_a_passage(
    target: RelevantItem, name: str, content: str, *, found: bool
) -> None:
    assert target.is_in(record("s", name, content)) is found


def test_ranks_count_first_matches_and_skip_duplicates() -> None:
    asked = EvaluationQuery(
        query="q", relevant=[RelevantItem(document="b.md"), RelevantItem(text="no such")]
    )
    listed = [record("1", "a.md", "x"), record("1", "a.md", "x"), record("2", "b.md", "y")]

    assert find_ranks(asked, listed) == [2, None]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "invalid JSON"),
        ("[]", "not an object"),
        ('{"relevant": ["a"]}', '"query"'),
        ('{"query": "  ", "relevant": ["a"]}', '"query"'),
        (f'{{"query": "{"x" * 251}", "relevant": ["a"]}}', "250"),
        ('{"query": "q"}', '"relevant"'),
        ('{"query": "q", "relevant": []}', '"relevant"'),
        ('{"query": "q", "relevant": "a"}', '"relevant"'),
        ('{"query": "q", "relevant": [""]}', 'in "relevant": ""'),
        ('{"query": "q", "relevant": [{"doc": "a"}]}', '{"doc": "a"}'),
        ('{"query": "q", "relevant": [7]}', 'in "relevant": 7'),
    ],
)
def test_invalid_line_is_reported_by_its_number(tmp_path: Path, line: str, what: str) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(f'{{"query": "q", "relevant": ["a"]}}\n\n{line}\n')

    with pytest.raises(ConfigError) as raised:
        read_queries(file)

    assert f"{file}:3: " in raised.value.summary
    assert what in raised.value.summary
    assert '"relevant": ["reset.md"]' in raised.value.hint


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_file_without_queries_is_rejected(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_bytes(data)

    with pytest.raises(ConfigError, match=r"queries\.jsonl"):
        read_queries(file)
    with pytest.raises(ConfigError, match="Cannot read"):
        read_queries(tmp_path / "none.jsonl")
