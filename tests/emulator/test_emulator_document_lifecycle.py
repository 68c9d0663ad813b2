"""Names, statuses, originals and deletion of documents by version, as sync relies on them.

All of this was measured on 1.4.3, 1.12.1 and 1.14.2.
"""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from emulator_client import EmulatorClient, Response, run_emulator

from dify_kb.emulator import VERSIONS, ManualClock, Settings

every_version = pytest.mark.parametrize("version", VERSIONS)
with_status_routes = pytest.mark.parametrize("version", VERSIONS[1:])

NO_DEADLOCK = Settings(update_hangs=False)
NEWEST = frozenset({"1.14.2", "1.16"})
BROKEN_RULE = {
    "mode": "custom",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n", "max_tokens": 5},
    },
}


async def set_status(client: EmulatorClient, dataset: str, action: str, document: str) -> Response:
    path = f"/datasets/{dataset}/documents/status/{action}"
    return await client.request("PATCH", path, json={"document_ids": [document]})


async def index_file(
    client: EmulatorClient, dataset: str, name: str, content: bytes = b"zebra"
) -> str:
    """Create and index a document of a file; return its id."""
    created = await client.create_by_file(dataset, name, content)
    await client.wait_until_indexed(dataset, created)
    return str(created.body["document"]["id"])


async def get_row(client: EmulatorClient, dataset: str, document: str) -> Any:
    rows = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
    return next(row for row in rows if row["id"] == document)


@every_version
@pytest.mark.parametrize(
    "name", ["", '/ \\ : * ? " < > |', "a\nb", " lead", "trail ", "x" * 200, "名.txt"]
)
async def test_name_of_a_text_may_be_anything(version: str, name: str) -> None:
    async with run_emulator(version=version) as client:
        created = await client.create_by_text(await client.create_dataset(), name)

    assert (created.status, created.body["document"]["name"]) == (200, name)


@every_version
async def test_long_names_are_cut_with_the_extension_of_a_file_only(version: str) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        texts = [await client.create_by_text(dataset, "y" * 200 + f"{n}.txt") for n in (1, 2)]
        files = [
            await client.create_by_file(dataset, name)
            for name in ("z" * 250 + ".txt", "v1." + "a" * 300 + ".txt")
        ]

    first, second = (response.body["document"] for response in texts)
    assert (first["name"], first["id"]) == ("y" * 200, second["id"])
    names = [response.body["document"]["name"] for response in files]
    assert names == ["z" * 200 + ".txt", "v1.txt"]


@with_status_routes
@pytest.mark.parametrize("actions", [("disable", "archive"), ("archive", "disable")])
async def test_a_document_may_be_archived_and_disabled(
    version: str, actions: tuple[str, str]
) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        document = await index_file(client, dataset, "a.txt")
        statuses = [
            (await set_status(client, dataset, action, document)).status for action in actions
        ]
        row = await get_row(client, dataset, document)
        refused = await client.request("DELETE", f"/datasets/{dataset}/documents/{document}")
        await set_status(client, dataset, "un_archive", document)
        deleted = await client.request("DELETE", f"/datasets/{dataset}/documents/{document}")

    assert statuses == [200, 200]
    assert (row["archived"], row["enabled"], row["display_status"]) == (True, False, "archived")
    assert (refused.status, refused.body["code"]) == (403, "archived_document_immutable")
    assert deleted.status == (204 if version in NEWEST else 200)


async def test_1_4_has_no_routes_to_archive_or_disable() -> None:
    async with run_emulator(version="1.4.3") as client:
        response = await set_status(client, await client.create_dataset(), "archive", "x")

    assert response.status in {404, 405}


@every_version
@pytest.mark.parametrize("status", ["waiting", "parsing", "splitting", "indexing", "error"])
async def test_a_document_is_deleted_in_any_state_and_its_name_is_free_at_once(
    version: str, status: str
) -> None:
    clock = ManualClock()
    settings = Settings(workers=1, parsing=10, splitting=10, indexing=10)
    async with run_emulator(version=version, clock=clock, settings=settings) as client:
        dataset = await client.create_dataset()
        if status == "waiting":
            await client.create_by_text(dataset, "ahead", "x")
        rule = BROKEN_RULE if status == "error" else {"mode": "automatic"}
        created = await client.create_by_text(dataset, "a.txt", "zebra", process_rule=rule)
        batch, first = created.body["batch"], created.body["document"]["id"]
        if status != "waiting":
            await client.wait_for_status(dataset, batch, "parsing")
            clock.advance({"parsing": 0, "splitting": 15, "indexing": 25, "error": 15}[status])
        await client.wait_for_status(dataset, batch, status)
        deleted = await client.request("DELETE", f"/datasets/{dataset}/documents/{first}")
        again = await client.create_by_text(dataset, "a.txt", "lion")
        rows = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
        gone = await client.request("DELETE", f"/datasets/{dataset}/documents/{first}")

    assert deleted.status == (204 if version in NEWEST else 200)
    assert again.body["document"]["id"] != first
    assert first not in {row["id"] for row in rows}
    assert gone.status == 404


async def get_original(client: EmulatorClient, version: str, document_path: str) -> bytes:
    """Download the original, from another host, since the signature does not cover it."""
    route = "download" if version in NEWEST else "upload-file"
    body = (await client.request("GET", f"{document_path}/{route}")).body
    url = (body.get("download_url") or body["url"]).replace("127.0.0.1", "localhost")
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.14.2", "1.16"])
async def test_original_is_the_latest_file_whatever_the_chunks(version: str) -> None:
    async with run_emulator(version=version, settings=NO_DEADLOCK) as client:
        dataset = await client.create_dataset()
        document = await index_file(client, dataset, "a.txt", b"line\r\ntwo")
        path = f"/datasets/{dataset}/documents/{document}"
        originals = [await get_original(client, version, path)]
        (segment,) = (await client.request("GET", f"{path}/segments")).body["data"]
        edit = {"segment": {"content": "edited"}}
        await client.request("POST", f"{path}/segments/{segment['id']}", json=edit)
        originals.append(await get_original(client, version, path))
        await index_file(client, dataset, "a.txt", b"new file")
        originals.append(await get_original(client, version, path))
        text = {"name": "a.txt", "text": "by text"}
        await client.request("POST", f"{path}/update-by-text", json=text)
        originals.append(await get_original(client, version, path))

    assert originals == [b"line\r\ntwo", b"line\r\ntwo", b"new file", b"by text"]


async def test_1_12_has_no_route_to_the_original() -> None:
    async with run_emulator(version="1.12.1") as client:
        dataset = await client.create_dataset()
        path = f"/datasets/{dataset}/documents/{await index_file(client, dataset, 'a.txt')}"
        statuses = [
            (await client.request("GET", f"{path}/{route}")).status
            for route in ("download", "upload-file")
        ]

    assert statuses == [404, 404]


async def update_file(client: EmulatorClient, path: str, filename: str, **data: object) -> Response:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("data", json.dumps(data))
    form.add_field("file", b"lion", filename=filename)
    return await client.request("POST", f"{path}/update-by-file", data=form)


@every_version
async def test_renaming_keeps_the_name_of_the_file(version: str) -> None:
    """The name in the data of update-by-file wins over that of the file."""
    async with run_emulator(version=version, settings=NO_DEADLOCK) as client:
        dataset = await client.create_dataset()
        document = await index_file(client, dataset, "old.txt")
        path = f"/datasets/{dataset}/documents/{document}"
        before = await get_row(client, dataset, document)
        body = {"name": "new.txt", "process_rule": {"mode": "automatic"}}
        refused = await client.request("POST", f"{path}/update-by-text", json={"name": "x"})
        renamed = await client.request("POST", f"{path}/update-by-text", json=body)
        await client.wait_until_indexed(dataset, renamed)
        after = await get_row(client, dataset, document)
        by_file = await update_file(client, path, "third.txt")
        await client.wait_until_indexed(dataset, by_file)
        named = await update_file(client, path, "fourth.txt", name="wins.txt")

    assert refused.status == 400
    same = ("id", "position", "created_at", "data_source_detail_dict")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    names = [after["name"], *(response.body["document"]["name"] for response in (by_file, named))]
    assert names == ["new.txt", "third.txt", "wins.txt"]
    assert by_file.body["document"]["id"] == named.body["document"]["id"] == document


@with_status_routes
@pytest.mark.parametrize("action", ["disable", "archive"])
async def test_hidden_document_cannot_be_updated(version: str, action: str) -> None:
    async with run_emulator(version=version, settings=NO_DEADLOCK) as client:
        dataset = await client.create_dataset()
        document = await index_file(client, dataset, "a.txt")
        await set_status(client, dataset, action, document)
        path = f"/datasets/{dataset}/documents/{document}/update-by-text"
        response = await client.request("POST", path, json={"name": "a.txt", "text": "x"})

    assert (response.status, response.body["message"]) == (400, "Document is not available")
