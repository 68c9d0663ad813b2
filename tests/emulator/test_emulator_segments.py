from __future__ import annotations

from typing import Any

import pytest
from emulator_client import UNKNOWN_ID, EmulatorClient, Response, run_emulator
from emulator_documents import create_chunked_document

from dify_kb.emulator import VERSIONS, ManualClock

Body = dict[str, Any]

CHAIN = "up to 1.12 the server finds a chunk under any document (measured)"


async def add_segments(client: EmulatorClient, path: str, *segments: object) -> Response:
    return await client.request("POST", path, json={"segments": [*segments]})


async def update_segment(client: EmulatorClient, path: str, **changes: object) -> Response:
    return await client.request("POST", path, json={"segment": changes})


async def search_contents(client: EmulatorClient, dataset: str, query: str) -> list[str]:
    response = await client.retrieve(dataset, query)
    return [record["segment"]["content"] for record in response.body["records"]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_new_chunks_are_appended_and_found(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset, path = await create_chunked_document(client)
        two = await add_segments(
            client,
            path,
            {"content": "about pods", "keywords": ["kubernetes"]},
            {"content": "two B", "answer": "ignored"},
        )
        listing = await client.request("GET", path)
        by_keyword = await search_contents(client, dataset, "kubernetes")
        by_content = await search_contents(client, dataset, "pods")
        documents = await client.request("GET", f"/datasets/{dataset}/documents")

    assert two.status == 200
    assert two.body["doc_form"] == "text_model"
    assert [segment["position"] for segment in two.body["data"]] == [2, 3]
    first, second = two.body["data"]
    assert (first["keywords"], first["word_count"], first["status"]) == (
        ["kubernetes"], 10, "completed",
    )  # fmt: skip
    assert second["answer"] is None
    assert (second["updated_by"], second["child_chunks"]) == (None, [])
    assert ("attachments" in first) == (version in {"1.12.1", "1.14.2", "1.16"})
    assert listing.body["data"][1:] == two.body["data"]
    assert {name: listing.body[name] for name in listing.body if name != "data"} == {
        "doc_form": "text_model", "total": 3, "has_more": False, "limit": 20, "page": 1,
    }  # fmt: skip
    assert by_keyword == by_content == ["about pods"]
    assert documents.body["data"][0]["word_count"] == 13 + 10 + 5


@pytest.mark.parametrize(
    ("segments", "status", "body"),
    [
        ([], 200, {"data": [], "doc_form": "text_model"}),
        ([{"content": "good"}, {"content": " "}], 400, "Content is empty"),
        ([{"answer": "x"}], 400, "Content is empty"),
        ([{"content": 5}], 500, "Internal Server Error"),
    ],
)
async def test_all_chunks_are_checked_before_any_is_created(
    segments: list[Body], status: int, body: object
) -> None:
    async with run_emulator(version="1.12.1") as client:
        _, path = await create_chunked_document(client)
        response = await add_segments(client, path, *segments)
        listing = await client.request("GET", path)

    assert response.status == status
    assert body in (response.body, response.body.get("message"))
    assert listing.body["total"] == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_create_without_chunks_has_a_special_error_body(version: str) -> None:
    async with run_emulator(version=version) as client:
        _, path = await create_chunked_document(client)
        response = await client.request("POST", path, json={"segments": None})

    assert response.status == 400
    assert [*response.body] == ["error"]
    if version not in {"1.14.2", "1.16"}:
        assert response.body == {"error": "Segments is required"}


async def test_document_that_is_not_ready_refuses_chunks() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock) as client:
        dataset, path = await create_chunked_document(client)
        document = path.split("/")[4]
        switch = f"/datasets/{dataset}/documents/status/disable"
        await client.request("PATCH", switch, json={"document_ids": [document]})
        disabled = await add_segments(client, path, {"content": "x"})
        shown = await client.request("GET", path)
        unknown = await add_segments(client, path.replace(document, UNKNOWN_ID), {"content": "x"})
        searched = await search_contents(client, dataset, "fox")
        await client.request(
            "PATCH", switch.replace("disable", "enable"), json={"document_ids": [document]}
        )
        again = await search_contents(client, dataset, "fox")

    assert (disabled.status, disabled.body["message"]) == (404, "Document is disabled.")
    assert (unknown.status, unknown.body["message"]) == (404, "Document not found.")
    assert shown.body["data"][0]["enabled"] is False
    assert (searched, again) == ([], ["the quick fox"])


async def test_a_changed_chunk_is_found_by_its_new_words_only() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock) as client:
        dataset, path = await create_chunked_document(client)
        (before,) = (await client.request("GET", path)).body["data"]
        one = f"{path}/{before['id']}"
        clock.advance(60)
        changed = await update_segment(client, one, content="a slow zebra", answer="none here")
        same = await update_segment(client, one, content="")
        fox, zebra = (
            await search_contents(client, dataset, "fox"),
            await search_contents(client, dataset, "zebra"),
        )
        shown = await client.request("GET", one)

    after = changed.body["data"]
    assert {name for name in before if before[name] != after[name]} == {
        "content", "sign_content", "word_count", "keywords", "index_node_hash", "updated_at",
        "updated_by", "indexing_at", "completed_at",
    }  # fmt: skip
    assert same.body["data"]["content"] == "a slow zebra"
    assert (fox, zebra) == ([], ["a slow zebra"])
    assert shown.body == same.body == {"data": after, "doc_form": "text_model"}


async def test_keywords_are_kept_until_others_are_sent_or_extracted() -> None:
    """Recordings 560 to 568: enabling a chunk extracts its keywords again."""
    async with run_emulator() as client:
        _, path = await create_chunked_document(client)
        created = await add_segments(client, path, {"content": "about pods", "keywords": ["k8s"]})
        one = f"{path}/{created.body['data'][0]['id']}"
        responses = [
            await update_segment(client, one, content="about pods"),
            await update_segment(client, one, keywords=["zzz", "yyy"]),
            await update_segment(client, one),
            await update_segment(client, one, enabled=True),
        ]

    assert [response.body["data"]["keywords"] for response in responses] == [
        ["k8s"], ["zzz", "yyy"], ["zzz", "yyy"], ["about", "pods"],
    ]  # fmt: skip


async def test_a_disabled_chunk_is_not_found_nor_changed() -> None:
    async with run_emulator() as client:
        dataset, path = await create_chunked_document(client)
        (segment,) = (await client.request("GET", path)).body["data"]
        one = f"{path}/{segment['id']}"
        off = await update_segment(client, one, enabled=False, content="dropped")
        hidden = await search_contents(client, dataset, "fox")
        refused = await update_segment(client, one, content="x")
        on = await update_segment(client, one, enabled=True)
        shown = await search_contents(client, dataset, "fox")

    assert off.body["data"]["enabled"] is False
    assert off.body["data"]["content"] == "the quick fox"
    assert off.body["data"]["disabled_by"] is not None
    assert (hidden, shown) == ([], ["the quick fox"])
    assert (refused.status, refused.body["message"]) == (400, "Can't update disabled segment")
    assert (on.body["data"]["enabled"], on.body["data"]["disabled_at"]) == (True, None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_deleted_chunk_leaves_its_position_empty(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset, path = await create_chunked_document(client)
        created = await add_segments(client, path, {"content": "two zebra"}, {"content": "three"})
        one = f"{path}/{created.body['data'][0]['id']}"
        deleted = await client.request("DELETE", one)
        again = await client.request("DELETE", one)
        gone = await client.request("GET", one)
        searched = await search_contents(client, dataset, "zebra")
        listing = await client.request("GET", path)

    assert (deleted.status, deleted.raw) == (
        (204, b"") if version in {"1.14.2", "1.16"} else (200, b"204\n")
    )
    assert [response.body["message"] for response in (again, gone)] == ["Segment not found."] * 2
    assert searched == []
    assert [segment["position"] for segment in listing.body["data"]] == [1, 3]


@pytest.mark.parametrize(
    ("query", "total", "rows"),
    [
        ({"keyword": "TWO"}, 2, [2, 3]),
        ([("status", "completed"), ("status", "indexing")], 4, [1, 2, 3, 4]),
        ({"page": "2", "limit": "3"}, 4, [4]),
        ({"page": "9"}, 4, []),
        ({"limit": "abc", "page": "abc"}, 4, [1, 2, 3, 4]),
    ],
)
async def test_segment_list_filters_by_query(query: Any, total: int, rows: list[int]) -> None:
    async with run_emulator() as client:
        _, path = await create_chunked_document(client)
        await add_segments(
            client, path, {"content": "two a"}, {"content": "two b"}, {"content": "three"}
        )
        response = await client.request("GET", path, params=query)

    assert response.body["total"] == total
    assert [segment["position"] for segment in response.body["data"]] == rows


@pytest.mark.parametrize("status", ["bogus", "COMPLETED"])
@pytest.mark.parametrize(("version", "code"), [("1.12.1", 200), ("1.14.2", 500), ("1.16", 500)])
async def test_unknown_status_crashes_the_chunk_list_since_1_14(
    version: str, code: int, status: str
) -> None:
    async with run_emulator(version=version) as client:
        _, path = await create_chunked_document(client)
        response = await client.request("GET", path, params={"status": status})

    assert response.status == code


BAD_CHUNKS = {
    "at least 1 item": [],
    "Field required": [{"answer": "x"}],
    "at least 1 character": [{"content": "good"}, {"content": ""}],
    "Value error, Content is empty": [{"content": "   "}],
    "segments.0.keywords\n  Input should be a valid list": [{"content": "a", "keywords": "a,b"}],
    "segments.0.content\n  Input should be a valid string": [{"content": 5}],
}


@pytest.mark.parametrize("version", ["1.14.2", "1.16"])
@pytest.mark.parametrize("problem", BAD_CHUNKS)
async def test_every_field_of_new_chunks_is_checked_since_1_14(version: str, problem: str) -> None:
    """Recordings 533 to 543; nothing is stored if one chunk is invalid."""
    async with run_emulator(version=version) as client:
        _, path = await create_chunked_document(client)
        response = await client.request("POST", path, json={"segments": BAD_CHUNKS[problem]})
        listing = await client.request("GET", path)

    assert (response.status, [*response.body]) == (400, ["error"])
    assert problem in response.body["error"]
    assert listing.body["total"] == 1


async def test_more_than_ten_attachments_and_nul_are_no_chunk() -> None:
    async with run_emulator() as client:
        _, path = await create_chunked_document(client)
        attached = [{"content": "a", "attachment_ids": [UNKNOWN_ID] * count} for count in (10, 11)]
        statuses = [
            (await client.request("POST", path, json={"segments": [segment]})).status
            for segment in [*attached, {"content": "a\0b"}]
        ]

    assert statuses == [200, 400, 500]


@pytest.mark.parametrize("enabled", [True, False])
async def test_summary_of_a_chunk_needs_a_dataset_with_summaries(enabled: bool) -> None:  # noqa: FBT001 -- a parameter
    """Recordings 1511, 1516 and 2236."""
    async with run_emulator() as client:
        dataset = await client.create_dataset(summary_index_setting={"enable": enabled})
        created = await client.create_by_text(dataset, "a.txt")
        await client.wait_until_indexed(dataset, created)
        document = f"/datasets/{dataset}/documents/{created.body['document']['id']}"
        (segment,) = (await client.request("GET", f"{document}/segments")).body["data"]
        change = {"segment": {"content": "new", "summary": "by hand"}}
        await client.request("POST", f"{document}/segments/{segment['id']}", json=change)
        response = await client.request("GET", f"{document}/segments/{segment['id']}")
        detail = await client.request("GET", document)

    assert response.body["data"]["summary"] == ("by hand" if enabled else None)
    assert detail.body["need_summary"] == created.body["document"]["need_summary"] == enabled


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.14.2", 400)])
async def test_limit_below_one_means_the_default_and_is_echoed(version: str, status: int) -> None:
    async with run_emulator(version=version) as client:
        _, path = await create_chunked_document(client)
        response = await client.request("GET", path, params={"limit": "0"})

    assert response.status == status
    if status == 200:
        assert (response.body["limit"], response.body["has_more"]) == (0, False)
        assert len(response.body["data"]) == 1


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.14.2", 200), ("1.16", 404)])
async def test_chunk_is_found_under_another_document_before_1_16(version: str, status: int) -> None:
    async with run_emulator(version=version) as client:
        dataset, path = await create_chunked_document(client)
        (segment,) = (await client.request("GET", path)).body["data"]
        other = await client.create_by_text(dataset, "b.txt", "x")
        under = path.replace(path.split("/")[4], other.body["document"]["id"])
        response = await client.request("GET", f"{under}/{segment['id']}")

    assert response.status == status, CHAIN


async def test_question_without_an_answer_is_refused() -> None:
    """Recordings 623 to 627: an update without an answer clears it."""
    async with run_emulator() as client:
        _, path = await create_chunked_document(client, doc_form="qa_model")
        created = await add_segments(client, path, {"content": "What is it?", "answer": "A queue"})
        refused = await add_segments(client, path, {"content": "What?"})
        one = f"{path}/{created.body['data'][0]['id']}"
        changed = await update_segment(client, one, content="Only the question")

    assert created.body["data"][0]["word_count"] == 18
    assert (refused.status, refused.body["message"]) == (400, "Answer is required")
    assert changed.body["data"]["answer"] is None
    assert changed.body["data"]["word_count"] == 17
