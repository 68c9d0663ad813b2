"""What a search finds while a document is replaced, archived, disabled or indexed twice.

All of it was measured on 1.4.3, 1.12.1 and 1.14.2.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulator_calls import Calls, Reply, serving, until

from dify_kb.emulator import VERSIONS, ManualClock, Settings

every_version = pytest.mark.parametrize("version", VERSIONS)
with_status_routes = pytest.mark.parametrize("version", VERSIONS[1:])

SLOW = Settings(parsing=1, splitting=1, indexing=1)
FOUR = Settings(workers=4, parsing=10, splitting=10, indexing=10)

RULE = {
    "mode": "custom",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n\n", "max_tokens": 50},
    },
}
OLD, NEW = (
    "\n\n".join(f"{word} paragraph {number}" for number in range(20)) for word in ("zebra", "lion")
)


async def found(calls: Calls, dataset: str, query: str) -> list[str]:
    reply = await calls.search(dataset, query, top_k=100)
    return [record["segment"]["content"] for record in reply.body["records"]]


async def written(calls: Calls, dataset: str, text: str, **fields: object) -> Reply:
    created = await calls.write(dataset, "a.txt", text, **fields)
    await calls.done(dataset, created)
    return created


async def row(calls: Calls, dataset: str, document: str) -> Any:
    listed = await calls.call("GET", f"/datasets/{dataset}/documents")
    return next(row for row in listed.body["data"] if row["id"] == document)


async def switch(calls: Calls, dataset: str, action: str, document: str) -> None:
    path = f"/datasets/{dataset}/documents/status/{action}"
    reply = await calls.call("PATCH", path, json={"document_ids": [document]})
    assert reply.status == 200


def is_indexed(calls: Calls, dataset: str) -> bool:
    return all(document.status == "completed" for document in calls.emulator.documents(dataset))


@every_version
async def test_a_create_of_the_same_name_empties_when_its_run_starts(version: str) -> None:
    """In the queue the old content is still found; from the start of the run, nothing is."""
    clock = ManualClock()
    async with serving(version=version, clock=clock, settings=SLOW) as calls:
        one = await calls.dataset()
        await calls.write(one, "a.txt", "an old zebra")
        clock.advance(3)
        await until(lambda: is_indexed(calls, one))
        ahead = await calls.write(one, "b.txt", "something else")
        await calls.reached(one, ahead.body["batch"], "parsing")

        again = await calls.write(one, "a.txt", "a new lion")
        queued = await found(calls, one, "zebra")
        waiting = await calls.status(one, again.body["batch"])
        clock.advance(3)
        await calls.reached(one, again.body["batch"], "parsing")
        started = await found(calls, one, "zebra lion")
        clock.advance(3)
        await until(lambda: is_indexed(calls, one))
        ended = await found(calls, one, "zebra lion")

    assert (waiting["indexing_status"], waiting["total_segments"]) == ("waiting", 1)
    assert queued == ["an old zebra"]
    assert started == []
    assert ended == ["a new lion"]


@every_version
async def test_an_update_empties_when_it_is_asked_for(version: str) -> None:
    clock = ManualClock()
    settings = Settings(parsing=1, update_hangs=False)
    async with serving(version=version, clock=clock, settings=settings) as calls:
        one = await calls.dataset()
        first = await calls.write(one, "a.txt", "an old zebra")
        clock.advance(1)
        await until(lambda: is_indexed(calls, one))
        ahead = await calls.write(one, "b.txt", "something else")
        await calls.reached(one, ahead.body["batch"], "parsing")

        path = f"/datasets/{one}/documents/{first.body['document']['id']}/update-by-text"
        updated = await calls.call("POST", path, json={"name": "a.txt", "text": "a new lion"})
        queued = await found(calls, one, "zebra lion")
        entry = await calls.status(one, first.body["batch"])
        clock.advance(1)
        await calls.reached(one, first.body["batch"], "parsing")
        clock.advance(1)
        await until(lambda: is_indexed(calls, one))
        ended = await found(calls, one, "zebra lion")

    assert updated.status == 200
    assert queued == []
    assert (entry["indexing_status"], entry["total_segments"]) == ("waiting", 0)
    assert ended == ["a new lion"]


@every_version
@pytest.mark.parametrize("by", ["create", "update"])
async def test_a_replacement_that_fails_leaves_nothing(version: str, by: str) -> None:
    settings = Settings(update_hangs=False)
    async with serving(version=version, settings=settings) as calls:
        one = await calls.dataset()
        first = await written(calls, one, "an old zebra")
        id_ = first.body["document"]["id"]
        broken = RULE | {"rules": {"segmentation": {"separator": "\n", "max_tokens": 5}}}
        broken["rules"]["pre_processing_rules"] = []  # type: ignore[index]

        if by == "create":
            last = await written(calls, one, "a new lion", process_rule=broken)
        else:
            path = f"/datasets/{one}/documents/{id_}/update-by-text"
            body = {"name": "a.txt", "text": "a new lion", "process_rule": broken}
            last = await calls.call("POST", path, json=body)
        entry = await calls.done(one, last)
        hits = await found(calls, one, "zebra lion")
        segments = await calls.call("GET", f"/datasets/{one}/documents/{id_}/segments")

    assert entry["indexing_status"] == "error"
    assert hits == []
    assert segments.body["total"] == 0


@with_status_routes
async def test_a_create_brings_an_archived_document_back_into_searches(version: str) -> None:
    """It stays archived, so `archive` changes nothing; `un_archive` before it does."""
    async with serving(version=version) as calls:
        one = await calls.dataset()
        first = await written(calls, one, "an old zebra")
        id_ = first.body["document"]["id"]
        await switch(calls, one, "archive", id_)
        hidden = await found(calls, one, "zebra")

        again = await written(calls, one, "a new lion")
        back = await found(calls, one, "zebra lion")
        shown = await row(calls, one, id_)
        await switch(calls, one, "archive", id_)
        still = await found(calls, one, "zebra lion")
        await switch(calls, one, "un_archive", id_)
        await switch(calls, one, "archive", id_)
        cured = await found(calls, one, "zebra lion")

    assert hidden == []
    assert again.body["document"]["id"] == id_
    assert back == still == ["a new lion"]
    assert (shown["archived"], shown["display_status"]) == (True, "archived")
    assert cured == []


@with_status_routes
async def test_an_archived_document_is_found_again_after_the_archive(version: str) -> None:
    async with serving(version=version) as calls:
        one = await calls.dataset()
        first = await written(calls, one, "an old zebra")
        id_ = first.body["document"]["id"]
        await switch(calls, one, "archive", id_)
        await switch(calls, one, "un_archive", id_)

        assert await found(calls, one, "zebra") == ["an old zebra"]


@with_status_routes
async def test_a_create_beside_a_disabled_document_is_another_one(version: str) -> None:
    async with serving(version=version) as calls:
        one = await calls.dataset()
        first = await written(calls, one, "an old zebra")
        id_ = first.body["document"]["id"]
        await switch(calls, one, "disable", id_)

        second = await written(calls, one, "a new lion")
        rows = (await calls.call("GET", f"/datasets/{one}/documents")).body["data"]
        hits = await found(calls, one, "zebra lion")

    other = second.body["document"]["id"]
    assert other != id_
    assert {row["id"]: row["enabled"] for row in rows} == {id_: False, other: True}
    assert hits == ["a new lion"]


@every_version
@pytest.mark.parametrize("spelling", ["text", "file"])
async def test_an_update_by_name_and_rule_renames(version: str, spelling: str) -> None:
    """Measured on 1.4.3 and 1.14.2: id, position and content stay, and it is indexed again."""
    settings = Settings(update_hangs=False)
    async with serving(version=version, settings=settings) as calls:
        one = await calls.dataset()
        first = await written(calls, one, "an old zebra")
        document = first.body["document"]
        path = f"/datasets/{one}/documents/{document['id']}/update-by-{spelling}"
        body = {"name": "b.txt", "process_rule": RULE}
        sent = {"json": body} if spelling == "text" else {"data": {"data": json.dumps(body)}}
        renamed = await calls.call("POST", path, **sent)
        await calls.done(one, first)
        shown = await row(calls, one, document["id"])
        hits = await found(calls, one, "zebra")

    assert renamed.status == 200
    assert (shown["name"], shown["position"]) == ("b.txt", document["position"])
    assert hits == ["an old zebra"]


async def overlapping(
    calls: Calls, clock: ManualClock, dataset: str, status: str, seconds: float
) -> tuple[Reply, Reply]:
    """Send the new text when the run of the old one is `seconds` old, and in this status."""
    first = await calls.write(dataset, "a.txt", OLD, process_rule=RULE)
    await calls.reached(dataset, first.body["batch"], "parsing")
    clock.advance(seconds)
    await calls.reached(dataset, first.body["batch"], status)
    if status != "parsing":
        inserted = {"splitting": 10, "indexing": 20}[status]
        await until(lambda: calls.emulator.documents(dataset)[0].chunks == inserted)
    second = await calls.write(dataset, "a.txt", NEW, process_rule=RULE)
    await calls.reached(dataset, second.body["batch"], "parsing")
    return first, second


async def ended(calls: Calls, count: int) -> None:
    await until(lambda: sum(event.kind == "ended" for event in calls.emulator.runs) == count)


@every_version
@pytest.mark.parametrize(
    ("status", "seconds", "old"), [("parsing", 5, 20), ("splitting", 15, 10), ("indexing", 25, 0)]
)
async def test_what_the_first_run_inserts_after_the_second_began_stays(
    version: str, status: str, seconds: float, old: int
) -> None:
    """Chunks are inserted through `splitting`; the second run deletes those of its start only.

    So a document ends `completed` with new and old text, unless the first had finished splitting.
    """
    clock = ManualClock()
    async with serving(version=version, clock=clock, settings=FOUR) as calls:
        one = await calls.dataset()
        await overlapping(calls, clock, one, status, seconds)
        clock.advance(60)
        await ended(calls, 2)
        (document,) = calls.emulator.documents(one)
        zebras, lions = await found(calls, one, "zebra"), await found(calls, one, "lion")

    assert document.status == "completed"
    assert document.chunks == 20 + old
    assert (len(zebras), len(lions)) == (old, 20)


async def test_completed_is_shown_by_the_first_run_and_taken_back() -> None:
    """A client that believes it sends again too early, and doubles the chunks (1778 to 1782)."""
    clock = ManualClock()
    async with serving(clock=clock, settings=FOUR) as calls:
        one = await calls.dataset()
        first, second = await overlapping(calls, clock, one, "indexing", 25)
        batch = second.body["batch"]
        clock.advance(5)
        await ended(calls, 1)
        early = await calls.status(one, batch)
        clock.advance(5)
        back = await calls.reached(one, batch, "splitting")
        clock.advance(60)
        await ended(calls, 2)
        late = await calls.status(one, batch)
        stale = await calls.call(
            "GET", f"/datasets/{one}/documents/{first.body['batch']}/indexing-status"
        )

    assert early["indexing_status"] == "completed"
    assert early["completed_segments"] == early["total_segments"] == 0
    assert back["completed_at"] is not None
    assert (late["completed_segments"], late["total_segments"]) == (20, 20)
    assert stale.status == 404


async def test_completed_may_come_while_chunks_of_another_run_are_not_indexed() -> None:
    """As with `completed`, 234 of 811 chunks (measured, 1.14.2)."""
    clock = ManualClock()
    async with serving(clock=clock, settings=FOUR) as calls:
        one = await calls.dataset()
        _, second = await overlapping(calls, clock, one, "splitting", 15)
        clock.advance(15)
        await ended(calls, 1)
        await until(lambda: calls.emulator.documents(one)[0].chunks == 20)
        early = await calls.status(one, second.body["batch"])

    assert early["indexing_status"] == "completed"
    assert early["completed_segments"] < early["total_segments"]


async def test_chunks_are_counted_as_they_are_inserted() -> None:
    """`total_segments` grows while it splits, `completed_segments` at the end."""
    clock = ManualClock()
    async with serving(clock=clock, settings=FOUR) as calls:
        one = await calls.dataset()
        made = await calls.write(one, "a.txt", OLD, process_rule=RULE)
        await calls.reached(one, made.body["batch"], "parsing")
        clock.advance(14)
        await until(lambda: calls.emulator.documents(one)[0].chunks > 0)
        await until(lambda: calls.emulator.documents(one)[0].chunks == 8)
        entry = await calls.status(one, made.body["batch"])

    assert entry["indexing_status"] == "splitting"
    assert (entry["completed_segments"], entry["total_segments"]) == (0, 8)
