"""Indexing progress as shown by the dataset list and the dataset itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from emulator_client import run_emulator

from dify_kb.emulator import VERSIONS, ManualClock, Settings


@pytest.mark.parametrize("version", VERSIONS)
async def test_dataset_shows_indexing_progress(version: str) -> None:
    """A client that waits for one dataset can see that the worker is busy with another."""
    clock = ManualClock()
    settings = Settings(parsing=1, splitting=1, indexing=1)
    seen: list[Mapping[str, object]] = []
    names = ("document_count", "word_count", "total_documents", "total_available_documents")
    async with run_emulator(version=version, clock=clock, settings=settings) as client:
        one = await client.create_dataset()

        async def record_progress(batch: str, status: str) -> None:
            await client.wait_for_status(one, batch, status)
            (base,) = (await client.request("GET", "/datasets")).body["data"]
            alone = (await client.request("GET", f"/datasets/{one}")).body
            seen.append({name: base[name] for name in names if name in base})
            assert seen[-1] == {name: alone[name] for name in names if name in alone}

        for text in ("hello world", "hi all"):
            batch = (await client.create_by_text(one, "a.txt", text)).body["batch"]
            for status in ("parsing", "splitting", "indexing", "completed"):
                await record_progress(batch, status)
                clock.advance(1)

    # A replaced document keeps its old word count until the new text is counted.
    early = version in {"1.4.3", "1.8.1"}
    words = [0, 11, 11, 11, 11, 6, 6, 6] if early else [0, 0, 11, 11, 11, 11, 6, 6]
    assert [fields["word_count"] for fields in seen] == words
    assert {fields["document_count"] for fields in seen} == {1}
    available = [None] * 8 if early else [0, 0, 0, 1] * 2
    assert [fields.get("total_available_documents") for fields in seen] == available
