"""Responses of the emulator compared with recorded responses of 1.12.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulator_client import AUTOMATIC, UNKNOWN_ID, EmulatorClient, Response, run_emulator

from dify_kb.emulator import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "recorded-1.12.1.json").read_text(encoding="utf-8")
)

NEWER = {
    "maintainer",  # since main
}
DIFFERENT = {
    "doc_metadata",  # [], not null, in lists and creates
    "child_chunks",  # [], not null
    "files",  # [], not null
}


def compare(ours: Any, theirs: Any, json_path: str = "$") -> None:
    """Require equal keys and JSON types; null matches any type."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        assert set(ours) - NEWER == set(theirs), json_path
        for name in set(theirs) - DIFFERENT:
            compare(ours[name], theirs[name], f"{json_path}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        for ours_item, theirs_item in zip(ours, theirs, strict=False):
            compare(ours_item, theirs_item, f"{json_path}[]")
    elif theirs is not None and ours is not None:
        assert json_type(ours) == json_type(theirs), (
            f"{json_path}: {ours!r} has another type than {theirs!r}"
        )


def json_type(value: object) -> str:
    return "number" if type(value) in {int, float} else type(value).__name__


async def request_all_endpoints(client: EmulatorClient) -> dict[str, Response]:
    """Return one response of each recorded kind."""
    one = await client.create_dataset("eco one")
    by_kind = {
        "dataset": await client.request("GET", f"/datasets/{one}"),
        "dataset_page": await client.request("GET", "/datasets", params={"keyword": "ECO"}),
        "document_created": await client.create_by_file(one, "a.txt", b"a zebra"),
    }
    first = by_kind["document_created"].body
    by_kind["status_completed"] = await wait_until_ended(client, one, first["batch"])
    by_kind["document_replaced"] = await client.create_by_file(one, "a.txt", b"a zebra again")
    again = by_kind["document_replaced"].body
    by_kind["status_replaced"] = await wait_until_ended(client, one, again["batch"])
    path = f"/datasets/{one}/documents"
    by_kind |= {
        "document_page": await client.request("GET", path, params={"page": 1, "limit": 2}),
        "document": await client.request("GET", f"{path}/{again['document']['id']}"),
        "document_metadata_only": await client.request(
            "GET", f"{path}/{again['document']['id']}", params={"metadata": "only"}
        ),
        "document_metadata_without": await client.request(
            "GET", f"{path}/{again['document']['id']}", params={"metadata": "without"}
        ),
        "retrieved": await client.retrieve(one, "zebra"),
        "retrieved_nothing": await client.retrieve(one, "qqqqqq"),
    }
    bad = await client.create_by_text(one, "bad", process_rule=custom_process_rule(max_tokens=10))
    by_kind["status_error"] = await wait_until_ended(client, one, bad.body["batch"])
    return by_kind


async def wait_until_ended(client: EmulatorClient, dataset: str, batch: str) -> Response:
    await client.wait_for_status(dataset, batch, "completed", "error")
    return await client.request("GET", f"/datasets/{dataset}/documents/{batch}/indexing-status")


def custom_process_rule(**segmentation: object) -> dict[str, object]:
    rules = {"pre_processing_rules": [], "segmentation": {"separator": "\n"} | segmentation}
    return {"mode": "custom", "rules": rules}


async def test_successful_responses_have_the_recorded_shapes() -> None:
    async with run_emulator() as client:
        by_kind = await request_all_endpoints(client)

    for name, response in by_kind.items():
        assert response.status == RECORDED[name]["status"], name
        compare(response.body, RECORDED[name]["body"], name)


async def test_status_of_a_failed_document_equals_the_recorded_one() -> None:
    async with run_emulator() as client:
        by_kind = await request_all_endpoints(client)

    theirs, ours = (
        RECORDED["status_error"]["body"]["data"][0],
        by_kind["status_error"].body["data"][0],
    )
    for name in ("indexing_status", "error", "completed_at", "splitting_completed_at"):
        assert ours[name] == theirs[name]
    assert ours["stopped_at"] is not None


def _by_text(**fields: object) -> Callable[[EmulatorClient, str], Awaitable[Response]]:
    body = {"name": "a", "text": "b"} | fields
    return lambda client, one: client.request(
        "POST", f"/datasets/{one}/document/create-by-text", json=body
    )


def _get(path: str) -> Callable[[EmulatorClient, str], Awaitable[Response]]:
    return lambda client, one: client.request("GET", path.format(one=one))


def _create(**options: Any) -> Callable[[EmulatorClient, str], Awaitable[Response]]:
    return lambda client, _: client.request("POST", "/datasets", **options)


def _retrieve(**body: object) -> Callable[[EmulatorClient, str], Awaitable[Response]]:
    return lambda client, one: client.request("POST", f"/datasets/{one}/retrieve", json=body)


def _file(name: str) -> Callable[[EmulatorClient, str], Awaitable[Response]]:
    return lambda client, one: client.create_by_file(one, name)


_JSON = {"Content-Type": "application/json"}

REFUSALS: dict[str, Callable[[EmulatorClient, str], Awaitable[Response]]] = {
    "no_key": lambda client, _: client.request("GET", "/datasets", headers={"Authorization": ""}),
    "wrong_key": lambda client, _: client.request(
        "GET", "/datasets", headers={"Authorization": "Bearer app-1"}
    ),
    "wrong_method": lambda client, _: client.request("PUT", "/datasets", json={}),
    "unknown_dataset": _get(f"/datasets/{UNKNOWN_ID}"),
    "no_json": _create(),
    "no_name": _create(json={}),
    "bad_json": _create(data=b"{bad", headers=_JSON),
    "long_name": _create(json={"name": "x" * 41}),
    "bad_technique": _create(json={"name": "badidx", "indexing_technique": "fast"}),
    "duplicate_name": _create(json={"name": "one"}),
    "no_model": _create(json={"name": "hq", "indexing_technique": "high_quality"}),
    "no_steps": _by_text(
        indexing_technique="economy", process_rule={"mode": "custom", "rules": {}}
    ),
    "other_form": _by_text(indexing_technique="economy", doc_form="qa_model"),
    "no_file": lambda client, one: client.send_parts(one, ('name="document"; filename="a"', b"x")),
    "two_files": lambda client, one: client.send_parts(
        one, ('name="file"; filename="a.txt"', b"x"), ('name="file2"; filename="b.txt"', b"x")
    ),
    "bad_type": _file("x.exe"),
    "bad_name": _file("a/b.txt"),
    "bad_metadata": lambda client, one: client.request(
        "GET", f"/datasets/{one}/documents/{UNKNOWN_ID}", params={"metadata": ""}
    ),
    "unknown_document": _get(f"/datasets/{{one}}/documents/{UNKNOWN_ID}"),
    "unknown_batch": _get("/datasets/{one}/documents/20200101000000123456/indexing-status"),
    "deleted_document": lambda client, one: client.request(
        "DELETE", f"/datasets/{one}/documents/{UNKNOWN_ID}"
    ),
    "retrieve_no_model": _retrieve(query="zebra"),
    "retrieve_hybrid": lambda client, one: client.retrieve(one, "x", search_method="hybrid_search"),
    "empty_query": _retrieve(query=""),
    "long_query": _retrieve(query="x" * 251),
    "bad_page": _get("/datasets/{one}/documents?page=abc"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_error_responses_equal_the_recorded_ones(name: str) -> None:
    """The first part of the recordings, when the server had no models yet."""
    async with run_emulator(settings=Settings(models=False)) as client:
        one = await client.create_dataset("one")
        await client.create_by_file(one, "first.txt")
        response = await REFUSALS[name](client, one)

    # The messages of 1.12.1 link to the pages of another version of pydantic.
    body = json.loads(response.raw.replace(b"/2.12/", b"/2.11/"))
    assert (response.status, body) == (RECORDED[name]["status"], RECORDED[name]["body"])
    assert response.headers["X-Version"] == "1.16"


async def test_first_document_requires_technique_and_rule() -> None:
    async with run_emulator(settings=Settings(models=False)) as client:
        bare = await client.create_dataset("bare", indexing_technique=None)
        technique = await client.send_parts(bare, ('name="file"; filename="a.txt"', b"x"))
        data = json.dumps({"indexing_technique": "economy"}).encode()
        rule = await client.send_parts(
            bare, ('name="data"', data), ('name="file"; filename="a.txt"', b"x")
        )
        model = await client.create_by_file(bare, "a.txt", indexing_technique="high_quality")
        by_text = await _by_text(indexing_technique="economy")(client, bare)
        inherited = await client.send_parts(bare, ('name="file"; filename="a.txt"', b"x"))
        named = await _by_text()(client, bare)

    assert technique.body == RECORDED["no_technique_by_file"]["body"]
    assert rule.body == RECORDED["no_rule"]["body"]
    assert model.body == RECORDED["provider_not_initialize"]["body"]
    assert by_text.status == 200
    assert inherited.status == 200
    assert named.status == 400
    assert named.body["message"].startswith(
        "1 validation error for KnowledgeConfig\nindexing_technique\n  Field required"
    )


async def test_responses_are_compact_ascii_json_with_a_newline() -> None:
    async with run_emulator() as client:
        response = await client.request("POST", "/datasets", json={"name": "資料"})

    assert response.raw == json.dumps(response.body, separators=(",", ":")).encode() + b"\n"
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Env"] == "PRODUCTION"


async def test_unknown_route_returns_an_html_page() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        paths = ["/nope", "/datasets/", f"/datasets/{one}/", "/datasets/not-a-uuid"]
        responses = [await client.request("GET", path) for path in paths]

    for response in responses:
        assert (response.status, response.headers["Content-Type"]) == (
            404,
            "text/html; charset=utf-8",
        )
        assert response.headers["X-Version"] == "1.16"


async def test_the_key_is_checked_before_the_dataset() -> None:
    async with run_emulator() as client:
        keyless = {"Authorization": "Bearer wrong"}
        response = await client.request("GET", f"/datasets/{UNKNOWN_ID}", headers=keyless)
        scheme = await client.request("GET", "/datasets", headers={"Authorization": "Basic abc"})
        lower = await client.request(
            "GET", "/datasets", headers={"Authorization": f"bearer {client.emulator.api_key}"}
        )

    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert scheme.status == 401
    assert lower.status == 200


async def test_server_info_needs_no_key_and_is_gone_since_1_8() -> None:
    async with run_emulator(version="1.4.3") as client:
        response = await client.request("GET", "/", headers={"Authorization": ""})
    async with run_emulator() as client:
        gone = await client.request("GET", "/", headers={"Authorization": ""})

    assert response.body == {
        "welcome": "Dify OpenAPI",
        "api_version": "v1",
        "server_version": "1.4.3",
    }
    assert (gone.status, gone.headers["X-Version"]) == (404, "1.16")


async def test_alternative_paths_work() -> None:
    async with run_emulator(settings=Settings(models=False)) as client:
        one = await client.create_dataset()
        body = {"name": "a", "text": "b"} | AUTOMATIC
        text = await client.request("POST", f"/datasets/{one}/document/create_by_text", json=body)
        testing = await client.request("POST", f"/datasets/{one}/hit-testing", json={"query": "b"})

    assert text.status == 200
    assert testing.body == RECORDED["retrieve_no_model"]["body"]


async def test_deletes_return_an_empty_204() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        created = await client.create_by_file(one, "a.txt")
        path = f"/datasets/{one}/documents/{created.body['document']['id']}"
        responses = [
            await client.request("DELETE", path),
            await client.request("DELETE", f"/datasets/{one}"),
        ]
        gone = await client.request("GET", f"/datasets/{one}")

    assert [(response.status, response.raw) for response in responses] == [(204, b""), (204, b"")]
    assert gone.status == 404
