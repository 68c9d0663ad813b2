"""Start a retrieval server and send requests with plain aiohttp, without our own client."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

from dify_kb.external import RetrievalRecord, RetrievalRequest, Retriever, create_app, serve

KEY = "a-key-of-the-tests"


@define
class FixedRetriever:
    """A retriever that returns fixed records and stores the requests."""

    records: Iterable[RetrievalRecord] = ()
    requests: list[RetrievalRequest] = field(factory=list)

    async def retrieve(self, query: RetrievalRequest) -> Iterable[RetrievalRecord]:
        self.requests.append(query)
        return self.records


@frozen
class ServerResponse:
    status: int
    content_type: str
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def records(self) -> list[dict[str, Any]]:
        assert self.status == 200, self.raw
        records: list[dict[str, Any]] = self.body["records"]
        return records


@frozen
class RetrievalServer:
    """A client of a running server that sends requests as Dify does."""

    url: str
    session: aiohttp.ClientSession

    async def post(
        self,
        data: bytes | None = None,
        path: str = "/retrieval",
        key: str | None = KEY,
        **headers: str,
    ) -> ServerResponse:
        """Send a raw body, or no body if `data` is None."""
        named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named_headers["Authorization"] = f"Bearer {key}"
        body = None if data is None else io.BytesIO(data)
        async with self.session.post(self.url + path, data=body, headers=named_headers) as response:
            return ServerResponse(response.status, response.content_type, await response.read())

    async def retrieve(self, query: str = "zebra", /, **changes: object) -> ServerResponse:
        """Send a retrieval request with the body that Dify sends."""
        body = json.dumps(build_question(query, **changes))
        return await self.post(body.encode(), Content_Type="application/json")


def build_question(query: str = "zebra", /, **changes: object) -> dict[str, object]:
    """Return the four keys of Dify's body."""
    retrieval_setting = {
        "top_k": changes.pop("top_k", 4),
        "score_threshold": changes.pop("threshold", 0.0),
    }
    return {
        "retrieval_setting": retrieval_setting,
        "query": query,
        "knowledge_id": "docs",
        "metadata_condition": None,
    } | changes


def build_conditions(
    *triples: tuple[str, str, object], logical_operator: str | None = "and"
) -> dict[str, object]:
    return {
        "logical_operator": logical_operator,
        "conditions": [
            {"name": name, "comparison_operator": operator, "value": value}
            for name, operator, value in triples
        ],
    }


@asynccontextmanager
async def serve_app(app: web.Application) -> AsyncIterator[RetrievalServer]:
    """Serve an application on a loopback port."""
    async with serve(app, "127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
        yield RetrievalServer(url, session)


@asynccontextmanager
async def serve_retriever(
    retriever: Retriever | Mapping[str, Retriever], **options: Any
) -> AsyncIterator[RetrievalServer]:
    """Serve a retriever under the id `docs`, or several by id."""
    retrievers = retriever if isinstance(retriever, Mapping) else {"docs": retriever}
    async with serve_app(create_app(retrievers, api_keys=KEY, **options)) as server:
        yield server
