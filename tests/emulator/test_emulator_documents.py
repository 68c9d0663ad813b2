from __future__ import annotations

import re

import pytest
from emulator_client import run_emulator

from dify_kb.emulator import VERSIONS, ManualClock, Settings
from dify_kb.emulator.handlers import HANDLERS
from dify_kb.emulator.store import Store
from dify_kb.wire.catalog import ENDPOINTS


def test_every_endpoint_has_one_handler() -> None:
    assert sorted(served.endpoint.name for served in HANDLERS) == sorted(
        endpoint.name for endpoint in ENDPOINTS
    )


async def test_created_file_is_indexed_and_searchable() -> None:
    async with run_emulator() as client:
        dataset_id = await client.create_dataset()
        created = await client.create_by_file(dataset_id, "fox.txt", b"the quick brown fox")
        entry = await client.wait_until_indexed(dataset_id, created)
        hits = await client.retrieve(dataset_id, "fox")
        dataset = await client.request("GET", f"/datasets/{dataset_id}")

    assert re.fullmatch(r"\d{14}[1-9]\d{5}", created.body["batch"])
    assert created.body["document"]["indexing_status"] == "waiting"
    assert created.body["document"]["word_count"] is None
    assert (entry["completed_segments"], entry["total_segments"]) == (1, 1)
    (record,) = hits.body["records"]
    assert record["segment"]["content"] == "the quick brown fox"
    assert record["score"] == 0.0
    assert (record["child_chunks"], record["files"]) == ([], [])
    assert dataset.body["word_count"] == 19
    assert dataset.body["total_available_documents"] == 1
    assert dataset.body["retrieval_model_dict"]["search_method"] == "keyword_search"


async def test_create_with_the_same_name_replaces_in_place() -> None:
    """This makes a repeated create safe, and the old batch id a 404 (measured)."""
    clock = ManualClock()
    async with run_emulator(clock=clock) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt", b"the first fox")
        await client.wait_until_indexed(dataset, first)
        clock.advance(60)
        second = await client.create_by_file(dataset, "a.txt", b"zebra")
        old = await client.request(
            "GET", f"/datasets/{dataset}/documents/{first.body['batch']}/indexing-status"
        )
        await client.wait_until_indexed(dataset, second)
        fox, zebra = await client.retrieve(dataset, "fox"), await client.retrieve(dataset, "zebra")

    before, after = first.body["document"], second.body["document"]
    assert {name for name in before if before[name] != after[name]} == {
        "data_source_info",
        "data_source_detail_dict",
        "dataset_process_rule_id",
        # These keep old values until the indexer overwrites them.
        "word_count",
        "tokens",
    }
    assert after["word_count"] == 13
    assert old.status == 404
    assert len(fox.body["records"]) == 0
    assert len(zebra.body["records"]) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_duplicate_false_adds_a_document_and_the_newest_is_replaced(version: str) -> None:
    """1.4 replaces the oldest, unless it was replaced before (178; measured)."""
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt")
        twin = await client.create_by_file(dataset, "a.txt", duplicate=False)
        later = [await client.create_by_file(dataset, "a.txt") for _ in range(3)]
        text = await client.create_by_text(dataset, "a.txt", duplicate=False)

    old, new = (response.body["document"]["id"] for response in (first, twin))
    assert old != new
    expected = [old, new, new] if version == "1.4.3" else [new] * 3
    assert [response.body["document"]["id"] for response in later] == expected
    # A create by text always replaces.
    assert text.body["document"]["id"] == new


async def test_times_of_the_previous_run_stay_visible_while_waiting() -> None:
    """`completed_at` therefore does not mean that indexing is done (measured)."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(parsing=1, workers=1)) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt")
        await client.wait_for_status(dataset, first.body["batch"], "parsing")
        clock.advance(1)
        await client.wait_until_indexed(dataset, first)
        blocker = await client.create_by_file(dataset, "b.txt")
        await client.wait_for_status(dataset, blocker.body["batch"], "parsing")
        again = await client.create_by_file(dataset, "a.txt")
        entry = await client.get_indexing_status(dataset, again.body["batch"])

    assert entry["indexing_status"] == "waiting"
    assert entry["completed_at"] is not None
    assert (entry["completed_segments"], entry["total_segments"]) == (1, 1)


async def test_indexing_stages_are_reported_while_they_last() -> None:
    clock = ManualClock()
    stages = Settings(parsing=1, splitting=1, indexing=1)
    async with run_emulator(clock=clock, settings=stages) as client:
        dataset = await client.create_dataset()
        created = await client.create_by_file(dataset, "a.txt")
        seen = []
        for stage in ("parsing", "splitting", "indexing", "completed"):
            entry = await client.wait_for_status(dataset, created.body["batch"], stage)
            seen.append((entry["completed_segments"], entry["total_segments"]))
            clock.advance(1)

    assert seen == [(0, 0), (0, 0), (0, 1), (1, 1)]


async def test_elapsed_time_counts_for_all_queued_documents() -> None:
    clock = ManualClock()
    settings = Settings(workers=1, parsing=1, indexing=1)
    async with run_emulator(clock=clock, settings=settings) as client:
        dataset = await client.create_dataset()
        responses = [await client.create_by_file(dataset, f"{number}.txt") for number in range(30)]
        clock.advance(59)
        await client.wait_until_indexed(dataset, responses[28])
        last = await client.wait_for_status(dataset, responses[29].body["batch"], "indexing")
        clock.advance(1)
        await client.wait_until_indexed(dataset, responses[29])

    assert last["completed_segments"] == 0


@pytest.mark.parametrize(("workers", "chunks"), [(1, 3), (2, 6)])
async def test_concurrent_runs_leave_the_chunks_of_both(workers: int, chunks: int) -> None:
    """A blind repeat of a create corrupts retrieval without an error (measured)."""
    clock = ManualClock()
    text = b"\n\n".join(letter * 400 for letter in (b"a", b"b", b"c"))
    async with run_emulator(clock=clock, settings=Settings(workers=workers, splitting=1)) as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt", text)
        await client.wait_for_status(dataset, first.body["batch"], "splitting")
        second = await client.create_by_file(dataset, "a.txt", text)
        if workers > 1:
            await client.wait_for_status(dataset, second.body["batch"], "splitting")
        clock.advance(2)
        while True:
            entry = await client.wait_until_indexed(dataset, second)
            if entry["completed_segments"] == chunks:
                break

    assert entry["total_segments"] == chunks


async def test_a_deleted_document_leaves_nothing_behind() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(splitting=1)) as client:
        dataset = await client.create_dataset()
        created = await client.create_by_file(dataset, "a.txt", b"zebra")
        await client.wait_for_status(dataset, created.body["batch"], "splitting")
        document = created.body["document"]["id"]
        await client.request("DELETE", f"/datasets/{dataset}/documents/{document}")
        after = await client.create_by_file(dataset, "b.txt", b"zebra")
        clock.advance(5)
        await client.wait_until_indexed(dataset, after)
        hits = await client.retrieve(dataset, "zebra")

    (record,) = hits.body["records"]
    assert record["segment"]["document"]["name"] == "b.txt"


async def test_disabled_documents_are_neither_found_nor_replaced() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt", b"zebra")
        await client.wait_until_indexed(dataset, first)
        document = first.body["document"]["id"]
        status, ids = f"/datasets/{dataset}/documents/status", {"document_ids": [document]}
        await client.request("PATCH", f"{status}/disable", json=ids)
        hits = await client.retrieve(dataset, "zebra")
        second = await client.create_by_file(dataset, "a.txt")
        await client.request("PATCH", f"{status}/archive", json=ids)
        archived = await client.request("DELETE", f"/datasets/{dataset}/documents/{document}")

    assert hits.body["records"] == []
    assert second.body["document"]["id"] != document
    assert (archived.status, archived.body["code"]) == (403, "archived_document_immutable")


async def test_search_slices_its_hits_by_top_k() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        created = [
            await client.create_by_text(dataset, f"{number}", "a zebra") for number in range(4)
        ]
        await client.wait_until_indexed(dataset, created[-1])
        counts = [
            len((await client.retrieve(dataset, "zebra", top_k=top_k)).body["records"])
            for top_k in (10, 2, 0, -1)
        ]
        bogus = await client.retrieve(dataset, "zebra", search_method="bogus")
        incomplete = await client.request(
            "POST",
            f"/datasets/{dataset}/retrieve",
            json={"query": "a", "retrieval_model": {"search_method": "keyword_search"}},
        )

    assert counts == [4, 2, 0, 3]
    assert bogus.status == 400
    assert incomplete.status == 400
    assert incomplete.body["message"].startswith("3 validation errors for HitTestingPayload")


async def test_text_size_is_in_characters_and_a_long_name_is_cut() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        response = await client.create_by_text(dataset, "n" * 300, "資料")

    document = response.body["document"]
    assert document["name"] == "n" * 200
    assert document["data_source_detail_dict"]["upload_file"]["size"] == 2


async def test_technique_of_the_first_document_is_kept() -> None:
    async with run_emulator() as client:
        bare = await client.create_dataset("bare", indexing_technique=None)
        first = await client.create_by_file(bare, "a.txt")
        dataset = await client.request("GET", f"/datasets/{bare}")
        other = await client.create_by_file(bare, "b.txt", indexing_technique="high_quality")

    assert first.status == 200
    assert dataset.body["indexing_technique"] == "economy"
    assert dataset.body["data_source_type"] == "upload_file"
    assert dataset.body["doc_form"] == "text_model"
    assert other.status == 200


def test_a_create_does_not_read_the_whole_dataset() -> None:
    """A create into 10,000 documents must be as fast as into 100."""
    store = Store(None)
    plan = store._database.fetch_all(
        "EXPLAIN QUERY PLAN SELECT id FROM documents WHERE dataset_id = 'a' AND name = 'b'"
        " AND enabled ORDER BY created_at DESC, position DESC LIMIT 1"
    )
    store.close()

    assert [row[3] for row in plan] == [
        "SEARCH documents USING INDEX documents_by_name (dataset_id=? AND name=?)"
    ]
