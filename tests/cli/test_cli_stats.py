"""Counts of documents, error kinds and stuck documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from cli_runner import Cli, called_endpoints, create_dataset_with_documents, parse_json_lines

from dify_kb import Client, Document, IndexingStatus
from dify_kb.cli import stats
from dify_kb.emulator import Emulator

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PATIENCE = timedelta(minutes=15)


def row(name: str, status: str, minutes: float, *, words: int | None = 5) -> Document:
    """Return a document that was created `minutes` ago."""
    return Document(
        id=name,
        name=name,
        position=1,
        data_source_type="upload_file",
        data_source_info=None,
        dataset_process_rule_id=None,
        created_from="api",
        created_by="x",
        created_at=NOW - timedelta(minutes=minutes),
        tokens=0,
        indexing_status=IndexingStatus(status),
        error=None,
        enabled=True,
        disabled_at=None,
        disabled_by=None,
        archived=False,
        display_status=None,
        word_count=words,
        hit_count=0,
        doc_form=None,
        doc_metadata=None,
    )


def stuck(*rows: Document, changed: dict[str, float] | None = None) -> list[str]:
    told = {name: NOW - timedelta(minutes=ago) for name, ago in (changed or {}).items()}
    return [late.name for late in stats.find_stuck_documents(rows, told, NOW, PATIENCE)]


def test_indexing_document_without_change_is_stuck() -> None:
    rows = row("a", "indexing", 20), row("b", "parsing", 30), row("c", "splitting", 5)

    assert stuck(*rows) == ["b", "a"]
    assert stuck(*rows, changed={"b": 1}) == ["a"]


def test_a_long_queue_that_moves_is_not_stuck() -> None:
    """A default server indexes a document in two seconds, so 5,000 files wait for hours."""
    queue = [row(str(number), "waiting", 300 - number) for number in range(5)]
    moving = row("now", "indexing", 301)

    assert stuck(moving, *queue, changed={"now": 0.1}) == []


def test_a_queue_that_does_not_move_is_stuck() -> None:
    assert stuck(row("a", "waiting", 20), row("b", "waiting", 10)) == ["a"]


def test_document_waiting_behind_younger_done_ones_is_stuck() -> None:
    """The indexing task of the document was lost."""
    rows = row("a", "waiting", 60), row("b", "completed", 30), row("c", "indexing", 1)

    assert stuck(*rows) == ["a"]
    assert stuck(*rows, changed={"a": 20}) == [], "created again since"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("File /tmp/abc1/x.pdf is damaged", "File /tmp/zz9/y.pdf is damaged"),
        ("Rate limit: 429, retry in 3.5 s", "Rate limit: 429, retry in 20 s"),
        ("Unknown model 'a-1'", "Unknown model 'b'"),
        (
            "document 7d444840-9dc0-11d1-b245-5ffdce74fad2 lost",
            "document 7d444840-9dc0-11d1-b245-5ffdce74fad3 lost",
        ),
    ],
)
def test_error_kind_ignores_names_and_numbers(one: str, other: str) -> None:
    assert stats.error_kind(one) == stats.error_kind(other)


def test_error_kind_differs_for_other_texts() -> None:
    assert stats.error_kind("Rate limit reached") != stats.error_kind("Connection refused")
    assert stats.error_kind("pypdfium2 failed") == "pypdfium2 failed", "a name, no number"
    assert len(stats.error_kind("x" * 300)) == 100
    assert stats.error_kind(" ") == "no reason given"


def test_document_without_indexed_text_counts_as_an_error() -> None:
    failed = evolve(row("b", "error", 1), error="No model 7")
    rows = [row("a", "completed", 1, words=0), failed, row("c", "completed", 1)]

    assert stats.count_errors(rows) == {stats.NOTHING_INDEXED: 1, "No model N": 1}


def test_stats_of_all_datasets(cli: Cli, emulator: Emulator) -> None:
    emulator.faults.indexing(["error no such model", "hang"], names="bad*")
    create_dataset_with_documents(emulator, "a.txt", "bad-1.txt")
    with Client(emulator.url, emulator.api_key) as client:
        other = client.datasets.create("other", indexing_technique="economy")
        client.documents.create_by_text(other, "bad-2.txt", "x")
    where = ["--dataset", "base", "--document", "a.txt"]
    cli("segments", "create", *where, *(f"chunk {number}" for number in range(120)))

    code, out, _ = cli("stats", "--stuck-after", "0", "--json")

    assert code == 0
    told = {row["name"]: row for row in parse_json_lines(out)}
    assert told["base"]["type"] == "stats"
    assert told["base"]["documents"] == 2
    assert told["base"]["statuses"] == {"available": 1, "error": 1}
    assert told["base"]["chunks"] == 122, "one of them the failed document's"
    assert told["base"]["errors"] == {"no such model": 1}
    (late,) = told["other"]["stuck"]
    assert late["name"] == "bad-2.txt"
    assert late["since"] == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
    _, out, _ = cli("stats", "--stuck-after", "0")
    assert "(all)" in out
    assert "1 x no such model" in out
    assert "stuck in" in out


def test_uncountable_dataset_does_not_hide_the_others(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    create_dataset_with_documents(emulator, "b.txt", name="other")
    emulator.faults.plan("documents.list", ["404"])

    code, out, _ = cli("stats", "--json")

    assert code == 3
    assert [(row["type"], row["name"]) for row in parse_json_lines(out)] == [
        ("failed", "other"),
        ("stats", "base"),
    ]


def test_stats_of_one_dataset_requests_only_that(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    create_dataset_with_documents(emulator, "b.txt", name="other")
    before = len(emulator.history)

    code, out, _ = cli("stats", "--dataset", "base", "--no-chunks", "--json")

    assert code == 0
    assert [(row["name"], row["chunks"]) for row in parse_json_lines(out)] == [("base", None)]
    assert called_endpoints(emulator)[before:] == ["datasets.list", "documents.list"]
