"""Pipelines: based on the API pages of 1.16 and assumptions; there are no recordings."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from emulator_client import UNKNOWN_ID, EmulatorClient, Response, run_emulator

from dify_kb.emulator import Settings
from dify_kb.wire.sse import SSEDecoder

PIPELINES = Settings(pipelines=True)
UPLOAD = "/datasets/pipeline/file-upload"


async def upload(client: EmulatorClient, name: str, content: bytes) -> Response:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", content, filename=name, content_type="text/plain")
    return await client.request("POST", UPLOAD, data=form)


def run_body(*references: str, **changes: object) -> dict[str, Any]:
    return {
        "inputs": {},
        "datasource_type": "local_file",
        "datasource_info_list": [
            {"reference": reference, "name": f"{number}.txt"}
            for number, reference in enumerate(references)
        ],
        "start_node_id": "1719288585006",
        "is_published": True,
        "response_mode": "blocking",
    } | changes


async def list_document_names(client: EmulatorClient, dataset: str) -> list[str]:
    listing = await client.request("GET", f"/datasets/{dataset}/documents")
    return [document["name"] for document in listing.body["data"]]


async def test_an_uploaded_file_becomes_a_document() -> None:
    async with run_emulator(settings=PIPELINES) as client:
        dataset = await client.create_dataset()
        file = await upload(client, "a.txt", b"a zebra")
        path = f"/datasets/{dataset}/pipeline"
        nodes = await client.request("GET", f"{path}/datasource-plugins")
        ran = await client.request("POST", f"{path}/run", json=run_body(file.body["id"]))
        shown = await client.request("GET", f"/datasets/{dataset}")
        listing = await client.request("GET", f"/datasets/{dataset}/documents")

    assert file.status == 201
    assert file.body | {"id": "", "created_by": "", "created_at": ""} == {
        "id": "", "name": "a.txt", "size": 7, "extension": "txt", "mime_type": "text/plain",
        "created_by": "", "created_at": "",
    }  # fmt: skip
    assert [(node["node_id"], node["datasource_type"]) for node in nodes.body] == [
        ("1719288585006", "local_file")
    ]
    assert ran.status == 200
    assert ran.body["data"]["status"] == "succeeded"
    assert (shown.body["runtime_mode"], shown.body["is_published"]) == ("rag_pipeline", True)
    (document,) = listing.body["data"]
    assert document["name"] == "0.txt"
    assert document["data_source_detail_dict"]["upload_file"]["size"] == 7


async def test_a_run_can_be_followed_by_its_events() -> None:
    async with run_emulator(settings=PIPELINES) as client:
        dataset = await client.create_dataset()
        file = await upload(client, "a.txt", b"a zebra")
        response = await client.request(
            "POST",
            f"/datasets/{dataset}/pipeline/run",
            json=run_body(file.body["id"], response_mode="streaming"),
        )
        created = await list_document_names(client, dataset)

    events = [*SSEDecoder().feed(response.raw)]
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert [event.event for event in events] == [
        "workflow_started", "node_started", "node_finished", "workflow_finished",
    ]  # fmt: skip
    assert created == ["0.txt"]


async def test_node_run_streams_its_progress() -> None:
    async with run_emulator(settings=PIPELINES) as client:
        dataset = await client.create_dataset()
        path = f"/datasets/{dataset}/pipeline/datasource/nodes/1719288585006/run"
        body = {"inputs": {}, "datasource_type": "local_file", "is_published": True}
        response = await client.request("POST", path, json=body)

    assert [event.event for event in SSEDecoder().feed(response.raw)] == [
        "datasource_processing", "datasource_completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"start_node_id": "1"},
        {"datasource_type": "website_crawl"},
        {"datasource_info_list": [{"reference": UNKNOWN_ID}]},
    ],
)
async def test_failed_run_creates_no_documents(changes: dict[str, Any]) -> None:
    async with run_emulator(settings=PIPELINES) as client:
        dataset = await client.create_dataset()
        file = await upload(client, "a.txt", b"a zebra")
        body = run_body(file.body["id"], **changes)
        response = await client.request("POST", f"/datasets/{dataset}/pipeline/run", json=body)
        created = await list_document_names(client, dataset)

    assert (response.status, response.body["code"]) == (500, "pipeline_run_error")
    assert created == []


async def test_dataset_without_a_pipeline_refuses_pipeline_requests() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        path = f"/datasets/{dataset}/pipeline"
        responses = [
            await client.request("GET", f"{path}/datasource-plugins"),
            await client.request("POST", f"{path}/run", json=run_body(UNKNOWN_ID)),
        ]

    for response in responses:
        assert (response.status, response.body["message"]) == (400, "Pipeline not found")


async def test_a_file_that_is_too_large_is_refused() -> None:
    async with run_emulator(settings=Settings(max_file_size=3)) as client:
        response = await upload(client, "a.txt", b"a zebra")
        none = await client.request("POST", UPLOAD, data={"x": "1"})

    assert (response.status, response.body["message"]) == (400, "")
    assert (none.status, none.body["code"]) == (400, "no_file_uploaded")


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.12.1"])
async def test_older_versions_have_no_pipelines(version: str) -> None:
    async with run_emulator(version=version, settings=PIPELINES) as client:
        dataset = await client.create_dataset()
        responses = [
            await upload(client, "a.txt", b"x"),
            await client.request("GET", f"/datasets/{dataset}/pipeline/datasource-plugins"),
        ]

    assert [response.status for response in responses] == [404, 404]
