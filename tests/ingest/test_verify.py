"""Verification with `wait="verified"` if the server refuses requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_examples import count_outcomes, write_files

from dify_kb import AsyncClient, ItemResult, StopReason
from dify_kb.emulator import Emulator

STATUS = "documents.indexing_status"


async def test_files_are_pending_if_the_verification_cannot_list_documents(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Skipped files have no document and are not verified."""
    write_files(folder, 3)
    (folder / "empty.md").touch()
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    await client.load(dataset, folder)
    emulator.faults.plan("documents.list", ["401"])
    results: dict[str, ItemResult] = {}

    def listen(event: object) -> None:
        if isinstance(event, ItemResult):
            results[event.key] = event

    report = await client.load(dataset, folder, wait="verified", on_event=listen)

    assert report.stopped is StopReason.UNAUTHORIZED
    assert not report.verified
    assert count_outcomes(report) == {"pending": 3, "skipped": 1}
    assert len(results) == 4
    assert sorted(one.key for one in report.failures()) == ["000.md", "001.md", "002.md"]
    assert "verified" in str(results["000.md"].reason)

    again = await client.load(dataset, folder, wait="verified")

    assert count_outcomes(again) == {"unchanged": 3, "skipped": 1}
    assert again.verified


@pytest.mark.parametrize("fault", ["401", "502-html"])
async def test_files_are_pending_if_the_verification_cannot_request_segments(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> None:
    """Several concurrent requests are refused; none of the errors is raised to the caller."""
    write_files(folder, 25)
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    await client.load(dataset, folder, wait="accepted")
    rows = [row.id async for row in client.documents.iter(dataset)]
    await client.documents.wait(dataset, rows)
    emulator.faults.plan(STATUS, [f"{fault} x1000"])

    report = await client.load(dataset, folder, wait="verified")

    assert report.stopped is not None
    assert count_outcomes(report) == {"pending": 25}
    assert sum(emulator.faults.met()[STATUS].values()) < 25
    emulator.faults.clear()
    assert count_outcomes(await client.load(dataset, folder, wait="verified")) == {"unchanged": 25}
