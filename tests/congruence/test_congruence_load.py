from __future__ import annotations

from pathlib import Path

import pytest

from dify_kb import AsyncClient, Dataset, ItemResult, LoadReport, Outcome

from .conftest import list_document_names, search_document_names


def count_outcomes(report: LoadReport) -> dict[str, int]:
    counts = {outcome.value: int(getattr(report, outcome.value)) for outcome in Outcome}
    assert sum(counts.values()) == report.found
    return {name: count for name, count in counts.items() if count}


@pytest.fixture
def notes(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "a.md").write_text("the wombat digs")
    (folder / "sub" / "a.md").write_text("the quokka smiles")
    (folder / "知识 (1).txt").write_text("数据库 索引")
    return folder


async def test_second_load_sends_only_changed_files(
    client: AsyncClient, dataset: Dataset, notes: Path
) -> None:
    added = await client.load(dataset, notes)
    assert count_outcomes(added) == {"added": 3}
    assert added.exit_code == 0
    assert await list_document_names(client, dataset) == ["a.md", "sub__a.md", "知识 (1).txt"]
    assert await search_document_names(client, dataset, "quokka") == ["sub__a.md"]

    (notes / "a.md").write_text("the numbat naps")
    updated = await client.load(dataset, notes)
    assert count_outcomes(updated) == {"updated": 1, "unchanged": 2}
    assert len(await list_document_names(client, dataset)) == 3
    assert await search_document_names(client, dataset, "numbat") == ["a.md"]
    assert await search_document_names(client, dataset, "wombat") == []

    (notes / "new.md").write_text("platypus eggs")
    skipped = await client.load(dataset, notes, on_existing="skip")
    assert count_outcomes(skipped) == {"added": 1, "unchanged": 3}
    assert len(await list_document_names(client, dataset)) == 4


async def test_failed_files_are_counted(client: AsyncClient, dataset: Dataset, notes: Path) -> None:
    """Unsupported types and empty files are skipped; an invalid PDF file fails."""
    (notes / "tool.exe").write_bytes(b"MZ")
    (notes / "empty.txt").touch()
    (notes / "broken.pdf").write_bytes(b"this is no pdf")
    (notes / "code.py").write_text("platypus = 'eggs'")
    results: dict[str, ItemResult] = {}

    report = await client.load(
        dataset,
        notes,
        as_text=["*.py"],
        on_event=lambda event: (
            results.update({event.key: event}) if isinstance(event, ItemResult) else None
        ),
    )

    assert count_outcomes(report) == {"added": 4, "skipped": 2, "failed": 1}
    assert report.exit_code == 3
    assert results["tool.exe"].outcome is results["empty.txt"].outcome is Outcome.SKIPPED
    (failure,) = report.failures()
    assert failure.key == "broken.pdf"
    assert failure.error
    assert results["code.py"].name == "code.py.txt"
    assert "empty.txt" not in await list_document_names(client, dataset)
    assert await search_document_names(client, dataset, "platypus") == ["code.py.txt"]


async def test_load_without_waiting(client: AsyncClient, dataset: Dataset, notes: Path) -> None:
    report = await client.load(dataset, notes, wait="accepted")

    assert count_outcomes(report) == {"added": 3}
    documents = [row async for row in client.documents.iter(dataset)]
    assert len(documents) == 3
    final = await client.documents.wait(dataset, documents, timeout=120)
    assert all(row.word_count for row in final)


async def test_load_accepts_a_dataset_id(
    client: AsyncClient, dataset: Dataset, notes: Path
) -> None:
    report = await client.load(dataset.id, [notes / "a.md", notes / "sub"])

    assert count_outcomes(report) == {"added": 2}
    assert await search_document_names(client, dataset, "wombat quokka") != []
