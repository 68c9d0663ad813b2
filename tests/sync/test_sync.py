"""Syncs against the embedded server: what they change, and what they never do."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sync_world import POLICY

from dify_kb import (
    AsyncClient,
    Dataset,
    DeleteMode,
    Item,
    StopReason,
    SyncAction,
    SyncReport,
    SyncState,
)
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.md").write_text(f"the wombat {number} digs " * (number + 1))
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Emulator:
    return Emulator(tmp_path / "server.db")


@pytest.fixture
async def client(server: Emulator) -> AsyncIterator[AsyncClient]:
    with server:
        async with AsyncClient(f"{server.url}", server.api_key, policy=POLICY) as client:
            yield client


@pytest.fixture
async def dataset(client: AsyncClient) -> Dataset:
    return await client.datasets.create("docs", indexing_technique="economy")


def names(server: Emulator, dataset: Dataset) -> list[str]:
    """Return the names of the documents that search finds."""
    return sorted(
        one.name
        for one in server.documents(dataset.id)
        if one.status == "completed" and one.enabled and not one.archived and one.completed
    )


def list_paths(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def make_folder(path: Path) -> None:
    path.mkdir()


def list_files(folder: Path) -> list[str]:
    return [path.name for path in list_paths(folder)]


def changes(report: SyncReport) -> list[tuple[str, str]]:
    return [
        (one.action.symbol, one.key)
        for one in report.changes
        if one.action is not SyncAction.FOREIGN
    ]


STATES = pytest.mark.parametrize("state", ["journal", "base"])


@STATES
async def test_first_run_adds_and_second_changes_nothing(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    first = await client.sync(dataset, folder, state=state)
    before = len(server.history)
    second = await client.sync(dataset, folder, state=state)

    assert (first.added, first.exit_code) == (30, 0)
    assert (second.unchanged, second.requests, second.changes) == (30, 1, ())
    assert len(server.history) - before == 1


@STATES
async def test_changed_renamed_and_deleted_files(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.sync(dataset, folder, state=state)
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    (folder / "00.md").write_text("changed")
    (folder / "01.md").rename(folder / "moved.md")
    (folder / "02.md").unlink()
    (folder / "new.md").write_text("new")

    planned = await client.diff(dataset, folder, state=state)
    assert len(server.documents(dataset.id)) == 30
    report = await client.sync(dataset, folder, state=state)

    assert changes(report) == changes(planned)
    assert changes(report) == [("*", "00.md"), (">", "moved.md"), ("+", "new.md"), ("-", "02.md")]
    assert (report.updated, report.renamed, report.added, report.deleted) == (1, 1, 1, 1)
    assert report.found == 30
    assert names(server, dataset) == list_files(folder)
    after = {one.name: one.id for one in server.documents(dataset.id)}
    assert all(after[name] == ids[name] for name in after if name in ids and name != "00.md")


@STATES
async def test_empty_source_deletes_nothing(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.sync(dataset, folder, state=state)
    for path in list_paths(folder):
        path.unlink()

    report = await client.sync(dataset, folder, state=state)

    assert (report.exit_code, report.stopped) == (7, StopReason.SOURCE_EMPTY)
    assert (report.deleted, report.kept_back) == (0, 30)
    assert not report
    assert len(names(server, dataset)) == 30
    accepted = await client.sync(dataset, folder, state=state, allow_empty=True, max_delete="100%")
    assert accepted.deleted == 30
    assert names(server, dataset) == []


@STATES
async def test_unmounted_source_deletes_nothing(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    """The mount point is missing, or empty, or shows another share."""
    await client.sync(dataset, folder, state=state, check="00.md")
    shutil.move(folder, folder.parent / "away")

    missing = await client.sync(dataset, folder, state=state, check="00.md")
    make_folder(folder)
    empty = await client.sync(dataset, folder, state=state, check="00.md")
    (folder / "other.md").write_text("another share")
    other = await client.sync(dataset, folder, state=state, check="00.md")

    for report in (missing, empty, other):
        assert (report.exit_code, report.stopped) == (7, StopReason.SOURCE_MISSING)
        assert report.added == report.deleted == 0
    assert len(names(server, dataset)) == 30


@STATES
async def test_failing_uploads_leave_the_old_versions(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    """A replacement that is refused or cannot be indexed deletes nothing, nor does its run."""
    await client.sync(dataset, folder, state=state)
    (folder / "00.md").write_text("refused")
    (folder / "01.md").write_text("not indexed")
    (folder / "02.md").rename(folder / "moved.md")
    (folder / "03.md").unlink()
    server.faults.plan("documents.create_by_file", ["415", "ok", "ok"])
    server.faults.indexing(["error no model"], names="01.md")

    report = await client.sync(dataset, folder, state=state)

    assert report.failed == 2
    assert report.deleted == 0
    assert report.held is not None
    assert report.exit_code == 3
    found = names(server, dataset)
    assert {"00.md", "01.md", "03.md"} < set(found)
    assert [name for name in found if name in {"02.md", "moved.md"}] == ["moved.md"]
    server.faults.clear()
    again = await client.sync(dataset, folder, state=state, retry_failed=True)
    assert (again.updated, again.deleted, again.exit_code) == (2, 1, 0)
    assert names(server, dataset) == list_files(folder)


@STATES
async def test_documents_of_others_are_never_touched(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.documents.create_by_text(dataset, "note.md", "of a person")
    await client.documents.create_by_text(dataset, "00.md", "of a person, with a name of ours")
    other = folder.parent / "other"
    other.mkdir()
    (other / "theirs.md").write_text("of another sync")
    await client.sync(dataset, other, state=state)
    before = {one.id: one for one in server.documents(dataset.id)}

    report = await client.sync(dataset, folder, state=state)
    (folder / "01.md").unlink()
    second = await client.sync(dataset, folder, state=state)

    assert (report.foreign, report.conflicts, report.added) == (3, 1, 29)
    assert report.exit_code == 7
    assert second.deleted == 1
    after = {one.id: one for one in server.documents(dataset.id)}
    assert all(after[one] == before[one] for one in before)


@STATES
async def test_changed_filters_delete_nothing(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.sync(dataset, folder, state=state)

    narrower = await client.sync(dataset, folder, state=state, include="0*.md")
    (folder / ".difyignore").write_text("00.md\n")
    ignored = await client.sync(dataset, folder, state=state)

    assert (narrower.deleted, narrower.kept_back) == (0, 20)
    assert (ignored.deleted, ignored.kept_back) == (0, 1)
    assert len(names(server, dataset)) == 30
    (folder / "29.md").unlink()
    gone = await client.sync(dataset, folder, state=state, include="0*.md")
    assert (gone.deleted, gone.kept_back) == (1, 20)
    all_of_them = await client.sync(
        dataset, folder, state=state, include="0*.md", delete_excluded=True, max_delete=100
    )
    assert all_of_them.deleted == 20
    assert names(server, dataset) == [f"{number:02}.md" for number in range(1, 10)]


async def test_unreadable_folder_holds_deletes_back(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.md").write_text("deep")
    await client.sync(dataset, folder)
    (folder / "sub").chmod(0)
    try:
        report = await client.sync(dataset, folder)
    finally:
        (folder / "sub").chmod(0o700)

    assert report.deleted == 0
    assert "sub__deep.md" in names(server, dataset)


@STATES
@pytest.mark.parametrize(
    ("limit", "deleted"), [(None, 0), (19, 0), ("49%", 0), (20, 20), ("50%", 20), ("100%", 20)]
)
async def test_limit_of_deletes_is_checked_before_the_first_change(
    client: AsyncClient,
    dataset: Dataset,
    folder: Path,
    state: SyncState,
    limit: int | str | None,
    deleted: int,
) -> None:
    for number in range(30, 40):
        (folder / f"{number}.md").write_text(f"more {number}")
    await client.sync(dataset, folder, state=state)
    for number in range(10, 30):
        (folder / f"{number}.md").unlink()
    for number in range(30, 40):  # renames do not count
        (folder / f"{number}.md").rename(folder / f"renamed{number}.md")
    if limit is None:
        for number in range(10):
            (folder / f"{number:02}.md").unlink()
    else:
        await client.sync(dataset, folder, state=state, delete="keep")

    report = await client.sync(dataset, folder, state=state, max_delete=limit)

    assert report.deleted == deleted
    assert (report.exit_code == 7) == (not deleted)


@STATES
@pytest.mark.parametrize("mode", ["disable", "archive"])
async def test_trash_is_emptied_and_gives_documents_back(
    client: AsyncClient,
    dataset: Dataset,
    folder: Path,
    server: Emulator,
    state: SyncState,
    mode: DeleteMode,
) -> None:
    await client.sync(dataset, folder, state=state)
    content = (folder / "00.md").read_text()
    (folder / "00.md").unlink()
    (folder / "01.md").unlink()

    trashed = await client.sync(dataset, folder, state=state, delete=mode)
    idle = await client.sync(dataset, folder, state=state, delete=mode)
    assert (trashed.deleted, idle.deleted) == (2, 0)
    assert len(server.documents(dataset.id)) == 30
    assert len(names(server, dataset)) == 28
    (folder / "00.md").write_text(content)
    back = await client.sync(dataset, folder, state=state, delete=mode)

    assert "00.md" in names(server, dataset)
    assert [one.key for one in back.changes if one.action is SyncAction.ADD] == ["00.md"]
    emptied = await client.sync(dataset, folder, state=state, delete=mode, empty_trash=0)
    assert emptied.deleted == 1
    assert len(server.documents(dataset.id)) == 29


@STATES
async def test_hand_of_a_person_wins(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.sync(dataset, folder, state=state)
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    await client.documents.disable(dataset, [ids["00.md"]])
    await client.documents.archive(dataset, [ids["01.md"]])
    await client.documents.delete(dataset, ids["02.md"])
    for number in range(2):
        (folder / f"{number:02}.md").write_text("changed")

    kept = await client.sync(dataset, folder, state=state, respect_deletes=True)
    made = await client.sync(dataset, folder, state=state)

    assert (kept.kept_back, kept.added) == (3, 0)
    assert (made.kept_back, made.added, made.exit_code) == (2, 1, 0)
    after = {one.name: one for one in server.documents(dataset.id)}
    assert after["00.md"].id == ids["00.md"]
    assert not after["00.md"].enabled
    assert after["01.md"].archived


@STATES
async def test_renamed_document_keeps_metadata_and_state(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    await client.sync(dataset, folder, state=state)
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    await client.metadata.assign_by_name(dataset, {ids["00.md"]: {"owner": "Ada", "year": 1843}})
    await client.documents.disable(dataset, [ids["00.md"]])
    (folder / "00.md").rename(folder / "moved.md")

    report = await client.sync(dataset, folder, state=state)

    assert report.renamed == 1
    rows = {row.name: row async for row in client.documents.iter(dataset)}
    assert "00.md" not in rows
    assert not rows["moved.md"].enabled
    values = rows["moved.md"].metadata_values
    assert (values["owner"], values["year"]) == ("Ada", 1843)


async def test_replaced_document_keeps_metadata_of_others(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    await client.sync(dataset, folder, metadata={"team": "infra"})
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    await client.metadata.assign_by_name(dataset, {ids["00.md"]: {"owner": "Ada"}})
    (folder / "00.md").write_text("changed")

    await client.sync(dataset, folder, metadata={"team": "docs"})

    rows = {row.name: row.metadata_values async for row in client.documents.iter(dataset)}
    assert (rows["00.md"]["owner"], rows["00.md"]["team"]) == ("Ada", "docs")
    assert rows["01.md"]["team"] == "docs"


async def test_edited_documents_are_protected(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    await client.sync(dataset, folder)
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    for name in ("00.md", "01.md"):
        chunk = (await client.segments.list(dataset, ids[name])).data[0]
        await client.segments.update(dataset, ids[name], chunk.id, content="of a person")
    (folder / "00.md").write_text("changed")
    (folder / "01.md").unlink()
    (folder / "02.md").write_text("changed")
    (folder / "03.md").unlink()

    report = await client.sync(dataset, folder, protect_edits=True)

    assert (report.kept_back, report.updated, report.deleted) == (2, 1, 1)
    after = {one.name: one.id for one in server.documents(dataset.id)}
    assert (after["00.md"], after["01.md"]) == (ids["00.md"], ids["01.md"])
    overwritten = await client.sync(dataset, folder)
    assert (overwritten.updated, overwritten.deleted) == (1, 1)


@STATES
async def test_documents_of_the_same_content_are_adopted(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator, state: SyncState
) -> None:
    for path in list_paths(folder)[:3]:
        await client.documents.create_by_file(dataset, path)
    await client.documents.create_by_text(dataset, "04.md", "of another size")
    ids = {one.id for one in server.documents(dataset.id)}

    report = await client.sync(dataset, folder, state=state, adopt=True)
    (folder / "00.md").unlink()
    second = await client.sync(dataset, folder, state=state)

    assert (report.unchanged, report.added, report.conflicts) == (3, 26, 1)
    assert ids < {one.id for one in server.documents(dataset.id)} | ids
    assert second.deleted == 1


async def test_other_machine_sends_nothing_unchanged(
    client: AsyncClient,
    dataset: Dataset,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    await client.sync(dataset, folder, state="base", id="ci", metadata={"team": "infra"})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    copy = Path(shutil.move(folder, tmp_path / "checkout"))
    for path in list_paths(copy):
        os.utime(path, (1, 1))
    (copy / "00.md").write_text("changed")
    (copy / "01.md").unlink()

    report = await client.sync(dataset, copy, state="base", id="ci", metadata={"team": "infra"})

    assert (report.unchanged, report.updated, report.deleted, report.added) == (28, 1, 1, 0)


async def test_journal_is_rebuilt_from_the_dataset(
    client: AsyncClient,
    dataset: Dataset,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    await client.sync(dataset, folder, state="base")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))

    report = await client.sync(dataset, folder)

    assert (report.unchanged, report.added, report.conflicts) == (30, 0, 0)


async def test_documents_of_a_load_with_the_same_journal_are_owned(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    await client.load(dataset, folder)
    (folder / "00.md").unlink()
    (folder / "01.md").write_text("changed")

    report = await client.sync(dataset, folder)

    assert (report.unchanged, report.updated, report.deleted, report.conflicts) == (28, 1, 1, 0)
    assert names(server, dataset) == list_files(folder)


async def test_items_need_an_id(client: AsyncClient, dataset: Dataset) -> None:

    items = [Item("a.md", text="one"), Item("b.md", text="two")]
    with pytest.raises(ConfigError, match="needs an id"):
        await client.sync(dataset, items)
    await client.sync(dataset, items, id="feed")

    report = await client.sync(dataset, items[:1], id="feed")

    assert (report.unchanged, report.deleted) == (1, 1)


async def test_kept_ids_are_those_of_before(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    await client.sync(dataset, folder, keep_ids=True)
    ids = {one.name: one.id for one in server.documents(dataset.id)}
    (folder / "00.md").write_text("changed")
    (folder / "01.md").rename(folder / "moved.md")

    report = await client.sync(dataset, folder, keep_ids=True)
    second = await client.sync(dataset, folder, keep_ids=True)

    after = {one.name: one.id for one in server.documents(dataset.id)}
    assert (report.updated, report.renamed) == (1, 1)
    assert (after["00.md"], after["moved.md"]) == (ids["00.md"], ids["01.md"])
    assert "01.md" not in after
    assert (second.unchanged, second.changes) == (30, ())


async def test_keys_that_swap_their_content(
    client: AsyncClient, dataset: Dataset, folder: Path, server: Emulator
) -> None:
    await client.sync(dataset, folder)
    (folder / "00.md").rename(folder / "x")
    (folder / "01.md").rename(folder / "00.md")
    (folder / "x").rename(folder / "01.md")

    report = await client.sync(dataset, folder)

    assert (report.updated, report.renamed, report.deleted) == (2, 0, 0)
    assert names(server, dataset) == list_files(folder)


@pytest.mark.parametrize("limit", ["x", "101%", -1, "-5", "5.5", True])
async def test_invalid_limits_are_refused(
    client: AsyncClient, dataset: Dataset, folder: Path, limit: object
) -> None:
    with pytest.raises((ConfigError, TypeError), match="max_delete"):
        await client.sync(dataset, folder, max_delete=limit)  # type: ignore[arg-type] # wrong
