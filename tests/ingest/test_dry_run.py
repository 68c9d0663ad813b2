"""Predictions of a dry run match the results of the load."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from load_examples import CREATE, create_dataset

from dify_kb import AsyncClient, Dataset, ItemResult, Outcome
from dify_kb.emulator import Emulator


async def run_dry(client: AsyncClient, dataset: Dataset, folder: Path) -> dict[str, ItemResult]:
    results: dict[str, ItemResult] = {}

    def listen(event: object) -> None:
        if isinstance(event, ItemResult):
            results[event.key] = event

    await client.load(dataset, folder, dry_run=True, on_event=listen)
    return results


async def test_dry_run_reports_that_a_changed_file_replaces_its_document(
    client: AsyncClient, folder: Path
) -> None:
    """Although the journal is trusted and the document was not looked up."""
    for name in ("changed.md", "same.md"):
        (folder / name).write_text("text")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (folder / "changed.md").write_text("another text")

    results = await run_dry(client, dataset, folder)

    assert results["changed.md"].reason == "would be updated"
    assert results["same.md"].outcome is Outcome.UNCHANGED
    assert (await client.load(dataset, folder)).updated == 1


async def test_dry_run_does_not_report_pending_sends_as_failures(
    client: AsyncClient, folder: Path
) -> None:
    """They are not stored either: a dry run of a million files needs no memory for them."""
    (folder / "a.md").write_text("text")
    (folder / "large.md").write_text("a text that is too large")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder, dry_run=True, max_file_size=4)

    assert (report.failed, report.pending) == (1, 1)
    assert [result.key for result in report.failures()] == ["large.md"]
    report = await client.load(dataset, folder / "a.md", dry_run=True)
    assert report
    assert (report.pending, list(report.failures())) == (1, [])
    report.raise_for_failures()


@pytest.mark.parametrize(
    ("switch", "reason"), [("disable", "disabled by hand"), ("archive", "archived by hand")]
)
async def test_dry_run_skips_changed_files_of_disabled_or_archived_documents(
    client: AsyncClient, folder: Path, switch: str, reason: str
) -> None:
    (folder / "a.md").write_text("text")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (row,) = [row async for row in client.documents.iter(dataset)]
    await getattr(client.documents, switch)(dataset, [row.id])
    (folder / "a.md").write_text("another text")

    results = await run_dry(client, dataset, folder)
    real = await client.load(dataset, folder)

    assert results["a.md"].outcome is Outcome.SKIPPED
    assert str(results["a.md"].reason).startswith(reason)
    assert (real.skipped, real.found) == (1, 1)
    assert list(real.skipped_reasons) == [results["a.md"].reason]


async def create_interrupted_load(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> Dataset:
    """Cancel a load while a create waits for its response."""
    (folder / "a.md").write_text("text")
    dataset = await create_dataset(client)
    emulator.faults.plan(CREATE, [fault])
    async with anyio.create_task_group() as group:
        group.start_soon(client.load, dataset, folder)
        while fault not in emulator.faults.met().get(CREATE, {}):  # noqa: ASYNC110 -- a thread's
            await anyio.sleep(0.002)
        group.cancel_scope.cancel()
    return dataset


@pytest.mark.parametrize(
    ("fault", "text", "prediction", "outcome"),
    [
        ("commit-then-stall 5", "text", "although the response was lost", "added"),
        ("commit-then-stall 5", "changed", "would be updated", "updated"),
        ("stall 5", "text", "would be added", "added"),
    ],
)
async def test_dry_run_looks_up_interrupted_sends(
    client: AsyncClient,
    emulator: Emulator,
    folder: Path,
    fault: str,
    text: str,
    prediction: str,
    outcome: str,
) -> None:
    dataset = await create_interrupted_load(client, emulator, folder, fault)
    (folder / "a.md").write_text(text)

    results = await run_dry(client, dataset, folder)
    report = await client.load(dataset, folder)

    assert str(results["a.md"].reason).endswith(prediction)
    assert (getattr(report, outcome), report.found) == (1, 1)
