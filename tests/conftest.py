from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dify_kb import AsyncClient, Policy
from dify_kb.emulator import Emulator


@pytest.fixture
def quick() -> Policy:
    """The client's times, a hundredth of those that users have."""
    return Policy().scaled(0.01)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server of its own for each test, on a real socket."""
    with Emulator() as server:
        yield server


@pytest.fixture
async def client(emulator: Emulator, quick: Policy) -> AsyncIterator[AsyncClient]:
    """A client of that server, open."""
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to load."""
    path = tmp_path / "docs"
    path.mkdir()
    return path
