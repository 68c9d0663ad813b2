"""External knowledge APIs: registration, binding to datasets, and retrieval."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio.to_thread
import pytest
from aiohttp import web

from dify_kb import AsyncClient, ExternalRetrieval, Policy, RetrievalModel
from dify_kb.emulator import Emulator, Settings
from dify_kb.errors import BadRequestError, ConfigError, ServerError
from dify_kb.external import (
    InvalidResponseError,
    RetrievalRecord,
    RetrievalRequest,
    RetryPolicy,
    create_app,
    serve,
)
from dify_kb.models import ExternalKnowledgeInfo

KEY = "key-of-the-api"
FAST_RETRY = Settings(external_retry=RetryPolicy(timeout=2.0, delays=(0.01, 0.01, 0.01)))
CONDITION = {
    "logical_operator": "and",
    "conditions": [{"name": "team", "comparison_operator": "is", "value": "red"}],
}


class Animals:
    """A retriever with two records that collects its requests."""

    def __init__(self) -> None:
        self.request_retrieval: list[RetrievalRequest] = []

    async def retrieve(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        self.request_retrieval.append(query)
        return [
            RetrievalRecord("Foxes dig.", score=0.4, title="fox.md", metadata={"team": "red"}),
            RetrievalRecord(
                "Zebras graze.", score=0.9, title="zebra.md", metadata={"title": "old", "n": 1}
            ),
        ]


@asynccontextmanager
async def serve_retriever(
    version: str = "1.16",
) -> AsyncIterator[tuple[Emulator, AsyncClient, str, Animals]]:
    """Yield a server, its client, and the URL and retriever of an API with `animals`."""
    animals = Animals()
    app = create_app({"animals": animals}, api_keys=KEY)
    with Emulator(version=version, settings=FAST_RETRY) as server:
        async with (
            serve(app, "127.0.0.1", 0) as url,
            AsyncClient(server.url, server.api_key, policy=Policy().scaled(0.01)) as client,
        ):
            yield server, client, url, animals


async def post_control(server: Emulator, path: str, body: object) -> tuple[int, Any]:
    root = server.url.removesuffix("/v1")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{root}/_emulator/{path}", json=body) as response,
    ):
        return response.status, await response.json()


async def register_api(server: Emulator, url: str) -> str:
    body = {"name": "Animals", "endpoint": url, "api_key": KEY}
    status, message = await post_control(server, "external-apis", body)
    assert status == 200, message
    return str(message["id"])


async def create_bound_dataset(server: Emulator, client: AsyncClient, url: str) -> str:
    dataset = await client.datasets.create(
        "Zoo",
        provider="external",
        external_knowledge_api_id=await register_api(server, url),
        external_knowledge_id="animals",
    )
    return dataset.id


async def request_retrieval(
    server: Emulator, dataset_id: str, query: str, **more: object
) -> tuple[int, Any]:
    path = f"external-datasets/{dataset_id}/retrieve"
    return await post_control(server, path, {"query": query, **more})


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.12.1", "1.14.2", "1.16"])
async def test_external_dataset_is_created_shown_and_queried(version: str) -> None:
    async with serve_retriever(version) as (server, client, url, animals):
        dataset_id = await create_bound_dataset(server, client, url)
        shown = await client.datasets.get(dataset_id)
        status, answer = await request_retrieval(server, dataset_id, "zebra")

    info = shown.external_knowledge_info
    assert shown.provider == "external"
    assert info is not None
    assert info.external_knowledge_api_id
    assert info == ExternalKnowledgeInfo(
        external_knowledge_id="animals",
        external_knowledge_api_id=info.external_knowledge_api_id,
        external_knowledge_api_name="Animals",
        external_knowledge_api_endpoint=url,
    )
    assert status == 200
    assert answer["records"][0] == {
        "content": "Zebras graze.",
        "metadata": {
            "n": 1,
            "score": 0.9,
            "title": "zebra.md",
            "dataset_id": dataset_id,
            "dataset_name": "Zoo",
        },
    }
    # The Knowledge API cannot create a dataset with retrieval settings, so top_k is sent as null.
    assert animals.request_retrieval == [
        RetrievalRequest(knowledge_id="animals", query="zebra", top_k=4)
    ]


async def test_update_with_both_ids_changes_the_binding() -> None:
    async with serve_retriever() as (server, client, url, animals):
        dataset_id = await create_bound_dataset(server, client, url)
        other = await register_api(server, url)
        updated = await client.datasets.update(
            dataset_id,
            name="Safari",
            external_knowledge_id="animals",
            external_knowledge_api_id=other,
            external_retrieval_model=ExternalRetrieval(
                top_k=1, score_threshold=0.5, score_threshold_enabled=True
            ),
        )
        _, answer = await request_retrieval(
            server, dataset_id, 'a "zebra"', metadata_condition=CONDITION
        )
        await request_retrieval(server, dataset_id, 'a "zebra"', console=True)

    assert updated.name == "Safari"
    assert updated.external_retrieval_model == {
        "top_k": 1,
        "score_threshold": 0.5,
        "score_threshold_enabled": True,
    }
    assert updated.external_knowledge_info is not None
    assert updated.external_knowledge_info.external_knowledge_api_id == other
    assert answer["records"] == []
    first, second = animals.request_retrieval
    assert (first.query, second.query) == ('a "zebra"', 'a \\"zebra\\"')
    assert (second.top_k, second.score_threshold) == (1, 0.5)
    assert first.metadata_condition is not None


async def test_disabled_score_threshold_is_sent_as_zero() -> None:
    async with serve_retriever() as (server, client, url, animals):
        dataset_id = await create_bound_dataset(server, client, url)
        shown = await client.datasets.get(dataset_id)
        await client.datasets.update(
            shown,
            external_retrieval_model=ExternalRetrieval(
                top_k=2, score_threshold=0.5, score_threshold_enabled=False
            ),
        )
        await request_retrieval(server, dataset_id, "zebra")

    assert [(query.top_k, query.score_threshold) for query in animals.request_retrieval] == [
        (2, 0.0)
    ]


async def test_updates_without_both_ids_are_refused() -> None:
    async with serve_retriever() as (server, client, url, _):
        dataset_id = await create_bound_dataset(server, client, url)
        with pytest.raises(BadRequestError, match="External knowledge id is required"):
            await client.datasets.update(dataset_id, name="a")
        with pytest.raises(BadRequestError, match="External knowledge api id is required"):
            await client.datasets.update(dataset_id, name="a", external_knowledge_id="animals")
        unchanged = await client.datasets.get(dataset_id)

    assert unchanged.name == "Zoo"


async def test_update_with_an_unknown_api_is_refused() -> None:
    async with serve_retriever() as (server, client, url, _):
        dataset_id = await create_bound_dataset(server, client, url)
        with pytest.raises(BadRequestError, match="api template not found"):
            await client.datasets.update(
                dataset_id,
                external_knowledge_api_id="00000000-0000-4000-8000-000000000000",
                external_knowledge_id="animals",
            )


async def test_external_dataset_accepts_texts_but_not_files() -> None:
    """Recordings 2136 and 2137."""
    async with serve_retriever() as (server, client, url, _):
        dataset_id = await create_bound_dataset(server, client, url)
        created = await client.documents.create_by_text(
            dataset_id, "a", "text", indexing_technique="economy"
        )
        with pytest.raises(BadRequestError, match="External datasets are not supported"):
            await client.documents.create_by_file(
                dataset_id, b"text", name="a.txt", indexing_technique="economy"
            )

    assert created.document.name == "a"


async def test_creates_with_half_a_binding_are_refused() -> None:
    async with serve_retriever() as (server, client, url, _):
        api_id = await register_api(server, url)
        with pytest.raises(BadRequestError, match="external_knowledge_id is required"):
            await client.datasets.create("a", provider="external", external_knowledge_api_id=api_id)
        unbound = await client.datasets.create("b", provider="external")
        with pytest.raises(BadRequestError, match="binding not found"):
            await client.datasets.update(
                unbound, external_knowledge_id="animals", external_knowledge_api_id=api_id
            )
        status, message = await request_retrieval(server, unbound.id, "zebra")
        names = [dataset.name async for dataset in client.datasets.iter()]

    assert names == ["b"]
    assert status == 400
    assert "is not bound to an external knowledge API" in message["error"]


async def test_knowledge_api_search_does_not_query_the_external_api() -> None:
    """Only apps and the console query it; settings without a search method crash the search."""
    async with serve_retriever() as (server, client, url, animals):
        dataset_id = await create_bound_dataset(server, client, url)
        dataset = await client.datasets.get(dataset_id)
        found = await client.datasets.retrieve(
            dataset_id, "zebra", retrieval_model=RetrievalModel.keyword()
        )
        await client.datasets.update(
            dataset,
            external_retrieval_model=ExternalRetrieval(
                top_k=2, score_threshold=0.5, score_threshold_enabled=False
            ),
        )
        with pytest.raises(ServerError):
            await client.datasets.retrieve(dataset_id, "zebra")

    assert found.records == ()
    assert animals.request_retrieval == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Invalid API name ''"),
        ({"name": "n" * 41}, "Invalid API name"),
        ({"api_key": ""}, "Endpoint or API key is empty"),
        ({"endpoint": "zoo"}, "Invalid endpoint 'zoo'"),
        ({"endpoint": "http://127.0.0.1:1"}, "failed to connect to the endpoint"),
    ],
)
async def test_invalid_registration_is_refused(changes: dict[str, str], message: str) -> None:
    async with serve_retriever() as (server, _, url, __):
        body = {"name": "a", "endpoint": url, "api_key": KEY} | changes
        status, answer = await post_control(server, "external-apis", body)

    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize("version", ["1.8.1", "1.12.1"])
async def test_error_response_fails_since_1_12_and_finds_nothing_before(version: str) -> None:
    async with serve_retriever(version) as (server, client, url, _):
        dataset = await client.datasets.create(
            "Zoo",
            provider="external",
            external_knowledge_api_id=await register_api(server, url),
            external_knowledge_id="plants",
        )
        status, answer = await request_retrieval(server, dataset.id, "zebra")

    if version == "1.8.1":
        assert (status, answer) == (200, {"records": []})
    else:
        assert status == 400
        assert "Unknown knowledge base 'plants'." in answer["error"]


async def test_failing_api_is_requested_four_times() -> None:
    seen: list[bytes] = []

    async def fail(request: web.Request) -> web.Response:
        seen.append(body := await request.read())
        return web.Response(status=503 if body else 400)

    app = web.Application()
    app.router.add_post("/retrieval", fail)
    async with serve_retriever() as (server, client, _, __), serve(app, "127.0.0.1", 0) as url:
        dataset_id = await create_bound_dataset(server, client, url)
        status, answer = await request_retrieval(server, dataset_id, "zebra")

    assert status == 400
    assert "gave up after 4 attempts" in answer["error"]
    assert len(seen) == 5
    assert {tuple(json.loads(body)) for body in seen[1:]} == {
        ("retrieval_setting", "query", "knowledge_id", "metadata_condition")
    }


async def test_binding_survives_a_restart(tmp_path: Any) -> None:
    path = tmp_path / "kb.db"
    app = create_app({"animals": Animals()}, api_keys=KEY)
    async with serve(app, "127.0.0.1", 0) as url:
        with Emulator(path, settings=FAST_RETRY) as server:
            async with AsyncClient(server.url, server.api_key) as client:
                dataset_id = await create_bound_dataset(server, client, url)
        with Emulator(path, settings=FAST_RETRY) as server:
            status, answer = await request_retrieval(server, dataset_id, "zebra")

    assert status == 200
    assert len(answer["records"]) == 2


async def test_deleting_a_dataset_deletes_its_binding() -> None:
    async with serve_retriever() as (server, client, url, _):
        dataset_id = await create_bound_dataset(server, client, url)
        await client.datasets.delete(dataset_id)
        status, _told = await request_retrieval(server, dataset_id, "zebra")

    assert status == 400


async def test_registration_and_retrieval_from_python() -> None:
    async with serve_retriever() as (server, client, url, _):
        api_id = await anyio.to_thread.run_sync(server.register_external, "Animals", url, KEY)
        dataset = await client.datasets.create(
            "Zoo",
            provider="external",
            external_knowledge_api_id=api_id,
            external_knowledge_id="animals",
        )
        records = await anyio.to_thread.run_sync(server.retrieve_external, dataset.id, "zebra")
        with pytest.raises(ConfigError, match="Invalid endpoint"):
            await anyio.to_thread.run_sync(server.register_external, "Animals", "zoo", KEY)
        await client.datasets.update(
            dataset.id, external_knowledge_id="plants", external_knowledge_api_id=api_id
        )
        with pytest.raises(InvalidResponseError, match="404"):
            await anyio.to_thread.run_sync(server.retrieve_external, dataset.id, "zebra")

    assert [record["metadata"]["title"] for record in records] == ["zebra.md", "fox.md"]


@pytest.mark.parametrize("body", ["no object", [], None])
async def test_invalid_control_requests_are_answered_with_400(body: object) -> None:
    async with serve_retriever() as (server, *_):
        status, _told = await post_control(server, "external-apis", body)

    assert status == 400
