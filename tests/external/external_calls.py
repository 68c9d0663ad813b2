"""A bare aiohttp client of a retrieval server, so that nothing of ours stands between."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

from dify_kb.external import Record, RetrievalRequest, Retriever, create_app, listening

KEY = "a-key-of-the-tests"


@define
class Fixed:
    """Gives the same records to every question, and remembers the questions."""

    records: Iterable[Record] = ()
    asked: list[RetrievalRequest] = field(factory=list)

    async def retrieve(self, query: RetrievalRequest) -> Iterable[Record]:
        self.asked.append(query)
        return self.records


@frozen
class Reply:
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
class Server:
    """A running server, asked as Dify asks."""

    url: str
    session: aiohttp.ClientSession

    async def post(
        self,
        data: bytes | None = None,
        path: str = "/retrieval",
        key: str | None = KEY,
        **headers: str,
    ) -> Reply:
        """Send a body as it is; None for none."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["Authorization"] = f"Bearer {key}"
        body = None if data is None else io.BytesIO(data)
        async with self.session.post(self.url + path, data=body, headers=named) as response:
            return Reply(response.status, response.content_type, await response.read())

    async def ask(self, query: str = "zebra", /, **changes: object) -> Reply:
        """Ask with the body that Dify sends."""
        body = json.dumps(question(query, **changes))
        return await self.post(body.encode(), Content_Type="application/json")


def question(query: str = "zebra", /, **changes: object) -> dict[str, object]:
    """The four keys of Dify's body."""
    setting = {"top_k": changes.pop("top_k", 4), "score_threshold": changes.pop("threshold", 0.0)}
    return {
        "retrieval_setting": setting,
        "query": query,
        "knowledge_id": "docs",
        "metadata_condition": None,
    } | changes


def conditions(*given: tuple[str, str, object], joined: str | None = "and") -> dict[str, object]:
    return {
        "logical_operator": joined,
        "conditions": [
            {"name": name, "comparison_operator": operator, "value": value}
            for name, operator, value in given
        ],
    }


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[Server]:
    """Serve an application on a loopback port."""
    async with listening(app, "127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
        yield Server(url, session)


@asynccontextmanager
async def serving(
    retriever: Retriever | Mapping[str, Retriever], **options: Any
) -> AsyncIterator[Server]:
    """Serve a retriever under the id `docs`, or several under theirs."""
    retrievers = retriever if isinstance(retriever, Mapping) else {"docs": retriever}
    async with running(create_app(retrievers, api_keys=KEY, **options)) as server:
        yield server
