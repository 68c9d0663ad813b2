from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dify_kb import AsyncClient, Policy, ProcessRule
from dify_kb.bench.quality import shipped
from dify_kb.bench.quality.cuts import cuts
from dify_kb.bench.quality.measure import Quality, items
from dify_kb.bench.quality.page import quality_page
from dify_kb.bench.quality.queries import Asked, Target
from dify_kb.bench.quality.report import QualityReport
from dify_kb.bench.stored import dumped
from dify_kb.bench.watch import Tally
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.wire import codec

ASKED = [
    Asked(query="reset the device", relevant=[Target(document="reset.md")]),
    Asked(query="wombats dig", relevant=[Target(text="dig at night")]),
    Asked(query="unheard of", relevant=[Target(document="none.md")]),
]


@pytest.fixture
async def counted(emulator: Emulator, quick: Policy) -> AsyncIterator[tuple[AsyncClient, Tally]]:
    """A client, and what counts its requests."""
    tally = Tally()
    async with AsyncClient(
        emulator.url, emulator.api_key, policy=quick, on_event=tally.see
    ) as opened:
        yield opened, tally


def quality(counted: tuple[AsyncClient, Tally], asked: list[Asked]) -> Quality:
    client, tally = counted
    return Quality(
        client=client,
        asked=asked,
        source="test",
        tally=tally,
        tell=lambda _: None,
        ks=(1, 3),
    )


async def test_a_corpus_is_searched_in_every_way_and_gone_afterwards(
    counted: tuple[AsyncClient, Tally],
) -> None:
    samples = shipped.documents(6)
    asked = list(shipped.questions(samples, 5))
    source = items([(sample.name, sample.data) for sample in samples])

    report = await quality(counted, asked).of_corpus(source, cuts((300,), parents=True), None)

    assert {row.base for row in report.rows} == {"300 characters", "parent-child"}
    assert len(report.rows) == 2 * 7
    gains = [row.ndcg.value for row in report.rows]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.5
    assert report.rows[0].tied
    assert all(0 <= row.recall["1"].value <= row.recall["3"].value <= 1 for row in report.rows)
    assert (report.documents, report.queries, len(report.models)) == (6, 5, 2)
    assert [row async for row in counted[0].datasets.iter()] == []
    read = codec.decode(QualityReport, json.loads(dumped(report)))
    assert json.loads(dumped(read)) == json.loads(dumped(report))
    assert quality_page(read).count("<figure>") == 2


async def test_a_base_is_searched_and_not_changed(
    counted: tuple[AsyncClient, Tally], docs: Path, emulator: Emulator
) -> None:
    client, _ = counted
    dataset = await client.datasets.create("Handbook", indexing_technique="economy")
    assert (await client.load(dataset, docs, include=["*.md", "*.txt"])).added == 2
    before = len(emulator.history)

    report = await quality(counted, ASKED).of_dataset(await client.datasets.get(dataset))

    (row,) = report.rows
    assert (row.base, row.method, row.missed) == ("Handbook", "keyword", 1)
    assert row.recall["1"].value == pytest.approx(2 / 3)
    assert row.mrr.value == pytest.approx(2 / 3)
    assert [missed.relevant for missed in report.missed] == [["none.md"]]
    asked = {exchange.endpoint for exchange in emulator.history[before:]}
    assert asked == {"datasets.get", "datasets.retrieve"}


async def test_a_search_that_the_server_refuses_is_noted_and_others_go_on(
    counted: tuple[AsyncClient, Tally], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.plan("datasets.retrieve", ["400"])

    report = await quality(counted, ASKED).of_corpus(docs, cuts((300,), parents=False), None)

    assert emulator.faults.left() == {}
    assert len(report.rows) == 6
    (note,) = report.notes
    assert note.startswith("300 characters, semantic: datasets.retrieve: the server answered 400")


async def test_a_server_without_any_search_is_told(
    counted: tuple[AsyncClient, Tally], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.plan("datasets.retrieve", ["400 x50"])

    with pytest.raises(KnowledgeError, match="400"):
        await quality(counted, ASKED).of_corpus(docs, cuts((300,), parents=False), "economy")

    assert [row async for row in counted[0].datasets.iter()] == []


async def test_files_that_are_not_indexed_are_noted(
    counted: tuple[AsyncClient, Tally], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.indexing(["error no such model"], names="*.txt", always=True)

    report = await quality(counted, ASKED).of_corpus(docs, cuts((300,), parents=False), "economy")

    assert report.documents == 1
    (note,) = report.notes
    assert note == "300 characters: 1 files were not indexed (indexing failed: no such model)."


async def test_documents_that_are_not_indexed_are_no_corpus(
    counted: tuple[AsyncClient, Tally], emulator: Emulator, docs: Path
) -> None:
    emulator.faults.indexing(["error no such model"], always=True)

    with pytest.raises(KnowledgeError, match="No document of 3 was indexed"):
        await quality(counted, ASKED).of_corpus(docs, cuts((300,), parents=False), "economy")

    assert [row async for row in counted[0].datasets.iter()] == []


async def test_a_base_without_an_index_is_told(counted: tuple[AsyncClient, Tally]) -> None:
    dataset = await counted[0].datasets.create("New")

    with pytest.raises(ConfigError, match="has no index yet"):
        await quality(counted, ASKED).of_dataset(dataset)


def test_cuts_overlap_by_a_tenth() -> None:
    small, large, parents = cuts((200, 1000), parents=True)

    assert small.rule == ProcessRule.custom(max_tokens=200, chunk_overlap=20)
    assert large.rule == ProcessRule.custom(max_tokens=1000, chunk_overlap=50)
    assert parents.form == "hierarchical_model"
    with pytest.raises(ConfigError):
        cuts((10,), parents=False)
