"""Loads into several datasets."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load_examples import count_creates, count_outcomes, create_dataset, write_files

from dify_kb import (
    AsyncClient,
    ConfigError,
    Dataset,
    Item,
    ItemResult,
    LoadError,
    LoadReport,
    NotFoundError,
    Outcome,
    Progress,
    StopReason,
)
from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import read_journal
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.spread import Placement, choose_dataset

FILES = 60


async def create_datasets(client: AsyncClient, number: int) -> list[Dataset]:
    return [await create_dataset(client, f"Docs {index}") for index in range(1, number + 1)]


async def list_places(client: AsyncClient, datasets: list[Dataset]) -> dict[str, str]:
    """Return the name of the dataset of each document; no name is in two."""
    places: dict[str, str] = {}
    for dataset in datasets:
        async for document in client.documents.iter(dataset):
            assert document.name not in places
            places[document.name] = dataset.name
    return places


# --- the choice of a dataset


@settings(max_examples=25)
@given(st.sets(st.text(min_size=1), min_size=1, max_size=8), st.text())
def test_choice_does_not_depend_on_the_order_of_the_datasets(ids: set[str], key: str) -> None:
    ordered = sorted(ids)

    assert choose_dataset(key, ordered) == choose_dataset(key, ordered[::-1])


@settings(max_examples=25)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=8, unique=True), st.text())
def test_added_dataset_moves_only_what_goes_to_it(ids: list[str], key: str) -> None:
    *before, added = ids

    assert choose_dataset(key, ids) in {choose_dataset(key, before), added}


@settings(max_examples=10)
@given(st.lists(st.uuids().map(str), min_size=2, max_size=6, unique=True))
def test_choice_is_balanced(ids: list[str]) -> None:
    number = 600 * len(ids)

    chosen = Counter(choose_dataset(f"docs/{index}.md", ids) for index in range(number))

    assert all(abs(chosen[one] - 600) < 200 for one in ids), "8 standard deviations"


@settings(max_examples=25)
@given(
    st.dictionaries(st.text(min_size=1), st.integers(0, 30), min_size=1, max_size=5),
    st.lists(st.text(min_size=1), unique=True, max_size=60),
    st.integers(1, 30),
)
def test_new_files_go_to_datasets_below_the_limit(
    counts: dict[str, int], keys: list[str], limit: int
) -> None:
    placement = Placement(dict(counts), limit)
    room = {one: max(limit - count, 0) for one, count in counts.items()}

    files = [FoundFile(key=key, size=1) for key in keys]

    places = [placement.place(file) for file in files]

    added = Counter(places)
    assert places == [placement.place(file) for file in files]
    if len(keys) <= sum(room.values()):
        assert all(added[one] <= room[one] for one in counts)


# --- loads


async def test_files_are_spread_and_found_again(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    events: list[Progress | ItemResult] = []

    first = await client.load(datasets, folder, on_event=events.append)
    places = await list_places(client, datasets)
    creates = count_creates(emulator)
    second = await client.load(datasets[::-1], folder)

    assert first
    assert count_outcomes(first) == {"added": FILES}
    assert len(places) == FILES
    assert min(Counter(places.values()).values()) >= FILES // 10
    assert len(Counter(places.values())) == 3
    assert count_outcomes(second) == {"unchanged": FILES}
    assert count_creates(emulator) == creates == FILES
    assert first.bytes == sum(len(f"the text of {index}") for index in range(FILES))
    assert sum(isinstance(event, ItemResult) for event in events) == FILES
    progress = [event for event in events if isinstance(event, Progress)]
    assert {event.total for event in progress} == {FILES}
    assert [event.ended for event in progress] == sorted(event.ended for event in progress)
    assert progress[-1].ended == FILES


@pytest.mark.parametrize("has_journals", [True, False])
async def test_added_dataset_moves_no_document(
    client: AsyncClient,
    emulator: Emulator,
    folder: Path,
    has_journals: bool,  # noqa: FBT001 -- of the parameters
) -> None:
    """Without the journals, as in CI, the names of the documents tell where a file is."""
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    await client.load(datasets[:2], folder)
    before = await list_places(client, datasets)
    if not has_journals:
        for path in state_folder().iterdir():
            path.unlink()
    for number in range(FILES, FILES + 40):
        (folder / f"{number:03}.md").write_text("new")
    (folder / "001.md").write_text("changed")

    report = await client.load(datasets, folder)

    after = await list_places(client, datasets)
    assert before == {name: after[name] for name in before}
    assert set(before.values()) == {"Docs 1", "Docs 2"}
    assert sum(place == "Docs 3" for place in after.values()) >= 4
    assert report.added == 40
    assert report.updated == (1 if has_journals else FILES)
    if has_journals:
        assert count_creates(emulator) == FILES + 40 + 1


async def test_full_datasets_get_no_new_files(client: AsyncClient, folder: Path) -> None:
    write_files(folder, 20)
    datasets = await create_datasets(client, 3)
    await client.load(datasets[:2], folder, per_dataset=10)
    for number in range(20, 30):
        (folder / f"{number:03}.md").write_text("new")

    await client.load(datasets, folder, per_dataset=10)

    places = await list_places(client, datasets)
    assert Counter(places.values()) == {"Docs 1": 10, "Docs 2": 10, "Docs 3": 10}


async def test_killed_load_is_resumed(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Here by a cancellation in the second of three datasets."""
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    with anyio.CancelScope() as scope:

        def cancel(event: object) -> None:
            if isinstance(event, Progress) and event.ended > FILES // 2:
                scope.cancel()

        await client.load(datasets, folder, concurrency=2, on_event=cancel)
    assert scope.cancelled_caught

    report = await client.load(datasets, folder)

    assert report
    assert report.found == FILES
    assert 0 < report.unchanged < FILES
    assert len(await list_places(client, datasets)) == FILES
    assert count_creates(emulator) == FILES


async def test_stopped_load_counts_the_other_files_as_pending(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    emulator.faults.plan("documents.create_by_file", ["401"] * 200)
    emulator.faults.plan("datasets.get", ["ok"] * 4 + ["401"] * 200)

    report = await client.load(datasets, folder)

    assert report.stopped is StopReason.UNAUTHORIZED
    assert report.exit_code == 4
    assert report.found == FILES
    assert set(count_outcomes(report)) == {"pending"}


async def test_limits_hold_for_all_datasets_together(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    emulator.faults.plan("documents.create_by_file", ["415"] * 200)

    report = await client.load(datasets, folder, max_failures=2, concurrency=1)

    assert report.stopped is StopReason.MAX_FAILURES
    assert report.failed <= 4
    assert report.failed + report.pending == FILES
    assert {result.outcome for result in report.failures()} <= {Outcome.FAILED, Outcome.PENDING}
    with pytest.raises(LoadError):
        report.raise_for_failures()


async def test_items_of_a_list_are_spread(client: AsyncClient, emulator: Emulator) -> None:
    """Their journals are in memory, so that the names tell where they are."""
    items = [Item(f"{index}.txt", text=f"text {index}") for index in range(20)]
    datasets = await create_datasets(client, 2)

    await client.load(datasets, items)
    before = await list_places(client, datasets)
    report = await client.load(datasets[::-1], items, on_existing="skip")

    assert len(before) == 20
    assert set(before.values()) == {"Docs 1", "Docs 2"}
    assert count_outcomes(report) == {"skipped": 20}
    assert await list_places(client, datasets) == before
    assert count_creates(emulator) == 20


async def test_each_dataset_has_its_journal(client: AsyncClient, folder: Path) -> None:
    write_files(folder, 20)
    datasets = await create_datasets(client, 2)

    report = await client.load(datasets, folder)

    journals = [read_journal.read_overview(path) for path in state_folder().glob("*.db")]
    assert {journal.dataset_name for journal in journals} == {"Docs 1", "Docs 2"}
    assert sum(sum(journal.states.values()) for journal in journals) == 20
    assert report.journal is None


async def test_dry_run_sends_nothing(client: AsyncClient, emulator: Emulator, folder: Path) -> None:
    write_files(folder, 20)
    datasets = await create_datasets(client, 2)

    report = await client.load(datasets, folder, dry_run=True)

    assert count_outcomes(report) == {"pending": 20}
    assert report
    assert count_creates(emulator) == 0


async def test_folder_without_files_is_reported(client: AsyncClient, folder: Path) -> None:
    report = await client.load(await create_datasets(client, 2), folder)

    assert report.stopped is StopReason.NO_FILES
    assert not report


async def test_results_are_iterated(client: AsyncClient, folder: Path) -> None:
    write_files(folder, 20)
    datasets = await create_datasets(client, 2)

    keys = [result.key async for result in client.load_iter(datasets, folder)]

    assert len(set(keys)) == len(keys) == 20


async def test_what_cannot_be_spread_is_refused(client: AsyncClient, folder: Path) -> None:
    datasets = await create_datasets(client, 2)
    write_files(folder, 1)

    with pytest.raises(ConfigError, match="cannot share a journal"):
        await client.load(datasets, folder, journal=folder / "a.db")
    with pytest.raises(ConfigError, match="A generator cannot be"):
        await client.load(datasets, (Item(name, text="x") for name in ("a", "b")))
    with pytest.raises(ConfigError, match="No dataset"):
        await client.load([], folder)
    with pytest.raises(NotFoundError):
        await client.load([*datasets, "11111111-1111-4111-8111-111111111111"], folder)
    assert not await list_places(client, datasets)


async def test_dataset_that_is_deleted_meanwhile_stops_the_load(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, FILES)
    datasets = await create_datasets(client, 2)
    uploaded = anyio.Event()

    async def delete() -> None:
        await uploaded.wait()
        await client.datasets.delete(datasets[1])

    def watch(event: object) -> None:
        if isinstance(event, ItemResult):
            uploaded.set()

    reports: list[LoadReport] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delete)
        reports.append(await client.load(datasets, folder, on_event=watch))

    (report,) = reports
    assert report.stopped is StopReason.DATASET_DELETED
    assert report.added + report.pending == report.found == FILES
    assert report.added


async def test_archives_are_spread(client: AsyncClient, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as made:
        for number in range(20):
            made.writestr(f"{number}.md", f"text {number}")
        made.writestr("drafts/a.md", "no")
        made.writestr(".difyignore", "drafts/")
    datasets = await create_datasets(client, 2)

    first = await client.load(datasets, tmp_path / "docs.zip")
    second = await client.load(datasets, tmp_path / "docs.zip")

    assert count_outcomes(first) == {"added": 20}
    assert count_outcomes(second) == {"unchanged": 20}
    assert set((await list_places(client, datasets)).values()) == {"Docs 1", "Docs 2"}


async def test_deadline_and_first_failure_end_all_loads(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, FILES)
    datasets = await create_datasets(client, 3)
    emulator.faults.plan("documents.create_by_file", ["stall 0.2"] * 200)

    report = await client.load(datasets, folder, deadline=0.5, concurrency=1)

    assert report.stopped is StopReason.DEADLINE
    assert report.pending
    assert report.found == FILES
    emulator.faults.clear()
    emulator.faults.plan("documents.create_by_file", ["415"])
    with pytest.raises(LoadError):
        await client.load(datasets, folder, errors="stop")
