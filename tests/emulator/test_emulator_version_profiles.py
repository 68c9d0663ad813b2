"""Differences between the emulated versions that no recording shows."""

from __future__ import annotations

import json

import attrs
import pytest
from emulator_client import (
    AUTOMATIC,
    UNKNOWN_ID,
    EmulatorClient,
    Response,
    run_emulator,
    wait_until,
)
from yarl import URL

from dify_kb.emulator import VERSIONS, Emulator
from dify_kb.emulator.server_profile import Quirks, ServerProfile
from dify_kb.emulator.version_profiles import CHANGES_IN_1_16, get_profile
from dify_kb.errors import ConfigError

HTML = "text/html; charset=utf-8"


def test_versions_are_listed_oldest_first() -> None:
    assert VERSIONS == ("1.4.3", "1.8.1", "1.12.1", "1.14.2", "1.16")
    with pytest.raises(ConfigError, match=r"1\.13"):
        Emulator(version="1.13")


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_response_has_the_version_header(version: str) -> None:
    async with run_emulator(version=version) as client:
        replies = [await client.request("GET", path) for path in ("/datasets", "/nope")]

    assert [reply.headers["X-Version"] for reply in replies] == [version, version]


@pytest.mark.parametrize(
    ("version", "status", "body"),
    [("1.4.3", 200, b"204\n"), ("1.12.1", 200, b"204\n"), ("1.14.2", 204, b""), ("1.16", 204, b"")],
)
async def test_delete_response_follows_the_version(version: str, status: int, body: bytes) -> None:
    async with run_emulator(version=version) as client:
        one = await client.create_dataset()
        reply = await client.request("DELETE", f"/datasets/{one}")

    assert (reply.status, reply.raw) == (status, body)


async def test_1_4_writes_json_with_spaces() -> None:
    async with run_emulator(version="1.4.3") as client:
        reply = await client.request("POST", "/datasets", json={"name": "資料"})

    assert reply.raw == json.dumps(reply.body).encode() + b"\n"


async def test_only_1_4_sends_no_www_authenticate() -> None:
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            reply = await client.request("GET", "/datasets", headers={"Authorization": ""})

        assert reply.status == 401
        assert ("WWW-Authenticate" in reply.headers) == (version != "1.4.3")


async def test_1_12_checks_the_dataset_before_the_key() -> None:
    statuses = {}
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            keyless = {"Authorization": ""}
            reply = await client.request("GET", f"/datasets/{UNKNOWN_ID}", headers=keyless)
        statuses[version] = reply.status

    assert [*statuses.values()] == [401, 401, 404, 401, 401]


async def test_validation_messages_follow_the_version() -> None:
    replies = {}
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            replies[version] = (await client.request("POST", "/datasets", json={})).body

    help_ = "type is required. Name must be between 1 to 40 characters."
    assert replies["1.4.3"] == {"code": "invalid_param", "message": help_, "params": "name"}
    missing = "Missing required parameter in the JSON body or the post body or the query string"
    assert replies["1.8.1"] == {
        "errors": {"name": f"{help_} {missing}"},
        "message": "Input payload validation failed",
    }
    for version in ("1.12.1", "1.14.2", "1.16"):
        assert replies[version]["message"].startswith("1 validation error for DatasetCreatePayload")


async def create_document(client: EmulatorClient) -> tuple[str, str, str]:
    dataset = await client.create_dataset()
    created = await client.create_by_text(dataset, "a", "a zebra")
    await client.wait_until_indexed(dataset, created)
    return dataset, created.body["document"]["id"], created.body["batch"]


ROUTES = {
    ("GET", "/datasets/{dataset}/documents/{document}"): (405, 200, 200, 200, 200),
    ("GET", "/datasets/{dataset}/documents/{document}/upload-file"): (200, 200, 404, 404, 404),
    ("GET", "/datasets/{dataset}/documents/{document}/download"): (404, 404, 404, 200, 200),
    ("PATCH", "/datasets/{dataset}/documents/{document}"): (405, 405, 405, 400, 400),
    ("POST", "/datasets/{dataset}/documents/{document}/update_by_file"): (400, 400, 400, 400, 400),
    ("PATCH", "/datasets/{dataset}/documents/status/enable"): (404, 415, 415, 415, 415),
    ("GET", "/"): (200, 404, 404, 404, 404),
    ("OPTIONS", "/datasets/{dataset}"): (200, 200, 200, 200, 200),
    ("OPTIONS", "/nope"): (404, 404, 404, 404, 404),
}
"""Statuses by version, oldest first; a 400 is the response to an empty update."""


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_routes_exist_where_the_version_has_them(method: str, path: str) -> None:
    statuses = []
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            dataset, document, _ = await create_document(client)
            reply = await client.request(method, path.format(dataset=dataset, document=document))
        statuses.append(reply.status)
        if reply.status == 404:
            assert reply.headers["Content-Type"] == HTML

    assert tuple(statuses) == ROUTES[method, path]


async def test_unknown_dataset_is_a_400_when_creating_documents_before_1_11() -> None:
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            created = await client.create_by_text(UNKNOWN_ID, "a")
            listed = await client.request("GET", f"/datasets/{UNKNOWN_ID}/documents")

        assert created.status == (400 if version in {"1.4.3", "1.8.1"} else 404)
        assert listed.status == 404


async def test_counts_of_a_new_document_are_null_since_1_8() -> None:
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            document = (await client.create_by_text(await client.create_dataset(), "a")).body[
                "document"
            ]

        assert document["tokens"] == (0 if version == "1.4.3" else None)
        assert ("need_summary" in document) == (version in {"1.12.1", "1.14.2", "1.16"})


async def rename_dataset(client: EmulatorClient) -> Response:
    await client.create_dataset("taken")
    two = await client.create_dataset("two")
    return await client.request("PATCH", f"/datasets/{two}", json={"name": "taken"})


async def test_renaming_a_dataset_to_an_existing_name_is_rejected_since_1_11() -> None:
    statuses = []
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            statuses.append((await rename_dataset(client)).status)

    assert statuses == [200, 200, 400, 400, 400]


async def test_text_without_process_rule_crashes_before_1_11() -> None:
    statuses = []
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            one = await client.create_dataset()
            body = {"name": "a", "text": "b", "indexing_technique": "economy"}
            path = f"/datasets/{one}/document/create-by-text"
            statuses.append((await client.request("POST", path, json=body)).status)

    assert statuses == [500, 500, 200, 200, 200]


async def test_doc_form_unlike_the_datasets_is_rejected_since_1_8() -> None:
    statuses = []
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            one = await client.create_dataset()
            await client.create_by_text(one, "a")
            statuses.append((await client.create_by_text(one, "b", doc_form="qa_model")).status)

    assert statuses == [200, 400, 400, 400, 400]


async def test_invalid_json_is_an_empty_body_for_most_endpoints_of_1_8() -> None:
    async with run_emulator(version="1.8.1") as client:
        one = await client.create_dataset()
        text = {"Content-Type": "text/plain"}
        created = await client.request("POST", "/datasets", data=b"{}", headers=text)
        updated = await client.request("PATCH", f"/datasets/{one}", data=b"{}", headers=text)

    assert (created.status, list(created.body["errors"])) == (400, ["name"])
    assert updated.status == 415


async def test_word_count_is_the_length_of_the_text_before_1_11() -> None:
    """A text that only consists of a link keeps its count although no chunk is left (measured)."""
    counts = {}
    rule = AUTOMATIC["process_rule"]
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            one = await client.create_dataset()
            await client.wait_until_indexed(
                one, await client.create_by_text(one, "a", "one\n\n\n\ntwo", process_rule=rule)
            )
            reply = await client.request("GET", f"/datasets/{one}/documents")
        counts[version] = reply.body["data"][0]["word_count"]

    assert counts["1.4.3"] == counts["1.8.1"] == len("one\n\n\n\ntwo")
    assert counts["1.12.1"] == counts["1.16"] < counts["1.8.1"]


def list_values(version: str) -> dict[str, object]:
    profile = get_profile(version)
    values = attrs.asdict(profile, recurse=False) | attrs.asdict(profile.quirks, recurse=False)
    return {name: value for name, value in values.items() if name != "quirks"}


def test_table_of_changes_distinguishes_1_16_from_1_14_2() -> None:
    """1.16 was not recorded, so everything else that it does is an observation of 1.14.2."""
    recorded, newest = list_values("1.14.2"), list_values("1.16")

    changed = {name: value for name, value in newest.items() if value != recorded[name]}
    assert changed == {name: value for name, (value, _) in CHANGES_IN_1_16.items()}
    assert all(source for name, (_, source) in CHANGES_IN_1_16.items() if name != "version")
    assert len(recorded) == len(attrs.fields(ServerProfile)) + len(attrs.fields(Quirks)) - 1


@pytest.mark.parametrize(("version", "status"), [("1.14.2", 200), ("1.16", 400)])
async def test_provider_of_a_dataset_is_checked_since_1_16(version: str, status: int) -> None:
    async with run_emulator(version=version) as client:
        body = {"name": "a", "provider": "nobody"}
        reply = await client.request("POST", "/datasets", json=body)

    assert reply.status == status


async def test_maintainer_is_sent_since_1_16() -> None:
    sent = []
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            one = await client.create_dataset()
            reply = await client.request("GET", f"/datasets/{one}")
        sent.append("maintainer" in reply.body)

    assert sent == [False, False, False, False, True]


@pytest.mark.parametrize("version", VERSIONS)
async def test_default_number_of_workers_follows_the_version(version: str) -> None:
    """With four, two runs of one document overlap (measured, 1.14.2)."""
    async with run_emulator(version=version) as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["block x4"])
        for number in range(6):
            await client.create_by_text(one, f"{number}.txt")
        expected = 4 if version in {"1.14.2", "1.16"} else 1
        await wait_until(lambda: len(client.emulator.runs) >= expected)
        states = [document.status for document in client.emulator.documents(one)]

    assert len(client.emulator.runs) == expected
    assert states.count("waiting") == 6 - expected


@pytest.mark.parametrize(
    ("path", "target"), [("/v1", "/v1/"), ("/v1//datasets", "/v1/datasets"), ("/v1//nope", None)]
)
async def test_other_spellings_of_a_path_are_redirected(path: str, target: str | None) -> None:
    """Recordings 1221 and 1226; a trailing slash is an unknown route (1216)."""
    async with run_emulator(version="1.14.2") as client:
        origin = client.emulator.url.removesuffix("/v1")
        async with client.session.get(URL(origin + path), allow_redirects=False) as reply:
            location = reply.headers.get("Location")

    assert reply.status == (404 if target is None else 308)
    assert location == (target and origin + target)
