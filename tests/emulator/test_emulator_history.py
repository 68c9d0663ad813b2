"""What a checker reads afterwards: the calls, the runs, the documents."""

from __future__ import annotations

import aiohttp
import attrs
import pytest
from emulator_calls import serving, until

from dify_kb.emulator import (
    DocumentState,
    Emulator,
    Exchange,
    ManualClock,
    RunEvent,
    Settings,
    judge,
)
from dify_kb.emulator.history import parsed
from dify_kb.emulator.judge import (
    creates,
    doubled,
    extra,
    lost,
    overlapped,
    reposted,
    twins,
    unindexed,
)
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
    async with serving(clock=clock, settings=Settings(parsing=1)) as calls:
        one = await calls.dataset()
        first = await calls.upload(one, "a.txt")
        clock.advance(5)
        await calls.done(one, first)
        second = await calls.upload(one, "a.txt")
        await calls.reached(one, second.body["batch"], "parsing")
        third = await calls.upload(one, "a.txt")
        refused = await calls.upload(one, "a.exe")

    made = [exchange for exchange in calls.emulator.history if exchange.endpoint == CREATE]
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
    async with serving(clock=clock, settings=Settings(workers=2, splitting=1)) as calls:
        one = await calls.dataset()
        first = await calls.upload(one, "a.txt")
        await calls.reached(one, first.body["batch"], "splitting")
        second = await calls.upload(one, "a.txt")
        await calls.reached(one, second.body["batch"], "splitting")
        clock.advance(1)
        await until(lambda: len(calls.emulator.runs) == 4)
        runs = calls.emulator.runs

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
    async with serving(clock=clock, settings=Settings(splitting=1)) as calls:
        one = await calls.dataset()
        created = await calls.upload(one, "a.txt")
        await calls.reached(one, created.body["batch"], "splitting")
        document = created.body["document"]["id"]
        await calls.call("DELETE", f"/datasets/{one}/documents/{document}")
        clock.advance(1)
        await until(lambda: len(calls.emulator.runs) == 2)

    assert calls.emulator.runs[1].status == "gone"


async def test_another_process_reads_the_history_as_lines() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        await calls.done(one, await calls.upload(one, "a.txt"))
        url = calls.emulator.url.removesuffix("/v1") + "/_emulator/history"
        async with calls.session.get(url) as reply:
            text = await reply.text()
        here = calls.emulator.history, calls.emulator.runs

    assert parsed(text) == here
    assert len(here[1]) == 2


async def test_documents_are_told_without_a_call() -> None:
    async with serving() as calls:
        one, other = await calls.dataset("a"), await calls.dataset("b")
        await calls.done(one, await calls.upload(one, "a.txt", b"\n\n".join([b"x" * 400] * 3)))
        await calls.upload(other, "b.txt")
        before = len(calls.emulator.history)
        (document,) = calls.emulator.documents(one)

    assert (document.name, document.status, document.chunks, document.completed) == (
        "a.txt",
        "completed",
        3,
        3,
    )
    assert document.enabled
    assert len(calls.emulator.history) == before
    with pytest.raises(ConfigError, match="not running"):
        Emulator().documents(one)


async def test_a_call_without_an_answer_may_have_been_carried_out() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        calls.emulator.faults.plan(CREATE, ["reset", "commit-then-reset"])
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await calls.upload(one, "a.txt")

    made = [exchange for exchange in calls.emulator.history if exchange.endpoint == CREATE]
    assert [(exchange.status, exchange.committed) for exchange in made] == [(0, False), (0, True)]


def test_lost_is_what_is_not_there_and_unindexed_what_did_not_end() -> None:
    documents = [state("a"), state("b", status="error"), state("c", status="waiting")]

    assert lost(documents, ["a", "b", "d"]) == ["d"]
    assert unindexed(documents) == ["b", "c"]


def test_twins_share_a_name_within_a_dataset() -> None:
    documents = [state("a"), attrs.evolve(state("a"), id="2"), state("b", dataset="other")]

    assert twins([*documents, state("b")]) == {"a": ["id of a", "2"]}


def test_doubled_is_more_chunks_than_the_last_run_made() -> None:
    runs = [run("started", "a"), run("ended", "a", chunks=3, overlapping=1), run("ended", "b")]

    assert doubled([state("a", chunks=6), state("never ran")], runs) == ["a"]
    assert doubled([state("a", chunks=3)], runs) == []
    assert overlapped(runs) == ["a"]


def test_reposted_is_created_again_while_its_document_was_not_settled() -> None:
    history = [
        create("a"),
        create("a", replaced="parsing"),
        create("b", replaced="completed"),
        create("c", replaced="error"),
        create("d", replaced="waiting", committed=False),
    ]

    assert reposted(history) == ["a"]


def test_extra_is_what_was_created_more_than_once() -> None:
    history = [create("a")] * 3 + [create("b"), create("b", committed=False)]

    assert extra(history) == {"a": 2}
    assert len(creates(history)) == 4


def test_a_verdict_is_good_when_extra_creates_are_all() -> None:
    history = [create("a"), create("a", replaced="completed")]

    assert judge(["a"], [state("a")], history, [])
    assert judge(["a"], [state("a")], history, []).extra == {"a": 1}
    assert not judge(["a", "b"], [state("a")], history, [])
    assert not judge(["a"], [state("a"), state("a")], history, [])
    assert not judge(["a"], [state("a")], [create("a", replaced="indexing")], [])
