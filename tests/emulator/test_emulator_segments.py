from __future__ import annotations

from typing import Any

import pytest
from emulator_calls import NOBODY, Calls, Reply, serving
from emulator_chunked import chunked

from dify_kb.emulator import VERSIONS, ManualClock

Body = dict[str, Any]

CHAIN = "The server finds a chunk under any document up to 1.12 (measured)."


async def add(calls: Calls, path: str, *segments: object) -> Reply:
    return await calls.call("POST", path, json={"segments": [*segments]})


async def change(calls: Calls, path: str, **changes: object) -> Reply:
    return await calls.call("POST", path, json={"segment": changes})


async def found(calls: Calls, dataset: str, query: str) -> list[str]:
    reply = await calls.search(dataset, query)
    return [record["segment"]["content"] for record in reply.body["records"]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_new_chunks_are_appended_and_found(version: str) -> None:
    async with serving(version=version) as calls:
        dataset, path = await chunked(calls)
        two = await add(
            calls,
            path,
            {"content": "about pods", "keywords": ["kubernetes"]},
            {"content": "two B", "answer": "ignored"},
        )
        listed = await calls.call("GET", path)
        by_keyword = await found(calls, dataset, "kubernetes")
        by_content = await found(calls, dataset, "pods")
        documents = await calls.call("GET", f"/datasets/{dataset}/documents")

    assert two.status == 200
    assert two.body["doc_form"] == "text_model"
    assert [segment["position"] for segment in two.body["data"]] == [2, 3]
    first, second = two.body["data"]
    assert (first["keywords"], first["word_count"], first["status"]) == (
        ["kubernetes"], 10, "completed",
    )  # fmt: skip
    assert second["answer"] is None
    assert (second["updated_by"], second["child_chunks"]) == (None, [])
    assert ("attachments" in first) == (version in {"1.12.1", "1.16"})
    assert listed.body["data"][1:] == two.body["data"]
    assert {name: listed.body[name] for name in listed.body if name != "data"} == {
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
async def test_all_chunks_are_checked_before_any_is_made(
    segments: list[Body], status: int, body: object
) -> None:
    async with serving(version="1.12.1") as calls:
        _, path = await chunked(calls)
        reply = await add(calls, path, *segments)
        listed = await calls.call("GET", path)

    assert reply.status == status
    assert body in (reply.body, reply.body.get("message"))
    assert listed.body["total"] == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_create_without_chunks_has_an_envelope_of_its_own(version: str) -> None:
    async with serving(version=version) as calls:
        _, path = await chunked(calls)
        reply = await calls.call("POST", path, json={"segments": None})

    assert reply.status == 400
    assert [*reply.body] == ["error"]
    if version != "1.16":
        assert reply.body == {"error": "Segments is required"}


async def test_a_document_that_is_not_ready_takes_no_chunks() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as calls:
        dataset, path = await chunked(calls)
        document = path.split("/")[4]
        switch = f"/datasets/{dataset}/documents/status/disable"
        await calls.call("PATCH", switch, json={"document_ids": [document]})
        disabled = await add(calls, path, {"content": "x"})
        shown = await calls.call("GET", path)
        unknown = await add(calls, path.replace(document, NOBODY), {"content": "x"})
        searched = await found(calls, dataset, "fox")
        await calls.call(
            "PATCH", switch.replace("disable", "enable"), json={"document_ids": [document]}
        )
        again = await found(calls, dataset, "fox")

    assert (disabled.status, disabled.body["message"]) == (404, "Document is disabled.")
    assert (unknown.status, unknown.body["message"]) == (404, "Document not found.")
    assert shown.body["data"][0]["enabled"] is False
    assert (searched, again) == ([], ["the quick fox"])


async def test_a_changed_chunk_is_found_by_its_new_words_only() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as calls:
        dataset, path = await chunked(calls)
        (before,) = (await calls.call("GET", path)).body["data"]
        one = f"{path}/{before['id']}"
        clock.advance(60)
        changed = await change(calls, one, content="a slow zebra", answer="none here")
        same = await change(calls, one, content="")
        fox, zebra = await found(calls, dataset, "fox"), await found(calls, dataset, "zebra")
        shown = await calls.call("GET", one)

    after = changed.body["data"]
    assert {name for name in before if before[name] != after[name]} == {
        "content", "sign_content", "word_count", "keywords", "index_node_hash", "updated_at",
        "updated_by", "indexing_at", "completed_at",
    }  # fmt: skip
    assert same.body["data"]["content"] == "a slow zebra"
    assert (fox, zebra) == ([], ["a slow zebra"])
    assert shown.body == same.body == {"data": after, "doc_form": "text_model"}


async def test_keywords_are_kept_until_others_are_given_or_found_anew() -> None:
    """Recordings 560 to 568: enabling a chunk finds its keywords anew."""
    async with serving() as calls:
        _, path = await chunked(calls)
        created = await add(calls, path, {"content": "about pods", "keywords": ["k8s"]})
        one = f"{path}/{created.body['data'][0]['id']}"
        replies = [
            await change(calls, one, content="about pods"),
            await change(calls, one, keywords=["zzz", "yyy"]),
            await change(calls, one),
            await change(calls, one, enabled=True),
        ]

    assert [reply.body["data"]["keywords"] for reply in replies] == [
        ["k8s"], ["zzz", "yyy"], ["zzz", "yyy"], ["about", "pods"],
    ]  # fmt: skip


async def test_a_disabled_chunk_is_not_found_nor_changed() -> None:
    async with serving() as calls:
        dataset, path = await chunked(calls)
        (segment,) = (await calls.call("GET", path)).body["data"]
        one = f"{path}/{segment['id']}"
        off = await change(calls, one, enabled=False, content="dropped")
        hidden = await found(calls, dataset, "fox")
        refused = await change(calls, one, content="x")
        on = await change(calls, one, enabled=True)
        shown = await found(calls, dataset, "fox")

    assert off.body["data"]["enabled"] is False
    assert off.body["data"]["content"] == "the quick fox"
    assert off.body["data"]["disabled_by"] is not None
    assert (hidden, shown) == ([], ["the quick fox"])
    assert (refused.status, refused.body["message"]) == (400, "Can't update disabled segment")
    assert (on.body["data"]["enabled"], on.body["data"]["disabled_at"]) == (True, None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_deleted_chunk_leaves_its_position_empty(version: str) -> None:
    async with serving(version=version) as calls:
        dataset, path = await chunked(calls)
        created = await add(calls, path, {"content": "two zebra"}, {"content": "three"})
        one = f"{path}/{created.body['data'][0]['id']}"
        deleted = await calls.call("DELETE", one)
        again = await calls.call("DELETE", one)
        gone = await calls.call("GET", one)
        searched = await found(calls, dataset, "zebra")
        listed = await calls.call("GET", path)

    assert (deleted.status, deleted.raw) == ((204, b"") if version == "1.16" else (200, b"204\n"))
    assert [reply.body["message"] for reply in (again, gone)] == ["Segment not found."] * 2
    assert searched == []
    assert [segment["position"] for segment in listed.body["data"]] == [1, 3]


@pytest.mark.parametrize(
    ("query", "total", "rows"),
    [
        ({"keyword": "TWO"}, 2, [2, 3]),
        ({"status": "bogus"}, 0, []),
        ([("status", "completed"), ("status", "indexing")], 4, [1, 2, 3, 4]),
        ({"page": "2", "limit": "3"}, 4, [4]),
        ({"page": "9"}, 4, []),
        ({"limit": "abc", "page": "abc"}, 4, [1, 2, 3, 4]),
    ],
)
async def test_lists_show_what_was_asked_for(query: Any, total: int, rows: list[int]) -> None:
    async with serving() as calls:
        _, path = await chunked(calls)
        await add(calls, path, {"content": "two a"}, {"content": "two b"}, {"content": "three"})
        reply = await calls.call("GET", path, params=query)

    assert reply.body["total"] == total
    assert [segment["position"] for segment in reply.body["data"]] == rows


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.16", 400)])
async def test_a_limit_below_one_is_the_default_and_echoed(version: str, status: int) -> None:
    async with serving(version=version) as calls:
        _, path = await chunked(calls)
        reply = await calls.call("GET", path, params={"limit": "0"})

    assert reply.status == status
    if status == 200:
        assert (reply.body["limit"], reply.body["has_more"]) == (0, False)
        assert len(reply.body["data"]) == 1


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.16", 404)])
async def test_a_chunk_is_found_under_another_document(version: str, status: int) -> None:
    async with serving(version=version) as calls:
        dataset, path = await chunked(calls)
        (segment,) = (await calls.call("GET", path)).body["data"]
        other = await calls.write(dataset, "b.txt", "x")
        under = path.replace(path.split("/")[4], other.body["document"]["id"])
        reply = await calls.call("GET", f"{under}/{segment['id']}")

    assert reply.status == status, CHAIN


async def test_questions_need_answers() -> None:
    """Recordings 623 to 627: an update without one clears it."""
    async with serving() as calls:
        _, path = await chunked(calls, doc_form="qa_model")
        created = await add(calls, path, {"content": "What is it?", "answer": "A queue"})
        refused = await add(calls, path, {"content": "What?"})
        one = f"{path}/{created.body['data'][0]['id']}"
        changed = await change(calls, one, content="Only the question")

    assert created.body["data"][0]["word_count"] == 18
    assert (refused.status, refused.body["message"]) == (400, "Answer is required")
    assert changed.body["data"]["answer"] is None
    assert changed.body["data"]["word_count"] == 17
