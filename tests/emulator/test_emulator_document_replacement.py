"""Search results while a document is replaced, archived, disabled or indexed twice.

All of this was measured on 1.4.3, 1.12.1 and 1.14.2.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulator_client import EmulatorClient, Response, run_emulator, wait_until

from dify_kb.emulator import VERSIONS, ManualClock, Settings

every_version = pytest.mark.parametrize("version", VERSIONS)
with_status_routes = pytest.mark.parametrize("version", VERSIONS[1:])

SLOW = Settings(workers=1, parsing=1, splitting=1, indexing=1)
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


async def search_contents(client: EmulatorClient, dataset: str, query: str) -> list[str]:
    response = await client.retrieve(dataset, query, top_k=100)
    return [record["segment"]["content"] for record in response.body["records"]]


async def create_and_index(
    client: EmulatorClient, dataset: str, text: str, **fields: object
) -> Response:
    created = await client.create_by_text(dataset, "a.txt", text, **fields)
    await client.wait_until_indexed(dataset, created)
    return created


async def get_list_entry(client: EmulatorClient, dataset: str, document: str) -> Any:
    listing = await client.request("GET", f"/datasets/{dataset}/documents")
    return next(row for row in listing.body["data"] if row["id"] == document)


async def set_status(client: EmulatorClient, dataset: str, action: str, document: str) -> None:
    path = f"/datasets/{dataset}/documents/status/{action}"
    response = await client.request("PATCH", path, json={"document_ids": [document]})
    assert response.status == 200


def is_indexed(client: EmulatorClient, dataset: str) -> bool:
    return all(document.status == "completed" for document in client.emulator.documents(dataset))


@every_version
async def test_create_of_the_same_name_removes_old_content_when_its_run_starts(
    version: str,
) -> None:
    """While the run is queued, the old content is found; from its start on, nothing is found."""
    clock = ManualClock()
    async with run_emulator(version=version, clock=clock, settings=SLOW) as client:
        dataset = await client.create_dataset()
        await client.create_by_text(dataset, "a.txt", "an old zebra")
        clock.advance(3)
        await wait_until(lambda: is_indexed(client, dataset))
        ahead = await client.create_by_text(dataset, "b.txt", "something else")
        await client.wait_for_status(dataset, ahead.body["batch"], "parsing")

        again = await client.create_by_text(dataset, "a.txt", "a new lion")
        queued = await search_contents(client, dataset, "zebra")
        waiting = await client.get_indexing_status(dataset, again.body["batch"])
        clock.advance(3)
        await client.wait_for_status(dataset, again.body["batch"], "parsing")
        started = await search_contents(client, dataset, "zebra lion")
        clock.advance(3)
        await wait_until(lambda: is_indexed(client, dataset))
        ended = await search_contents(client, dataset, "zebra lion")

    assert (waiting["indexing_status"], waiting["total_segments"]) == ("waiting", 1)
    assert queued == ["an old zebra"]
    assert started == []
    assert ended == ["a new lion"]


@every_version
async def test_update_removes_old_content_when_it_is_requested(version: str) -> None:
    clock = ManualClock()
    settings = Settings(workers=1, parsing=1, update_hangs=False)
    async with run_emulator(version=version, clock=clock, settings=settings) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_text(dataset, "a.txt", "an old zebra")
        clock.advance(1)
        await wait_until(lambda: is_indexed(client, dataset))
        ahead = await client.create_by_text(dataset, "b.txt", "something else")
        await client.wait_for_status(dataset, ahead.body["batch"], "parsing")

        path = f"/datasets/{dataset}/documents/{first.body['document']['id']}/update-by-text"
        updated = await client.request("POST", path, json={"name": "a.txt", "text": "a new lion"})
        queued = await search_contents(client, dataset, "zebra lion")
        entry = await client.get_indexing_status(dataset, first.body["batch"])
        clock.advance(1)
        await client.wait_for_status(dataset, first.body["batch"], "parsing")
        clock.advance(1)
        await wait_until(lambda: is_indexed(client, dataset))
        ended = await search_contents(client, dataset, "zebra lion")

    assert updated.status == 200
    assert queued == []
    assert (entry["indexing_status"], entry["total_segments"]) == ("waiting", 0)
    assert ended == ["a new lion"]


@every_version
@pytest.mark.parametrize("by", ["create", "update"])
async def test_failed_replacement_leaves_no_content(version: str, by: str) -> None:
    settings = Settings(update_hangs=False)
    async with run_emulator(version=version, settings=settings) as client:
        dataset = await client.create_dataset()
        first = await create_and_index(client, dataset, "an old zebra")
        id_ = first.body["document"]["id"]
        broken = RULE | {"rules": {"segmentation": {"separator": "\n", "max_tokens": 5}}}
        broken["rules"]["pre_processing_rules"] = []  # type: ignore[index]

        if by == "create":
            last = await create_and_index(client, dataset, "a new lion", process_rule=broken)
        else:
            path = f"/datasets/{dataset}/documents/{id_}/update-by-text"
            body = {"name": "a.txt", "text": "a new lion", "process_rule": broken}
            last = await client.request("POST", path, json=body)
        entry = await client.wait_until_indexed(dataset, last)
        hits = await search_contents(client, dataset, "zebra lion")
        segments = await client.request("GET", f"/datasets/{dataset}/documents/{id_}/segments")

    assert entry["indexing_status"] == "error"
    assert hits == []
    assert segments.body["total"] == 0


@with_status_routes
async def test_create_makes_an_archived_document_searchable_again(version: str) -> None:
    """The document stays archived, so only `un_archive` and then `archive` hides it again."""
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        first = await create_and_index(client, dataset, "an old zebra")
        id_ = first.body["document"]["id"]
        await set_status(client, dataset, "archive", id_)
        hidden = await search_contents(client, dataset, "zebra")

        again = await create_and_index(client, dataset, "a new lion")
        back = await search_contents(client, dataset, "zebra lion")
        shown = await get_list_entry(client, dataset, id_)
        await set_status(client, dataset, "archive", id_)
        still = await search_contents(client, dataset, "zebra lion")
        await set_status(client, dataset, "un_archive", id_)
        await set_status(client, dataset, "archive", id_)
        cured = await search_contents(client, dataset, "zebra lion")

    assert hidden == []
    assert again.body["document"]["id"] == id_
    assert back == still == ["a new lion"]
    assert (shown["archived"], shown["display_status"]) == (True, "archived")
    assert cured == []


@with_status_routes
async def test_unarchived_document_is_searchable_again(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        first = await create_and_index(client, dataset, "an old zebra")
        id_ = first.body["document"]["id"]
        await set_status(client, dataset, "archive", id_)
        await set_status(client, dataset, "un_archive", id_)

        assert await search_contents(client, dataset, "zebra") == ["an old zebra"]


@with_status_routes
async def test_create_does_not_replace_a_disabled_document(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        first = await create_and_index(client, dataset, "an old zebra")
        id_ = first.body["document"]["id"]
        await set_status(client, dataset, "disable", id_)

        second = await create_and_index(client, dataset, "a new lion")
        rows = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
        hits = await search_contents(client, dataset, "zebra lion")

    other = second.body["document"]["id"]
    assert other != id_
    assert {row["id"]: row["enabled"] for row in rows} == {id_: False, other: True}
    assert hits == ["a new lion"]


@every_version
@pytest.mark.parametrize("spelling", ["text", "file"])
async def test_update_with_name_and_rule_renames_the_document(version: str, spelling: str) -> None:
    """Measured on 1.4.3 and 1.14.2: id, position and content stay, and it is indexed again."""
    settings = Settings(update_hangs=False)
    async with run_emulator(version=version, settings=settings) as client:
        dataset = await client.create_dataset()
        first = await create_and_index(client, dataset, "an old zebra")
        document = first.body["document"]
        path = f"/datasets/{dataset}/documents/{document['id']}/update-by-{spelling}"
        body = {"name": "b.txt", "process_rule": RULE}
        options = {"json": body} if spelling == "text" else {"data": {"data": json.dumps(body)}}
        renamed = await client.request("POST", path, **options)
        await client.wait_until_indexed(dataset, first)
        shown = await get_list_entry(client, dataset, document["id"])
        hits = await search_contents(client, dataset, "zebra")

    assert renamed.status == 200
    assert (shown["name"], shown["position"]) == ("b.txt", document["position"])
    assert hits == ["an old zebra"]


async def start_overlapping_runs(
    client: EmulatorClient, clock: ManualClock, dataset: str, status: str, seconds: float
) -> tuple[Response, Response]:
    """Create the new text when the first run is `seconds` old and has this status."""
    first = await client.create_by_text(dataset, "a.txt", OLD, process_rule=RULE)
    await client.wait_for_status(dataset, first.body["batch"], "parsing")
    clock.advance(seconds)
    await client.wait_for_status(dataset, first.body["batch"], status)
    if status != "parsing":
        inserted = {"splitting": 10, "indexing": 20}[status]
        await wait_until(lambda: client.emulator.documents(dataset)[0].chunks == inserted)
    second = await client.create_by_text(dataset, "a.txt", NEW, process_rule=RULE)
    await client.wait_for_status(dataset, second.body["batch"], "parsing")
    return first, second


async def wait_for_runs(client: EmulatorClient, count: int) -> None:
    await wait_until(lambda: sum(event.kind == "ended" for event in client.emulator.runs) == count)


@every_version
@pytest.mark.parametrize(
    ("status", "seconds", "old"), [("parsing", 5, 20), ("splitting", 15, 10), ("indexing", 25, 0)]
)
async def test_chunks_of_the_first_run_inserted_after_the_second_began_stay(
    version: str, status: str, seconds: float, old: int
) -> None:
    """Chunks are inserted during `splitting`; the second run deletes only the chunks at its start.

    A document therefore ends `completed` with new and old text, unless the first run had finished
    splitting.
    """
    clock = ManualClock()
    async with run_emulator(version=version, clock=clock, settings=FOUR) as client:
        dataset = await client.create_dataset()
        await start_overlapping_runs(client, clock, dataset, status, seconds)
        clock.advance(60)
        await wait_for_runs(client, 2)
        (document,) = client.emulator.documents(dataset)
        zebras, lions = (
            await search_contents(client, dataset, "zebra"),
            await search_contents(client, dataset, "lion"),
        )

    assert document.status == "completed"
    assert document.chunks == 20 + old
    assert (len(zebras), len(lions)) == (old, 20)


async def test_first_run_sets_completed_before_the_second_resets_it() -> None:
    """A client that trusts `completed` resends too early and doubles the chunks (1778 to 1782)."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=FOUR) as client:
        dataset = await client.create_dataset()
        first, second = await start_overlapping_runs(client, clock, dataset, "indexing", 25)
        batch = second.body["batch"]
        clock.advance(5)
        await wait_for_runs(client, 1)
        early = await client.get_indexing_status(dataset, batch)
        clock.advance(5)
        back = await client.wait_for_status(dataset, batch, "splitting")
        clock.advance(60)
        await wait_for_runs(client, 2)
        late = await client.get_indexing_status(dataset, batch)
        stale = await client.request(
            "GET", f"/datasets/{dataset}/documents/{first.body['batch']}/indexing-status"
        )

    assert early["indexing_status"] == "completed"
    assert early["completed_segments"] == early["total_segments"] == 0
    assert back["completed_at"] is not None
    assert (late["completed_segments"], late["total_segments"]) == (20, 20)
    assert stale.status == 404


async def test_completed_status_may_precede_indexing_of_another_runs_chunks() -> None:
    """Measured on 1.14.2: `completed` with 234 of 811 chunks indexed."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=FOUR) as client:
        dataset = await client.create_dataset()
        _, second = await start_overlapping_runs(client, clock, dataset, "splitting", 15)
        clock.advance(15)
        await wait_for_runs(client, 1)
        await wait_until(lambda: client.emulator.documents(dataset)[0].chunks == 20)
        early = await client.get_indexing_status(dataset, second.body["batch"])

    assert early["indexing_status"] == "completed"
    assert early["completed_segments"] < early["total_segments"]


async def test_chunks_are_counted_as_they_are_inserted() -> None:
    """`total_segments` grows during splitting, `completed_segments` only at the end."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=FOUR) as client:
        dataset = await client.create_dataset()
        created = await client.create_by_text(dataset, "a.txt", OLD, process_rule=RULE)
        await client.wait_for_status(dataset, created.body["batch"], "parsing")
        clock.advance(14)
        await wait_until(lambda: client.emulator.documents(dataset)[0].chunks > 0)
        await wait_until(lambda: client.emulator.documents(dataset)[0].chunks == 8)
        entry = await client.get_indexing_status(dataset, created.body["batch"])

    assert entry["indexing_status"] == "splitting"
    assert (entry["completed_segments"], entry["total_segments"]) == (0, 8)
