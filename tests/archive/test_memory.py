"""Exports, imports and comparisons need no more memory for more documents."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from archive_examples import create_texts

from dify_kb import AsyncClient, verify_archive

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

LONG = os.environ.get("CHAOS") == "long"
MIB = 1024 * 1024
TEXT = "\n".join(f"chunk {number} " + "words " * 30 for number in range(10))


async def measure_peak(work: Awaitable[object]) -> float:
    """Return the peak of the memory that Python allocates during a call, in MiB."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    await work
    return (tracemalloc.get_traced_memory()[1] - before) / MIB


@pytest.mark.skipif(not LONG, reason="takes minutes; part of poe chaos")
@pytest.mark.timeout(1200)
async def test_memory_does_not_grow_with_the_documents(client: AsyncClient, tmp_path: Path) -> None:
    """600 documents have 1.2 MiB of text; copies of all of them would show."""
    peaks: list[list[float]] = []
    tracemalloc.start()
    try:
        for count in (150, 600):
            dataset = await client.datasets.create(f"base {count}", indexing_technique="economy")
            await create_texts(client, dataset, {f"{n}.md": f"{n} {TEXT}" for n in range(count)})
            archive = tmp_path / str(count)
            peaks.append(
                [
                    await measure_peak(client.export(dataset, archive)),
                    await measure_peak(client.import_(archive, name=f"copy {count}")),
                    await measure_peak(client.compare(archive, dataset)),
                ]
            )
            assert verify_archive(archive)
    finally:
        tracemalloc.stop()

    for few, many in zip(*peaks, strict=True):
        assert many < few + 3, peaks
