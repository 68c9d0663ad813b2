"""The batches in which a source is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from dify_kb import AsyncClient, Item
from dify_kb.ingest.sources.source_reader import MAX_BATCH, MIN_BATCH, next_batch_size


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        pytest.param(MIN_BATCH, 10.0, MIN_BATCH, id="20 files per second"),
        pytest.param(MIN_BATCH, 0.0, 2 * MIN_BATCH, id="first batch, queued immediately"),
        pytest.param(400, 0.1, 800, id="at most doubled"),
        pytest.param(1600, 1.0, 1600, id="files of one second"),
        pytest.param(MAX_BATCH, 0.1, MAX_BATCH, id="maximum"),
        pytest.param(MAX_BATCH, 100.0, MIN_BATCH, id="slow server"),
    ],
)
def test_batch_size_is_the_number_of_files_per_second(
    number: int, seconds: float, expected: int
) -> None:
    assert next_batch_size(number, seconds) == expected


@pytest.mark.parametrize("source", ["generator", "folder"])
async def test_a_cancelled_load_does_not_wait_for_a_source_that_hangs(
    client: AsyncClient, folder: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system may hang for hours."""
    release = threading.Event()

    def hang(*_: object) -> Iterator[Item]:
        release.wait(30)
        yield Item("a.txt", bytes=b"x")

    (folder / "a.txt").write_text("hello")
    if source == "folder":
        monkeypatch.setattr("dify_kb.ingest.sources.source_reader.scan", hang)
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    started = time.monotonic()

    with anyio.move_on_after(0.5) as scope:
        await client.load(dataset, folder if source == "folder" else hang())
    took = time.monotonic() - started
    release.set()

    assert scope.cancelled_caught
    assert took < 15
