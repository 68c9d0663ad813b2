"""A bare aiohttp client of the emulator, so that nothing of ours stands between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import frozen

from dify_kb.emulator import Clock, Emulator, Settings

if TYPE_CHECKING:
    from pathlib import Path

AUTOMATIC = {"indexing_technique": "economy", "process_rule": {"mode": "automatic"}}
NOBODY = "00000000-0000-4000-8000-000000000000"


@frozen
class Reply:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@frozen
class Calls:
    emulator: Emulator
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        async with self.session.request(method, self.emulator.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def dataset(self, name: str = "a", **fields: object) -> str:
        body = {"name": name, "indexing_technique": "economy"} | fields
        reply = await self.call("POST", "/datasets", json=body)
        return str(reply.body["id"])

    async def upload(
        self, dataset: str, name: str, content: bytes = b"hello", **data: object
    ) -> Reply:
        disposition = f'name="file"; filename="{name}"'
        return await self.send_parts(
            dataset,
            ('name="data"', json.dumps(AUTOMATIC | data).encode()),
            (disposition, content),
        )

    async def send_parts(self, dataset: str, *parts: tuple[str, bytes]) -> Reply:
        body = b"".join(
            f"--cut\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
            + content
            + b"\r\n"
            for disposition, content in parts
        )
        return await self.call(
            "POST",
            f"/datasets/{dataset}/document/create-by-file",
            data=body + b"--cut--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=cut"},
        )

    async def write(self, dataset: str, name: str, text: str = "hello", **fields: object) -> Reply:
        path = f"/datasets/{dataset}/document/create-by-text"
        return await self.call("POST", path, json={"name": name, "text": text} | AUTOMATIC | fields)

    async def status(self, dataset: str, batch: str) -> Any:
        reply = await self.call("GET", f"/datasets/{dataset}/documents/{batch}/indexing-status")
        return reply.body["data"][0]

    async def reached(self, dataset: str, batch: str, *words: str) -> Any:
        """Poll until the status is one of the words, and return the entry."""
        entry = await self.status(dataset, batch)
        if entry["indexing_status"] in words:
            return entry
        await asyncio.sleep(0.002)
        return await self.reached(dataset, batch, *words)

    async def done(self, dataset: str, created: Reply) -> Any:
        return await self.reached(dataset, created.body["batch"], "completed", "error")

    async def search(self, dataset: str, query: str, **settings: object) -> Reply:
        model = {
            "search_method": "keyword_search",
            "reranking_enable": False,
            "top_k": 10,
            "score_threshold_enabled": False,
        } | settings
        body = {"query": query, "retrieval_model": model}
        return await self.call("POST", f"/datasets/{dataset}/retrieve", json=body)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server's thread does."""
    while not condition():  # noqa: ASYNC110 -- nothing tells across threads
        await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    path: Path | None = None,
    *,
    version: str = "1.16",
    settings: Settings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Calls]:
    with Emulator(path, version=version, settings=settings, clock=clock) as emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Calls(emulator, session)
