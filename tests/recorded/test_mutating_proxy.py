"""Load, list, get and search through a proxy that mutates the responses of a server.

Fields of responses are missing, null or of another type, except those that are required.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import anyio.to_thread
import pytest
from aiohttp import web
from recorded_exchanges import find_endpoint, find_fields

from dify_kb import AsyncClient, Policy
from dify_kb.cli import run
from dify_kb.emulator import Emulator
from dify_kb.models import TechniqueName

SENT_BACK = ("content-type", "x-version")
MISSING = object()
OTHER_VALUES = ("many", [7], {"odd": 1}, True, None, MISSING)
KEPT = frozenset({"indexing_technique"})
"""An optional field by which a load decides: a dataset without a technique is not loaded."""


COMMANDS = (
    ["search", "--dataset", "Zoo", "wombat sleeps"],
    ["datasets", "list"],
    ["datasets", "show", "Zoo"],
    ["documents", "list", "--dataset", "Zoo"],
    ["documents", "show", "--dataset", "Zoo", "wombat.txt"],
    ["segments", "list", "--dataset", "Zoo", "--document", "wombat.txt"],
    ["metadata", "list", "--dataset", "Zoo"],
    ["stats", "--dataset", "Zoo"],
)


class Mutator:
    """A mutation of responses: each optional field is changed with a probability of `share`."""

    def __init__(self, seed: int, share: float) -> None:
        self._chance = random.Random(seed)
        self._share = share
        self.changed: Counter[str] = Counter()

    def mutate(self, method: str, path: str, body: bytes) -> bytes:
        """Return the body of a success with other values of its optional fields."""
        try:
            value = json.loads(body)
            shape = find_endpoint(method, path).response_type
        except (ValueError, StopIteration):
            return body
        for place in list(find_fields(shape, value)):
            if place.needed or place.name in KEPT or self._chance.random() > self._share:
                continue
            before = place.container.get(place.name)
            others = [other for other in OTHER_VALUES if type(other) is not type(before)]
            if before is None:
                others = [MISSING, [7]]
            after = self._chance.choice(others)
            if after is MISSING:
                place.container.pop(place.name, None)
            else:
                place.container[place.name] = after
            self.changed[place.label] += 1
        return json.dumps(value).encode()


@asynccontextmanager
async def serve_mutated(emulator: Emulator, mutator: Mutator) -> AsyncIterator[str]:
    """Serve the responses of an emulator with mutations, and yield the base URL."""
    base = urlsplit(emulator.url)

    async def forward(request: web.Request) -> web.Response:
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Content-Type")
            if name in request.headers
        }
        url = f"{base.scheme}://{base.netloc}{request.path_qs}"
        async with session.request(
            request.method, url, headers=headers, data=await request.read()
        ) as response:
            body = await response.read()
            kept = {name: response.headers[name] for name in SENT_BACK if name in response.headers}
        if response.status < 300:
            path = request.path.removeprefix(base.path)
            body = mutator.mutate(request.method, path, body)
        return web.Response(status=response.status, body=body, headers=kept)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            await site.start()
            port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{port}{base.path}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("technique", ["economy", "high_quality"])
@pytest.mark.parametrize(("seed", "share"), [(1, 0.1), (2, 0.3), (3, 0.5), (4, 1.0)])
async def test_calls_work_whatever_the_values_of_optional_fields(
    emulator: Emulator,
    quick: Policy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    technique: TechniqueName,
    seed: int,
    share: float,
) -> None:
    """One field that nobody needs ended loads, lists and searches."""
    for name in ("wombat", "bat", "cat"):
        (folder / f"{name}.txt").write_text(f"The {name} sleeps.\n\nIt eats at night.")
    mutator = Mutator(seed, share)

    async with (
        serve_mutated(emulator, mutator) as url,
        AsyncClient(url, emulator.api_key, policy=quick) as client,
    ):
        created = await client.datasets.create("Zoo", indexing_technique=technique)
        report = await client.load(created, folder, metadata={"kind": "animal"})
        again = await client.load(created, folder, metadata={"kind": "animal"}, wait="verified")
        (folder / "bat.txt").write_text("The bat flies.")
        changed = await client.load(created, folder)
        datasets = [row.name async for row in client.datasets.iter()]
        found = await client.datasets.find("Zoo")
        rows = [row async for row in client.documents.iter(created)]
        details = [await client.documents.get(created, row.id) for row in rows]
        chunks = [chunk.content async for chunk in client.segments.iter(created, rows[0].id)]
        dataset = await client.datasets.get(created)
        result = await client.datasets.retrieve(dataset, "wombat sleeps")
        shortcut = await client.datasets.retrieve(dataset, "wombat sleeps", top_k=1)
        fields = await client.metadata.list(dataset)
        monkeypatch.setenv("DIFY_BASE_URL", url)
        monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)
        codes = [
            await anyio.to_thread.run_sync(partial(run, command, policy=quick))
            for command in COMMANDS
        ]

    assert (report.added, report.failed, report.stopped) == (3, 0, None)
    assert (again.unchanged, bool(again)) == (3, True)
    assert (changed.updated, changed.unchanged, bool(changed)) == (1, 2, True)
    assert datasets == ["Zoo"]
    assert found is not None
    assert {row.name for row in rows} == {"wombat.txt", "bat.txt", "cat.txt"}
    assert {detail.id for detail in details} == {row.id for row in rows}
    assert chunks
    assert result.records
    assert len(shortcut.records) == 1
    assert [field.name for field in fields.doc_metadata] == ["kind"]
    assert codes == [0] * len(COMMANDS)
    assert len(mutator.changed) > 20
