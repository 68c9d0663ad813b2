"""Child chunks in every server version."""

from __future__ import annotations

import pytest
from emulator_client import UNKNOWN_ID, EmulatorClient, run_emulator
from emulator_documents import create_chunked_document

from dify_kb.emulator import VERSIONS


async def create_segment(client: EmulatorClient) -> tuple[str, str]:
    _, path = await create_chunked_document(client)
    (segment,) = (await client.request("GET", path)).body["data"]
    return f"{path}/{segment['id']}/child_chunks", segment["id"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_child_chunks_are_created_in_any_dataset(version: str) -> None:
    async with run_emulator(version=version) as client:
        path, segment = await create_segment(client)
        empty = await client.request("GET", path)
        created = await client.request("POST", path, json={"content": "a child"})
        await client.request("POST", path, json={"content": ""})
        listing = await client.request("GET", path, params={"limit": "101"})
        by_keyword = await client.request("GET", path, params={"keyword": "CHILD"})

    assert empty.body == {"data": [], "total": 0, "total_pages": 0, "page": 1, "limit": 20}
    child = created.body["data"]
    assert {**child, "id": "", "created_at": 0, "updated_at": 0} == {
        "id": "", "segment_id": segment, "content": "a child", "position": 1, "word_count": 7,
        "type": "customized", "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    assert [row["position"] for row in listing.body["data"]] == [1, 2]
    assert (listing.body["total_pages"], listing.body["limit"]) == (1, 100)
    assert by_keyword.body["data"] == [child]


@pytest.mark.parametrize(
    ("version", "updated", "deleted"),
    [("1.4.3", 200, 400), ("1.8.1", 404, 404), ("1.12.1", 200, 400), ("1.16", 200, 204)],
)
async def test_child_chunk_updates_and_deletes_depend_on_the_version(
    version: str, updated: int, deleted: int
) -> None:
    """1.8.1 never finds a child chunk; without a model no recorded version deletes one (603)."""
    async with run_emulator(version=version) as client:
        path, _ = await create_segment(client)
        created = await client.request("POST", path, json={"content": "a child"})
        one = f"{path}/{created.body['data']['id']}"
        patched = await client.request("PATCH", one, json={"content": "child v2"})
        gone = await client.request("DELETE", one)
        unknown = await client.request("PATCH", f"{path}/{UNKNOWN_ID}", json={"content": "x"})
        remaining = await client.request("GET", path)

    assert (patched.status, gone.status, unknown.status) == (updated, deleted, 404)
    assert remaining.body["total"] == (0 if deleted == 204 else 1)
    if updated == 200:
        assert patched.body["data"]["content"] == "child v2"


@pytest.mark.parametrize(("version", "status"), [("1.8.1", 200), ("1.12.1", 400), ("1.16", 400)])
async def test_child_chunk_pages_start_at_one(version: str, status: int) -> None:
    async with run_emulator(version=version) as client:
        path, _ = await create_segment(client)
        response = await client.request("GET", path, params={"limit": "0"})

    assert response.status == status
