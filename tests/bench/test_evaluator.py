from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dify_kb import AsyncClient, Policy, ProcessRule
from dify_kb.bench.benchmark_progress import RequestCounter
from dify_kb.bench.quality import evaluation_queries
from dify_kb.bench.quality.evaluation_queries import EvaluationQuery, RelevantItem
from dify_kb.bench.quality.evaluator import (
    RetrievalEvaluator,
    items_from_documents,
    list_chunkings,
)
from dify_kb.bench.quality.render_quality_report import render_quality_page
from dify_kb.bench.results import QualityReport, dump_report
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.wire import codec

ASKED = [
    EvaluationQuery(query="reset the device", relevant=[RelevantItem(document="reset.md")]),
    EvaluationQuery(query="wombats dig", relevant=[RelevantItem(text="dig at night")]),
    EvaluationQuery(query="unheard of", relevant=[RelevantItem(document="none.md")]),
]


@pytest.fixture
async def counting_client(
    emulator: Emulator, quick: Policy
) -> AsyncIterator[tuple[AsyncClient, RequestCounter]]:
    """A client and the counter of its requests."""
    tally = RequestCounter()
    async with AsyncClient(
        emulator.url, emulator.api_key, policy=quick, on_event=tally.record
    ) as opened:
        yield opened, tally


def evaluator(
    counting_client: tuple[AsyncClient, RequestCounter], asked: list[EvaluationQuery]
) -> RetrievalEvaluator:
    client, tally = counting_client
    return RetrievalEvaluator(
        client=client,
        queries=asked,
        source="test",
        counter=tally,
        on_progress=lambda _: None,
        ks=(1, 3),
    )


async def test_corpus_is_searched_by_every_method_and_deleted_afterwards(
    counting_client: tuple[AsyncClient, RequestCounter],
) -> None:
    samples = evaluation_queries.default_documents(6)
    asked = list(evaluation_queries.default_queries(samples, 5))
    source = items_from_documents([(sample.name, sample.data) for sample in samples])

    report = await evaluator(counting_client, asked).evaluate_corpus(
        source, list_chunkings((300,), parents=True), None
    )

    assert {row.base for row in report.rows} == {"300 characters", "parent-child"}
    assert len(report.rows) == 2 * 7
    gains = [row.ndcg.value for row in report.rows]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.5
    assert report.rows[0].tied
    assert all(0 <= row.recall["1"].value <= row.recall["3"].value <= 1 for row in report.rows)
    assert (report.documents, report.queries, len(report.models)) == (6, 5, 2)
    assert [row async for row in counting_client[0].datasets.iter()] == []
    read = codec.decode(QualityReport, json.loads(dump_report(report)))
    assert json.loads(dump_report(read)) == json.loads(dump_report(report))
    assert render_quality_page(read).count("<figure>") == 2


async def test_existing_dataset_is_searched_and_not_changed(
    counting_client: tuple[AsyncClient, RequestCounter], docs: Path, emulator: Emulator
) -> None:
    client, _ = counting_client
    dataset = await client.datasets.create("Handbook", indexing_technique="economy")
    assert (await client.load(dataset, docs, include=["*.md", "*.txt"])).added == 2
    before = len(emulator.history)

    report = await evaluator(counting_client, ASKED).evaluate_dataset(
        await client.datasets.get(dataset)
    )

    (row,) = report.rows
    assert (row.base, row.method, row.missed) == ("Handbook", "keyword", 1)
    assert row.recall["1"].value == pytest.approx(2 / 3)
    assert row.mrr.value == pytest.approx(2 / 3)
    assert [missed.relevant for missed in report.missed] == [["none.md"]]
    asked = {exchange.endpoint for exchange in emulator.history[before:]}
    assert asked == {"datasets.get", "documents.list", "datasets.retrieve"}
    assert "Document not found in Handbook: none.md." in report.notes


async def test_refused_search_is_noted_and_others_continue(
    counting_client: tuple[AsyncClient, RequestCounter], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.plan("datasets.retrieve", ["400"])

    report = await evaluator(counting_client, ASKED).evaluate_corpus(
        docs, list_chunkings((300,), parents=False), None
    )

    assert emulator.faults.left() == {}
    assert len(report.rows) == 6
    (note,) = report.notes
    assert note.startswith("300 characters, semantic: datasets.retrieve: the server returned 400")


async def test_evaluation_fails_when_no_search_works(
    counting_client: tuple[AsyncClient, RequestCounter], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.plan("datasets.retrieve", ["400 x50"])

    with pytest.raises(KnowledgeError, match="400"):
        await evaluator(counting_client, ASKED).evaluate_corpus(
            docs, list_chunkings((300,), parents=False), "economy"
        )

    assert [row async for row in counting_client[0].datasets.iter()] == []


async def test_files_that_are_not_indexed_are_noted(
    counting_client: tuple[AsyncClient, RequestCounter], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.indexing(["error no such model"], names="*.txt", always=True)

    report = await evaluator(counting_client, ASKED).evaluate_corpus(
        docs, list_chunkings((300,), parents=False), "economy"
    )

    assert report.documents == 1
    (note,) = report.notes
    assert note == "300 characters: 1 files not indexed: indexing failed: no such model."


async def test_evaluation_fails_when_no_document_is_indexed(
    counting_client: tuple[AsyncClient, RequestCounter], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.indexing(["error no such model"], always=True)

    with pytest.raises(KnowledgeError, match="None of 3 files was indexed"):
        await evaluator(counting_client, ASKED).evaluate_corpus(
            docs, list_chunkings((300,), parents=False), "economy"
        )

    assert [row async for row in counting_client[0].datasets.iter()] == []


async def test_dataset_without_an_index_is_rejected(
    counting_client: tuple[AsyncClient, RequestCounter],
) -> None:
    dataset = await counting_client[0].datasets.create("New")

    with pytest.raises(ConfigError, match="has no index yet"):
        await evaluator(counting_client, ASKED).evaluate_dataset(dataset)


def test_chunkings_overlap_by_a_tenth() -> None:
    small, large, parents = list_chunkings((200, 1000), parents=True)

    assert small.rule == ProcessRule.custom(max_tokens=200, chunk_overlap=20)
    assert large.rule == ProcessRule.custom(max_tokens=1000, chunk_overlap=50)
    assert parents.form == "hierarchical_model"
    with pytest.raises(ConfigError):
        list_chunkings((10,), parents=False)
