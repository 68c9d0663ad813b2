"""Documents that get another text or state, and their files."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_calls import NOBODY, Calls, Reply, serving

from dify_kb.emulator import ManualClock, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


async def made(calls: Calls, name: str = "a", text: str = "a zebra") -> tuple[str, Any]:
    dataset = await calls.dataset(f"of {name}")
    created = await calls.write(dataset, name, text)
    await calls.done(dataset, created)
    return dataset, created.body


async def update(calls: Calls, dataset: str, document: str, **body: object) -> Reply:
    path = f"/datasets/{dataset}/documents/{document}/update-by-text"
    return await calls.call("POST", path, json=body)


async def found(calls: Calls, dataset: str, query: str) -> int:
    return len((await calls.search(dataset, query)).body["records"])


async def test_an_update_keeps_id_and_batch_and_changes_the_chunks() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        after = await update(calls, dataset, before["document"]["id"], name="b", text="a lion")
        status = await calls.done(dataset, after)
        zebras, lions = await found(calls, dataset, "zebra"), await found(calls, dataset, "lion")

    assert after.body["batch"] == before["batch"]
    assert after.body["document"]["id"] == before["document"]["id"]
    assert after.body["document"]["name"] == "b"
    assert after.body["document"]["created_from"] == "web"
    assert status["indexing_status"] == "completed"
    assert (zebras, lions) == (0, 1)


async def test_a_rule_alone_leaves_the_text() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        rule = {"mode": "automatic"}
        after = await update(calls, dataset, before["document"]["id"], process_rule=rule)
        await calls.done(dataset, after)
        zebras = await found(calls, dataset, "zebra")

    assert after.body["document"]["name"] == "a"
    assert zebras == 1


@pytest.mark.parametrize("body", [{}, {"name": "c"}, {"text": "c"}])
async def test_an_update_without_a_text_and_its_name_is_refused(body: dict[str, object]) -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        reply = await update(calls, dataset, before["document"]["id"], **body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_param")


async def test_what_is_still_being_indexed_takes_no_update() -> None:
    async with serving(settings=Settings(parsing=1), clock=ManualClock()) as calls:
        dataset = await calls.dataset()
        created = await calls.write(dataset, "a")
        reply = await update(
            calls, dataset, created.body["document"]["id"], name="a", text="another"
        )

    assert (reply.status, reply.body["message"]) == (400, "Document is not available")


async def test_an_update_of_chunks_takes_the_worker_of_1_12_for_ever() -> None:
    """A load that updates must notice: the task never ends, and nobody is told."""
    async with serving(version="1.12.1") as calls:
        dataset, before = await made(calls)
        after = await update(calls, dataset, before["document"]["id"], name="a", text="a lion")
        behind = await calls.write(dataset, "behind")
        await asyncio.sleep(0.05)
        hung = await calls.status(dataset, after.body["batch"])
        waits = await calls.status(dataset, behind.body["batch"])

    assert hung["indexing_status"] == waits["indexing_status"] == "waiting"


async def test_an_update_of_nothing_hangs_nobody() -> None:
    async with serving(version="1.12.1") as calls:
        dataset, before = await made(calls, text="")
        after = await update(calls, dataset, before["document"]["id"], name="a", text="a lion")
        status = await calls.done(dataset, after)

    assert status["indexing_status"] == "completed"


async def test_a_file_is_updated_by_patch_or_by_the_older_path() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}"
        form = {"data": json.dumps({"name": "named"}), "file": io.BytesIO(b"a lion")}
        patched = await calls.call("PATCH", path, data=_form(form))
        await calls.done(dataset, patched)
        posted = await calls.call("POST", f"{path}/update_by_file", data=_form({"file": b"a cow"}))
        await calls.done(dataset, posted)
        cows = await found(calls, dataset, "cow")

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


async def test_a_file_that_is_not_taken_is_refused_in_words() -> None:
    async with serving(settings=Settings(max_file_size=10)) as calls:
        dataset, before = await made(calls)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/update-by-file"
        kind = await calls.call("POST", path, data=_form({"file": b"x"}, "x.exe"))
        size = await calls.call("POST", path, data=_form({"file": b"x" * 11}))

    assert (kind.status, kind.body["code"]) == (415, "unsupported_file_type")
    assert (size.status, size.body["code"]) == (413, "file_too_large")


async def test_a_create_may_name_the_document_that_it_updates() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        document = before["document"]["id"]
        after = await calls.write(dataset, "other", original_document_id=document)
        unknown = await calls.write(dataset, "other", original_document_id=NOBODY)

    assert after.body["document"]["id"] == document
    assert after.body["batch"] == before["batch"]
    assert unknown.status == 404


async def set_status(calls: Calls, dataset: str, action: str, *ids: str) -> Reply:
    path = f"/datasets/{dataset}/documents/status/{action}"
    return await calls.call("PATCH", path, json={"document_ids": [*ids]})


async def displayed(calls: Calls, dataset: str) -> Sequence[str]:
    reply = await calls.call("GET", f"/datasets/{dataset}/documents")
    return [document["display_status"] for document in reply.body["data"]]


async def test_a_disabled_document_is_not_found_until_it_is_enabled() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        document = before["document"]["id"]
        disabled = await set_status(calls, dataset, "disable", document)
        then = (await displayed(calls, dataset), await found(calls, dataset, "zebra"))
        await set_status(calls, dataset, "enable", document)
        now = (await displayed(calls, dataset), await found(calls, dataset, "zebra"))

    assert disabled.body == {"result": "success"}
    assert then == (["disabled"], 0)
    assert now == (["available"], 1)


async def test_one_refusal_leaves_all_as_they_were() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        rules = {"pre_processing_rules": [], "segmentation": {"max_tokens": 10}}
        bad = await calls.write(dataset, "bad", process_rule={"mode": "custom", "rules": rules})
        await calls.done(dataset, bad)
        ids = before["document"]["id"], bad.body["document"]["id"]
        reply = await set_status(calls, dataset, "disable", *ids)
        now = await displayed(calls, dataset)

    assert (reply.status, reply.body["code"]) == (400, "invalid_action")
    assert reply.body["message"] == "Document: bad is not completed."
    assert sorted(now) == ["available", "error"]


async def test_unknown_documents_are_skipped_and_none_is_a_success() -> None:
    async with serving() as calls:
        dataset, _ = await made(calls)
        replies = [
            await set_status(calls, dataset, "archive", NOBODY),
            await set_status(calls, dataset, "bogus"),
            await set_status(calls, dataset, "bogus", NOBODY),
            await set_status(calls, dataset, "archive", "abc"),
        ]

    assert [reply.status for reply in replies] == [200, 200, 400, 404]


async def test_a_server_that_lost_its_race_locks_a_document() -> None:
    clock = ManualClock()
    async with serving(settings=Settings(status_lock=600), clock=clock) as calls:
        dataset, before = await made(calls)
        document = before["document"]["id"]
        statuses = [(await set_status(calls, dataset, "archive", document)).status]
        statuses.append((await set_status(calls, dataset, "un_archive", document)).status)
        clock.advance(601)
        statuses.append((await set_status(calls, dataset, "un_archive", document)).status)

    assert statuses == [200, 400, 200]


async def test_an_archived_document_is_not_deleted() -> None:
    async with serving() as calls:
        dataset, before = await made(calls)
        document = before["document"]["id"]
        await set_status(calls, dataset, "archive", document)
        reply = await calls.call("DELETE", f"/datasets/{dataset}/documents/{document}")

    assert (reply.status, reply.body["code"]) == (403, "archived_document_immutable")


async def fetch(calls: Calls, url: str) -> Reply:
    async with calls.session.get(url, headers={"Authorization": ""}) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_a_link_gives_the_file_to_whoever_has_it() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as calls:
        dataset, before = await made(calls, "a name.txt")
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/download"
        url = (await calls.call("GET", path)).body["url"]
        file, forged = await fetch(calls, url), await fetch(calls, url.replace("sign=", "sign=x"))
        clock.advance(301)
        late = await fetch(calls, url)

    assert (file.status, file.raw) == (200, b"a zebra")
    assert file.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20name.txt"
    assert (forged.status, late.status) == (404, 404)


async def test_old_versions_tell_of_a_file_with_links_to_it() -> None:
    async with serving(version="1.8.1") as calls:
        dataset, before = await made(calls)
        path = f"/datasets/{dataset}/documents/{before['document']['id']}/upload-file"
        told = (await calls.call("GET", path)).body
        file = await fetch(calls, told["url"])

    assert (told["name"], told["size"]) == ("a", 7)
    assert file.raw == b"a zebra"


async def test_an_archive_has_every_file_under_a_name_of_its_own() -> None:
    async with serving() as calls:
        dataset = await calls.dataset()
        first = await calls.upload(dataset, "a.txt", b"one")
        second = await calls.upload(dataset, "a.txt", b"two", duplicate=False)
        ids = [reply.body["document"]["id"] for reply in (first, second)]
        path = f"/datasets/{dataset}/documents/download-zip"
        reply = await calls.call("POST", path, json={"document_ids": ids})
        unknown = await calls.call("POST", path, json={"document_ids": [*ids, NOBODY]})
        nothing = await calls.call("POST", path, json={"document_ids": []})

    assert reply.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.raw)) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == {"a.txt": b"one", "a (1).txt": b"two"}
    assert (unknown.status, nothing.status) == (404, 400)


async def test_a_dataset_is_changed_field_by_field() -> None:
    async with serving() as calls:
        one = await calls.dataset("one", description="old")
        path = f"/datasets/{one}"
        members = {"permission": "partial_members", "partial_member_list": [{"user_id": "u1"}]}
        shared = await calls.call("PATCH", path, json=members)
        renamed = await calls.call("PATCH", path, json={"name": "two", "description": None})
        shown = await calls.call("GET", path)
        unknown = await calls.call("PATCH", path, json={"indexing_technique": "high_quality"})

    assert shared.body["partial_member_list"] == ["u1"]
    assert (renamed.body["name"], renamed.body["description"]) == ("two", None)
    assert shown.body["partial_member_list"] == ["u1"]
    assert unknown.status == 500
