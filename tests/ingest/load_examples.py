"""Helpers of load tests: create files and datasets, count outcomes and requests."""

from __future__ import annotations

import os
from pathlib import Path

from dify_kb import AsyncClient, Dataset, LoadReport, Outcome
from dify_kb.emulator import Emulator

CREATE = "documents.create_by_file"

LONG = os.environ.get("CHAOS") == "long"
"""Whether `poe chaos` runs the tests: with more examples."""


def write_files(folder: Path, number: int, suffix: str = ".md") -> None:
    for index in range(number):
        (folder / f"{index:03}{suffix}").write_text(f"the text of {index}")


def count_outcomes(report: LoadReport) -> dict[str, int]:
    counts = {outcome.value: getattr(report, outcome.value) for outcome in Outcome}
    assert sum(counts.values()) == report.found
    return {name: count for name, count in counts.items() if count}


def count_creates(emulator: Emulator) -> int:
    return sum(exchange.endpoint == CREATE for exchange in emulator.history)


async def create_dataset(client: AsyncClient, name: str = "docs") -> Dataset:
    return await client.datasets.create(name, indexing_technique="economy")


async def list_document_names(client: AsyncClient, dataset: Dataset) -> list[str]:
    return sorted([row.name async for row in client.documents.iter(dataset)])
