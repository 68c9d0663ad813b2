"""What a checker reads afterwards: the calls, the runs, the documents."""

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


def state(
    name: str, *, status: str = "completed", chunks: int = 3, dataset: str = "set"
) -> DocumentState:
    return attrs.evolve(
        STATE, name=name, id=f"id of {name}", status=status, chunks=chunks, dataset_id=dataset
    )


def create(name: str, *, committed: bool = True, replaced: str | None = None) -> Exchange:
    return Exchange(CREATE, 200, name, dataset_id="set", committed=committed, replaced=replaced)


def run(kind: str, name: str, *, overlapping: int = 0, chunks: int = 0) -> RunEvent:
    return RunEvent(kind, 1, 0.0, "set", f"id of {name}", name, "file", overlapping, None, chunks)


async def test_a_create_tells_what_it_made_and_what_it_replaced() -> None:
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


async def test_runs_tell_how_they_ended_and_what_was_beside_them() -> None:
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


async def test_a_run_of_a_deleted_document_tells_so() -> None:
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


async def test_another_process_reads_the_history_as_lines() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        await client.wait_until_indexed(one, await client.create_by_file(one, "a.txt"))
        url = client.emulator.url.removesuffix("/v1") + "/_emulator/history"
        async with client.session.get(url) as reply:
            text = await reply.text()
        here = client.emulator.history, client.emulator.runs

    assert parse_jsonl(text) == here
    assert len(here[1]) == 2


async def test_documents_are_told_without_a_call() -> None:
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


async def test_a_call_without_an_answer_may_have_been_carried_out() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.plan(CREATE, ["reset", "commit-then-reset"])
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await client.create_by_file(one, "a.txt")

    made = [exchange for exchange in client.emulator.history if exchange.endpoint == CREATE]
    assert [(exchange.status, exchange.committed) for exchange in made] == [(0, False), (0, True)]


def test_lost_is_what_is_not_there_and_unindexed_what_did_not_end() -> None:
    documents = [state("a"), state("b", status="error"), state("c", status="waiting")]

    assert find_lost(documents, ["a", "b", "d"]) == ["d"]
    assert find_unindexed(documents) == ["b", "c"]


def test_twins_share_a_name_within_a_dataset() -> None:
    documents = [state("a"), attrs.evolve(state("a"), id="2"), state("b", dataset="other")]

    assert find_duplicates([*documents, state("b")]) == {"a": ["id of a", "2"]}


def test_doubled_is_more_chunks_than_the_last_run_made() -> None:
    runs = [run("started", "a"), run("ended", "a", chunks=3, overlapping=1), run("ended", "b")]

    assert find_doubled_chunks([state("a", chunks=6), state("never ran")], runs) == ["a"]
    assert find_doubled_chunks([state("a", chunks=3)], runs) == []
    assert find_overlapping_runs(runs) == ["a"]


def test_reposted_is_created_again_while_its_document_was_not_settled() -> None:
    history = [
        create("a"),
        create("a", replaced="parsing"),
        create("b", replaced="completed"),
        create("c", replaced="error"),
        create("d", replaced="waiting", committed=False),
    ]

    assert find_reposted(history) == ["a"]


def test_extra_is_what_was_created_more_than_once() -> None:
    history = [create("a")] * 3 + [create("b"), create("b", committed=False)]

    assert count_extra_creates(history) == {"a": 2}
    assert len(select_creates(history)) == 4


def test_a_verdict_is_good_when_extra_creates_are_all() -> None:
    history = [create("a"), create("a", replaced="completed")]

    assert check_load(["a"], [state("a")], history, [])
    assert check_load(["a"], [state("a")], history, []).extra_creates == {"a": 1}
    assert not check_load(["a", "b"], [state("a")], history, [])
    assert not check_load(["a"], [state("a"), state("a")], history, [])
    assert not check_load(["a"], [state("a")], [create("a", replaced="indexing")], [])
