"""The history of requests and indexing runs, and the checks of a load that use it."""

from __future__ import annotations

import aiohttp
import attrs
import pytest
from emulator_client import run_emulator, wait_until

from dify_kb.emulator import (
    DocumentState,
    Emulator,
    Exchange,
    ManualClock,
    RunEvent,
    Settings,
    check_load,
)
from dify_kb.emulator.assertions import (
    count_extra_creates,
    find_doubled_chunks,
    find_duplicates,
    find_lost,
    find_overlapping_runs,
    find_reposted,
    find_unindexed,
    select_creates,
)
from dify_kb.emulator.history import parse_jsonl
from dify_kb.errors import ConfigError

CREATE = "documents.create_by_file"

STATE = DocumentState("1", "set", "a", "completed", None, 1, 0, "batch", "file", 5, 3, 3)


def build_state(
    name: str, *, status: str = "completed", chunks: int = 3, dataset: str = "set"
) -> DocumentState:
    return attrs.evolve(
        STATE, name=name, id=f"id of {name}", status=status, chunks=chunks, dataset_id=dataset
    )


def build_create(name: str, *, committed: bool = True, replaced: str | None = None) -> Exchange:
    return Exchange(CREATE, 200, name, dataset_id="set", committed=committed, replaced=replaced)


def build_run(kind: str, name: str, *, overlapping: int = 0, chunks: int = 0) -> RunEvent:
    return RunEvent(kind, 1, 0.0, "set", f"id of {name}", name, "file", overlapping, None, chunks)


async def test_history_records_created_and_replaced_documents() -> None:
    clock = ManualClock(1000.0)
    async with run_emulator(clock=clock, settings=Settings(parsing=1)) as client:
        one = await client.create_dataset()
        first = await client.create_by_file(one, "a.txt")
        clock.advance(5)
        await client.wait_until_indexed(one, first)
        second = await client.create_by_file(one, "a.txt")
        await client.wait_for_status(one, second.body["batch"], "parsing")
        third = await client.create_by_file(one, "a.txt")
        refused = await client.create_by_file(one, "a.exe")

    made = [exchange for exchange in client.emulator.history if exchange.endpoint == CREATE]
    document = first.body["document"]
    assert refused.status == 400
    assert [exchange.replaced for exchange in made] == [None, "completed", "parsing", None]
    assert [exchange.committed for exchange in made] == [True, True, True, False]
    assert {exchange.document_id for exchange in made[:3]} == {document["id"]}
    assert made[0].file_id == document["data_source_info"]["upload_file_id"]
    assert made[2].file_id == third.body["document"]["data_source_info"]["upload_file_id"]
    assert {exchange.dataset_id for exchange in made} == {one}
    assert [exchange.ended for exchange in made] == [1000.0, 1005.0, 1005.0, 1005.0]
    assert len({exchange.connection for exchange in made}) == 1


async def test_run_events_record_status_and_overlaps() -> None:
    clock = ManualClock(1000.0)
    async with run_emulator(clock=clock, settings=Settings(workers=2, splitting=1)) as client:
        one = await client.create_dataset()
        first = await client.create_by_file(one, "a.txt")
        await client.wait_for_status(one, first.body["batch"], "splitting")
        second = await client.create_by_file(one, "a.txt")
        await client.wait_for_status(one, second.body["batch"], "splitting")
        clock.advance(1)
        await wait_until(lambda: len(client.emulator.runs) == 4)
        runs = client.emulator.runs

    assert [(event.kind, event.overlapping) for event in runs] == [
        ("started", 0),
        ("started", 1),
        ("ended", 1),
        ("ended", 1),
    ]
    assert [(event.status, event.chunks) for event in runs[2:]] == [("completed", 1)] * 2
    assert [event.at for event in runs] == [1000.0, 1000.0, 1001.0, 1001.0]
    files = [
        reply.body["document"]["data_source_info"]["upload_file_id"] for reply in (first, second)
    ]
    assert [event.file_id for event in runs[:2]] == files


async def test_run_of_a_deleted_document_ends_gone() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(splitting=1)) as client:
        one = await client.create_dataset()
        created = await client.create_by_file(one, "a.txt")
        await client.wait_for_status(one, created.body["batch"], "splitting")
        document = created.body["document"]["id"]
        await client.request("DELETE", f"/datasets/{one}/documents/{document}")
        clock.advance(1)
        await wait_until(lambda: len(client.emulator.runs) == 2)

    assert client.emulator.runs[1].status == "gone"


async def test_history_route_answers_json_lines() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        await client.wait_until_indexed(one, await client.create_by_file(one, "a.txt"))
        url = client.emulator.url.removesuffix("/v1") + "/_emulator/history"
        async with client.session.get(url) as reply:
            text = await reply.text()
        here = client.emulator.history, client.emulator.runs

    assert parse_jsonl(text) == here
    assert len(here[1]) == 2


async def test_documents_lists_states_without_a_request() -> None:
    async with run_emulator() as client:
        one, other = await client.create_dataset("a"), await client.create_dataset("b")
        await client.wait_until_indexed(
            one, await client.create_by_file(one, "a.txt", b"\n\n".join([b"x" * 400] * 3))
        )
        await client.create_by_file(other, "b.txt")
        before = len(client.emulator.history)
        (document,) = client.emulator.documents(one)

    assert (document.name, document.status, document.chunks, document.completed) == (
        "a.txt",
        "completed",
        3,
        3,
    )
    assert document.enabled
    assert len(client.emulator.history) == before
    with pytest.raises(ConfigError, match="not running"):
        Emulator().documents(one)


async def test_unanswered_request_may_be_committed() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.plan(CREATE, ["reset", "commit-then-reset"])
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await client.create_by_file(one, "a.txt")

    made = [exchange for exchange in client.emulator.history if exchange.endpoint == CREATE]
    assert [(exchange.status, exchange.committed) for exchange in made] == [(0, False), (0, True)]


def test_find_lost_and_find_unindexed() -> None:
    documents = [
        build_state("a"),
        build_state("b", status="error"),
        build_state("c", status="waiting"),
    ]

    assert find_lost(documents, ["a", "b", "d"]) == ["d"]
    assert find_unindexed(documents) == ["b", "c"]


def test_duplicates_share_a_name_within_a_dataset() -> None:
    documents = [
        build_state("a"),
        attrs.evolve(build_state("a"), id="2"),
        build_state("b", dataset="other"),
    ]

    assert find_duplicates([*documents, build_state("b")]) == {"a": ["id of a", "2"]}


def test_doubled_chunks_exceed_those_of_the_last_run() -> None:
    runs = [
        build_run("started", "a"),
        build_run("ended", "a", chunks=3, overlapping=1),
        build_run("ended", "b"),
    ]

    assert find_doubled_chunks([build_state("a", chunks=6), build_state("never ran")], runs) == [
        "a"
    ]
    assert find_doubled_chunks([build_state("a", chunks=3)], runs) == []
    assert find_overlapping_runs(runs) == ["a"]


def test_reposted_documents_were_created_again_before_indexing_ended() -> None:
    history = [
        build_create("a"),
        build_create("a", replaced="parsing"),
        build_create("b", replaced="completed"),
        build_create("c", replaced="error"),
        build_create("d", replaced="waiting", committed=False),
    ]

    assert find_reposted(history) == ["a"]


def test_extra_creates_counts_repeated_creates() -> None:
    history = [build_create("a")] * 3 + [build_create("b"), build_create("b", committed=False)]

    assert count_extra_creates(history) == {"a": 2}
    assert len(select_creates(history)) == 4


def test_load_check_is_true_with_extra_creates_only() -> None:
    history = [build_create("a"), build_create("a", replaced="completed")]

    assert check_load(["a"], [build_state("a")], history, [])
    assert check_load(["a"], [build_state("a")], history, []).extra_creates == {"a": 1}
    assert not check_load(["a", "b"], [build_state("a")], history, [])
    assert not check_load(["a"], [build_state("a"), build_state("a")], history, [])
    assert not check_load(["a"], [build_state("a")], [build_create("a", replaced="indexing")], [])
