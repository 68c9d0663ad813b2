"""A bare aiohttp client of the emulator, independent of the package's own client."""

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
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@frozen
class Response:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@frozen
class EmulatorClient:
    emulator: Emulator
    session: aiohttp.ClientSession

    async def request(self, method: str, path: str, **options: Any) -> Response:
        async with self.session.request(method, self.emulator.url + path, **options) as response:
            return Response(response.status, response.headers, await response.read())

    async def create_dataset(self, name: str = "a", **fields: object) -> str:
        body = {"name": name, "indexing_technique": "economy"} | fields
        response = await self.request("POST", "/datasets", json=body)
        return str(response.body["id"])

    async def create_by_file(
        self, dataset: str, name: str, content: bytes = b"hello", **data: object
    ) -> Response:
        disposition = f'name="file"; filename="{name}"'
        return await self.send_parts(
            dataset,
            ('name="data"', json.dumps(AUTOMATIC | data).encode()),
            (disposition, content),
        )

    async def send_parts(self, dataset: str, *parts: tuple[str, bytes]) -> Response:
        body = b"".join(
            f"--cut\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
            + content
            + b"\r\n"
            for disposition, content in parts
        )
        return await self.request(
            "POST",
            f"/datasets/{dataset}/document/create-by-file",
            data=body + b"--cut--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=cut"},
        )

    async def create_by_text(
        self, dataset: str, name: str, text: str = "hello", **fields: object
    ) -> Response:
        path = f"/datasets/{dataset}/document/create-by-text"
        return await self.request(
            "POST", path, json={"name": name, "text": text} | AUTOMATIC | fields
        )

    async def get_indexing_status(self, dataset: str, batch: str) -> Any:
        response = await self.request(
            "GET", f"/datasets/{dataset}/documents/{batch}/indexing-status"
        )
        return response.body["data"][0]

    async def wait_for_status(self, dataset: str, batch: str, *words: str) -> Any:
        """Poll until the status is one of `words`; return the entry."""
        entry = await self.get_indexing_status(dataset, batch)
        if entry["indexing_status"] in words:
            return entry
        await asyncio.sleep(0.002)
        return await self.wait_for_status(dataset, batch, *words)

    async def wait_until_indexed(self, dataset: str, created: Response) -> Any:
        return await self.wait_for_status(dataset, created.body["batch"], "completed", "error")

    async def retrieve(self, dataset: str, query: str, **settings: object) -> Response:
        model = {
            "search_method": "keyword_search",
            "reranking_enable": False,
            "top_k": 10,
            "score_threshold_enabled": False,
        } | settings
        body = {"query": query, "retrieval_model": model}
        return await self.request("POST", f"/datasets/{dataset}/retrieve", json=body)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that the server's thread fulfils."""
    while not condition():  # noqa: ASYNC110 -- the server runs in another thread
        await asyncio.sleep(0.005)


@asynccontextmanager
async def run_emulator(
    path: Path | None = None,
    *,
    version: str = "1.16",
    settings: Settings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[EmulatorClient]:
    with Emulator(path, version=version, settings=settings, clock=clock) as emulator:
        headers = {"Authorization": f"Bearer {emulator.api_key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            yield EmulatorClient(emulator, session)
