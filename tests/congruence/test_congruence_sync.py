"""A sync in small: what it adds, replaces, renames, deletes and leaves alone on every version."""

from __future__ import annotations

from pathlib import Path

import pytest

from dify_kb import AsyncClient, Dataset, SyncState

from .conftest import list_document_names, search_document_names


@pytest.fixture
def notes(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "a.md").write_text("the wombat digs")
    (folder / "sub" / "b.md").write_text("the quokka smiles")
    (folder / "c.md").write_text("the numbat naps")
    (folder / "知识 (1).txt").write_text("数据库 索引")
    return folder


@pytest.mark.parametrize("state", ["journal", "base"])
async def test_documents_follow_the_files(
    client: AsyncClient,
    dataset: Dataset,
    notes: Path,
    state: SyncState,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    first = await client.sync(dataset, notes, state=state)
    assert (first.added, first.exit_code) == (4, 0)
    if state == "base":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    person = await client.documents.create_by_text(dataset, "person.md", "platypus eggs")
    await client.documents.wait(dataset, [person], timeout=120)
    rows = {row.name: row.id async for row in client.documents.iter(dataset)}
    await client.metadata.assign_by_name(dataset, {rows["sub__b.md"]: {"owner": "Ada"}})

    (notes / "a.md").write_text("the echidna snuffles")
    (notes / "sub" / "b.md").rename(notes / "moved.md")
    (notes / "c.md").unlink()
    (notes / "new.md").write_text("the bilby hops")
    planned = await client.diff(dataset, notes, state=state)
    report = await client.sync(dataset, notes, state=state)

    assert report.changes == planned.changes
    assert (report.added, report.updated, report.renamed, report.deleted) == (1, 1, 1, 1)
    assert report.foreign == 1
    assert await list_document_names(client, dataset) == sorted(
        ["a.md", "moved.md", "new.md", "person.md", "知识 (1).txt"]
    )
    assert await search_document_names(client, dataset, "echidna") == ["a.md"]
    assert await search_document_names(client, dataset, "wombat") == []
    assert await search_document_names(client, dataset, "quokka") == ["moved.md"]
    assert await search_document_names(client, dataset, "numbat") == []
    after = {row.name: row async for row in client.documents.iter(dataset)}
    assert after["moved.md"].metadata_values["owner"] == "Ada"
    assert after["知识 (1).txt"].id == rows["知识 (1).txt"]

    same = await client.sync(dataset, notes, state=state)
    assert (same.unchanged, same.changes) == (4, report.changes[-1:])
