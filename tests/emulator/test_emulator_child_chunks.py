"""Child chunks, version by version."""

from __future__ import annotations

import pytest
from emulator_calls import NOBODY, Calls, serving
from emulator_chunked import chunked

from dify_kb.emulator import VERSIONS


async def children_of(calls: Calls) -> tuple[str, str]:
    _, path = await chunked(calls)
    (segment,) = (await calls.call("GET", path)).body["data"]
    return f"{path}/{segment['id']}/child_chunks", segment["id"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_child_chunks_are_made_on_any_base(version: str) -> None:
    async with serving(version=version) as calls:
        path, segment = await children_of(calls)
        empty = await calls.call("GET", path)
        made = await calls.call("POST", path, json={"content": "a child"})
        await calls.call("POST", path, json={"content": ""})
        listed = await calls.call("GET", path, params={"limit": "101"})
        by_keyword = await calls.call("GET", path, params={"keyword": "CHILD"})

    assert empty.body == {"data": [], "total": 0, "total_pages": 0, "page": 1, "limit": 20}
    child = made.body["data"]
    assert {**child, "id": "", "created_at": 0, "updated_at": 0} == {
        "id": "", "segment_id": segment, "content": "a child", "position": 1, "word_count": 7,
        "type": "customized", "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    assert [row["position"] for row in listed.body["data"]] == [1, 2]
    assert (listed.body["total_pages"], listed.body["limit"]) == (1, 100)
    assert by_keyword.body["data"] == [child]


@pytest.mark.parametrize(
    ("version", "updated", "deleted"),
    [("1.4.3", 200, 400), ("1.8.1", 404, 404), ("1.12.1", 200, 400), ("1.16", 200, 204)],
)
async def test_child_chunks_change_where_the_version_can(
    version: str, updated: int, deleted: int
) -> None:
    """1.8.1 never finds one; without a model no recorded version deletes one (603)."""
    async with serving(version=version) as calls:
        path, _ = await children_of(calls)
        made = await calls.call("POST", path, json={"content": "a child"})
        one = f"{path}/{made.body['data']['id']}"
        patched = await calls.call("PATCH", one, json={"content": "child v2"})
        gone = await calls.call("DELETE", one)
        unknown = await calls.call("PATCH", f"{path}/{NOBODY}", json={"content": "x"})
        left = await calls.call("GET", path)

    assert (patched.status, gone.status, unknown.status) == (updated, deleted, 404)
    assert left.body["total"] == (0 if deleted == 204 else 1)
    if updated == 200:
        assert patched.body["data"]["content"] == "child v2"


@pytest.mark.parametrize(("version", "status"), [("1.8.1", 200), ("1.12.1", 400), ("1.16", 400)])
async def test_child_chunk_pages_start_at_one(version: str, status: int) -> None:
    async with serving(version=version) as calls:
        path, _ = await children_of(calls)
        reply = await calls.call("GET", path, params={"limit": "0"})

    assert reply.status == status
