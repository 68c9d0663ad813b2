"""Updates of documents: content, status, and download of their files."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_client import UNKNOWN_ID, EmulatorClient, Response, run_emulator

from dify_kb.emulator import ManualClock, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


async def create_document(
    client: EmulatorClient, name: str = "a", text: str = "a zebra"
) -> tuple[str, Any]:
    dataset = await client.create_dataset(f"of {name}")
    created = await client.create_by_text(dataset, name, text)
    await client.wait_until_indexed(dataset, created)
    return dataset, created.body


async def update(client: EmulatorClient, dataset: str, document: str, **body: object) -> Response:
    path = f"/datasets/{dataset}/documents/{document}/update-by-text"
    return await client.request("POST", path, json=body)


async def count_hits(client: EmulatorClient, dataset: str, query: str) -> int:
    return len((await client.retrieve(dataset, query)).body["records"])


async def test_update_keeps_id_and_batch_and_changes_the_chunks() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        after = await update(client, dataset, before["document"]["id"], name="b", text="a lion")
        status = await client.wait_until_indexed(dataset, after)
        zebras, lions = (
            await count_hits(client, dataset, "zebra"),
            await count_hits(client, dataset, "lion"),
        )

    assert after.body["batch"] == before["batch"]
    assert after.body["document"]["id"] == before["document"]["id"]
    assert after.body["document"]["name"] == "b"
    assert after.body["document"]["created_from"] == "web"
    assert status["indexing_status"] == "completed"
    assert (zebras, lions) == (0, 1)


async def test_update_of_the_rule_alone_keeps_the_text() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        rule = {"mode": "automatic"}
        after = await update(client, dataset, before["document"]["id"], process_rule=rule)
        await client.wait_until_indexed(dataset, after)
        zebras = await count_hits(client, dataset, "zebra")

    assert after.body["document"]["name"] == "a"
    assert zebras == 1


@pytest.mark.parametrize("body", [{}, {"name": "c"}, {"text": "c"}])
async def test_an_update_without_a_text_and_its_name_is_refused(body: dict[str, object]) -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        response = await update(client, dataset, before["document"]["id"], **body)

    assert (response.status, response.body["code"]) == (400, "invalid_param")


async def test_document_being_indexed_cannot_be_updated() -> None:
    async with run_emulator(settings=Settings(parsing=1), clock=ManualClock()) as client:
        dataset = await client.create_dataset()
        created = await client.create_by_text(dataset, "a")
        response = await update(
            client, dataset, created.body["document"]["id"], name="a", text="another"
        )

    assert (response.status, response.body["message"]) == (400, "Document is not available")


async def test_update_of_chunks_blocks_the_worker_of_1_12_forever() -> None:
    """A load that updates must detect this: the task never ends, and no error is reported."""
    async with run_emulator(version="1.12.1") as client:
        dataset, before = await create_document(client)
        after = await update(client, dataset, before["document"]["id"], name="a", text="a lion")
        behind = await client.create_by_text(dataset, "behind")
        await asyncio.sleep(0.05)
        hung = await client.get_indexing_status(dataset, after.body["batch"])
        waits = await client.get_indexing_status(dataset, behind.body["batch"])

    assert hung["indexing_status"] == waits["indexing_status"] == "waiting"


async def test_update_of_an_empty_document_does_not_block_the_worker() -> None:
    async with run_emulator(version="1.12.1") as client:
        dataset, before = await create_document(client, text="")
        after = await update(client, dataset, before["document"]["id"], name="a", text="a lion")
        status = await client.wait_until_indexed(dataset, after)

    assert status["indexing_status"] == "completed"


async def test_a_file_is_updated_by_patch_or_by_the_older_path() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}"
        form = {"data": json.dumps({"name": "named"}), "file": io.BytesIO(b"a lion")}
        patched = await client.request("PATCH", path, data=_form(form))
        await client.wait_until_indexed(dataset, patched)
        posted = await client.request(
            "POST", f"{path}/update_by_file", data=_form({"file": b"a cow"})
        )
        await client.wait_until_indexed(dataset, posted)
        cows = await count_hits(client, dataset, "cow")

    assert (patched.status, patched.body["document"]["name"]) == (200, "named")
    assert (posted.status, posted.body["document"]["name"]) == (200, "f.txt")
    assert cows == 1


def _form(fields: dict[str, Any], filename: str = "f.txt") -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for name, value in fields.items():
        if name == "file":
            content = value if isinstance(value, bytes) else value.getvalue()
            form.add_field(name, io.BytesIO(content), filename=filename)
        else:
            form.add_field(name, value)
    return form


@pytest.mark.parametrize("version", ["1.14.2", "1.16"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"doc_form": "qa_model"}, "doc_form is different from the dataset doc_form."),
        ({"doc_form": "zzz"}, "1 validation error for KnowledgeConfig"),
    ],
)
async def test_update_with_another_form_does_not_change_the_dataset(
    version: str, data: dict[str, str], message: str
) -> None:
    """Recordings 1398, 1399 and 1403."""
    async with run_emulator(version=version) as client:
        dataset, before = await create_document(client)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}"
        parts = aiohttp.FormData({"data": json.dumps(data)})
        parts.add_field("file", b"other", filename="b.txt")
        response = await client.request("PATCH", path, data=parts)
        again = await client.create_by_text(dataset, "another")
        shown = await client.request("GET", f"/datasets/{dataset}")

    assert response.status == 400
    assert response.body["message"].startswith(message)
    assert (again.status, shown.body["doc_form"]) == (200, "text_model")


async def test_unsupported_file_is_refused_with_a_message() -> None:
    async with run_emulator(settings=Settings(max_file_size=10)) as client:
        dataset, before = await create_document(client)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/update-by-file"
        kind = await client.request("POST", path, data=_form({"file": b"x"}, "x.exe"))
        size = await client.request("POST", path, data=_form({"file": b"x" * 11}))

    assert (kind.status, kind.body["code"]) == (415, "unsupported_file_type")
    assert (size.status, size.body["code"]) == (413, "file_too_large")


async def test_a_create_may_name_the_document_that_it_updates() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        document = before["document"]["id"]
        after = await client.create_by_text(dataset, "other", original_document_id=document)
        unknown = await client.create_by_text(dataset, "other", original_document_id=UNKNOWN_ID)

    assert after.body["document"]["id"] == document
    assert after.body["batch"] == before["batch"]
    assert unknown.status == 404


async def set_status(client: EmulatorClient, dataset: str, action: str, *ids: str) -> Response:
    path = f"/datasets/{dataset}/documents/status/{action}"
    return await client.request("PATCH", path, json={"document_ids": [*ids]})


async def list_display_statuses(client: EmulatorClient, dataset: str) -> Sequence[str]:
    response = await client.request("GET", f"/datasets/{dataset}/documents")
    return [document["display_status"] for document in response.body["data"]]


async def test_a_disabled_document_is_not_found_until_it_is_enabled() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        document = before["document"]["id"]
        disabled = await set_status(client, dataset, "disable", document)
        then = (
            await list_display_statuses(client, dataset),
            await count_hits(client, dataset, "zebra"),
        )
        await set_status(client, dataset, "enable", document)
        now = (
            await list_display_statuses(client, dataset),
            await count_hits(client, dataset, "zebra"),
        )

    assert disabled.body == {"result": "success"}
    assert then == (["disabled"], 0)
    assert now == (["available"], 1)


async def test_one_refusal_leaves_all_documents_unchanged() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        rules = {"pre_processing_rules": [], "segmentation": {"max_tokens": 10}}
        bad = await client.create_by_text(
            dataset, "bad", process_rule={"mode": "custom", "rules": rules}
        )
        await client.wait_until_indexed(dataset, bad)
        ids = before["document"]["id"], bad.body["document"]["id"]
        response = await set_status(client, dataset, "disable", *ids)
        now = await list_display_statuses(client, dataset)

    assert (response.status, response.body["code"]) == (400, "invalid_action")
    assert response.body["message"] == "Document: bad is not completed."
    assert sorted(now) == ["available", "error"]


async def test_unknown_documents_are_skipped_and_an_empty_list_succeeds() -> None:
    async with run_emulator() as client:
        dataset, _ = await create_document(client)
        responses = [
            await set_status(client, dataset, "archive", UNKNOWN_ID),
            await set_status(client, dataset, "bogus"),
            await set_status(client, dataset, "bogus", UNKNOWN_ID),
            await set_status(client, dataset, "archive", "abc"),
        ]

    assert [response.status for response in responses] == [200, 200, 400, 500]


async def test_status_lock_refuses_changes_until_it_expires() -> None:
    clock = ManualClock()
    async with run_emulator(settings=Settings(status_lock=600), clock=clock) as client:
        dataset, before = await create_document(client)
        document = before["document"]["id"]
        statuses = [(await set_status(client, dataset, "archive", document)).status]
        statuses.append((await set_status(client, dataset, "un_archive", document)).status)
        clock.advance(601)
        statuses.append((await set_status(client, dataset, "un_archive", document)).status)

    assert statuses == [200, 400, 200]


async def test_an_archived_document_is_not_deleted() -> None:
    async with run_emulator() as client:
        dataset, before = await create_document(client)
        document = before["document"]["id"]
        await set_status(client, dataset, "archive", document)
        response = await client.request("DELETE", f"/datasets/{dataset}/documents/{document}")

    assert (response.status, response.body["code"]) == (403, "archived_document_immutable")


async def fetch(client: EmulatorClient, url: str) -> Response:
    async with client.session.get(url, headers={"Authorization": ""}) as response:
        return Response(response.status, response.headers, await response.read())


async def test_signed_link_needs_no_key() -> None:
    clock = ManualClock()
    async with run_emulator(clock=clock) as client:
        dataset, before = await create_document(client, "a name.txt")
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/download"
        url = (await client.request("GET", path)).body["url"]
        file, forged = await fetch(client, url), await fetch(client, url.replace("sign=", "sign=x"))
        clock.advance(301)
        late = await fetch(client, url)

    assert (file.status, file.raw) == (200, b"a zebra")
    assert file.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20name.txt"
    assert (forged.status, late.status) == (404, 404)


async def test_old_versions_describe_a_file_with_links() -> None:
    async with run_emulator(version="1.8.1") as client:
        dataset, before = await create_document(client)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/upload-file"
        message = (await client.request("GET", path)).body
        file = await fetch(client, message["url"])

    assert (message["name"], message["size"]) == ("a", 7)
    assert file.raw == b"a zebra"


async def test_zip_has_every_file_under_a_unique_name() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        first = await client.create_by_file(dataset, "a.txt", b"one")
        second = await client.create_by_file(dataset, "a.txt", b"two", duplicate=False)
        ids = [response.body["document"]["id"] for response in (first, second)]
        path = f"/datasets/{dataset}/documents/download-zip"
        response = await client.request("POST", path, json={"document_ids": ids})
        unknown = await client.request("POST", path, json={"document_ids": [*ids, UNKNOWN_ID]})
        nothing = await client.request("POST", path, json={"document_ids": []})

    assert response.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.raw)) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == {"a.txt": b"one", "a (1).txt": b"two"}
    assert (unknown.status, nothing.status) == (404, 400)


async def test_dataset_update_changes_only_the_fields_sent() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset("one", description="old")
        path = f"/datasets/{dataset}"
        members = {"permission": "partial_members", "partial_member_list": [{"user_id": "u1"}]}
        shared = await client.request("PATCH", path, json=members)
        renamed = await client.request("PATCH", path, json={"name": "two", "description": None})
        shown = await client.request("GET", path)
        unknown = await client.request("PATCH", path, json={"indexing_technique": "high_quality"})

    assert shared.body["partial_member_list"] == ["u1"]
    assert (renamed.body["name"], renamed.body["description"]) == ("two", None)
    assert shown.body["partial_member_list"] == ["u1"]
    assert unknown.status == 500
