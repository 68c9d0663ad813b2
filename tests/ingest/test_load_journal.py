from __future__ import annotations

import asyncio
import gc
import random
import threading
import warnings
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from load_examples import (
    CREATE,
    LONG,
    count_creates,
    count_outcomes,
    create_dataset,
    list_document_names,
    write_files,
)

from dify_kb import (
    AsyncClient,
    Client,
    Dataset,
    Item,
    Outcome,
    Policy,
)
from dify_kb.emulator import Emulator, Settings
from dify_kb.errors import ConfigError, JournalError
from dify_kb.ingest.pacing.admission import MAX_CONCURRENCY

MAX_BUFFERED = 40
"""Instead of 256 results, in the test of a slow consumer."""


def write(folder: Path, number: int) -> None:
    for one in range(number):
        (folder / f"{one}.md").write_text(f"the text of {one}")


async def segments(client: AsyncClient, dataset: Dataset) -> set[int]:
    """Return the number of segments of each document: 1, or 2 after duplicate indexing."""
    numbers: set[int] = set()
    async for row in client.documents.iter(dataset):
        page = await client.segments.list(dataset, row.id)
        numbers.add(len(page.data))
    return numbers


def leftovers() -> tuple[int, int]:
    """Count tasks and journal threads."""
    gc.collect()
    threads = [thread for thread in threading.enumerate() if "journal" in thread.name]
    return len(asyncio.all_tasks()), len(threads)


@pytest.mark.parametrize("seed", range(20 if LONG else 2))
async def test_load_cancelled_anywhere_resumes_without_duplicates(
    folder: Path, quick: Policy, seed: int
) -> None:
    write(folder, 40)
    draw = random.Random(seed)
    settings = Settings(workers=2, parsing=0.01, create_io=0.02, seed=seed)
    with Emulator(settings=settings) as server:
        async with AsyncClient(server.url, server.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            before = leftovers()
            cuts = 0
            report = None
            while report is None:
                with anyio.move_on_after(draw.uniform(0.0, 0.2) if cuts < 6 else 15):
                    report = await client.load(dataset, folder)
                assert leftovers() == before
                cuts += report is None

            assert count_outcomes(report).keys() <= {"added", "unchanged"}
            assert report.found == 40
            assert len(set(await list_document_names(client, dataset))) == 40
            assert await client.documents.list(dataset) is not None
            assert (await client.datasets.get(dataset)).document_count == 40
            assert await segments(client, dataset) == {1}
    assert count_creates(server) == 40
    assert cuts


@pytest.mark.parametrize("seed", range(4 if LONG else 2))
async def test_in_flight_files_are_resent_only_if_they_did_not_arrive(
    folder: Path, quick: Policy, seed: int
) -> None:
    """Cancelled without a grace period, as by a second Ctrl-C, requests are aborted anywhere."""
    write(folder, 40)
    draw = random.Random(seed)
    policy = quick.scaled(0.01)  # a grace period of a millisecond
    settings = Settings(workers=2, create_io=0.02, seed=seed)
    with Emulator(settings=settings) as server:
        async with AsyncClient(server.url, server.api_key, policy=policy) as client:
            dataset = await create_dataset(client)
            for _ in range(4):
                with anyio.move_on_after(draw.uniform(0.02, 0.15)):
                    await client.load(dataset, folder)
        async with AsyncClient(server.url, server.api_key, policy=quick) as client:
            report = await client.load(dataset, folder)

            assert report
            assert len(set(await list_document_names(client, dataset))) == 40
            assert (await client.datasets.get(dataset)).document_count == 40
            assert await segments(client, dataset) == {1}
    assert count_creates(server) <= 40 + 4 * 8


async def test_completed_files_cost_no_requests(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write(folder, 30)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    before = len(emulator.history)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"unchanged": 30}
    assert [one.endpoint for one in list(emulator.history)[before:]] == ["datasets.get"]


async def test_file_that_changed_while_its_answer_was_lost_is_sent_again(
    emulator: Emulator, folder: Path, quick: Policy
) -> None:
    """If the length is the same, the uploaded version could be mistaken for the new one."""
    write(folder, 3)
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick.scaled(0.01)) as client:
        dataset = await create_dataset(client)
        emulator.faults.plan(CREATE, ["stall 1"] * 3)
        with anyio.move_on_after(0.3):
            await client.load(dataset, folder)
    (folder / "1.md").write_text("THE TEXT OF 1")
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
        report = await client.load(dataset, folder)

        assert report
        found = [
            segment.content
            async for row in client.documents.iter(dataset)
            async for segment in client.segments.iter(dataset, row.id)
        ]
    assert sorted(found) == ["THE TEXT OF 1", "the text of 0", "the text of 2"]


@pytest.mark.parametrize("fault", ["502-html", "reset"])
async def test_lost_update_is_not_confused_with_the_previous_document(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> None:
    """It has the same name and length as the new version."""
    write(folder, 15)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    for number in range(15):
        (folder / f"{number}.md").write_text(f"THE TEXT OF {number}")
    emulator.faults.plan(CREATE, [fault] * 5)

    report = await client.load(dataset, folder)

    assert not emulator.faults.left()
    assert count_outcomes(report) == {"updated": 15}
    found = await client.datasets.retrieve(dataset, "text")
    assert all(record.segment.content.startswith("THE") for record in found.records)
    assert count_creates(emulator) == 15 + 15 + 5


async def test_deleted_document_is_sent_again(client: AsyncClient, folder: Path) -> None:
    write(folder, 5)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    document = [row async for row in client.documents.iter(dataset)][2]
    await client.documents.delete(dataset, document.id)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"unchanged": 4, "added": 1}


async def test_default_journal_is_in_the_state_folder(
    client: AsyncClient, folder: Path, tmp_path: Path
) -> None:
    write(folder, 1)
    first, second = (
        await create_dataset(client),
        await client.datasets.create("other", indexing_technique="economy"),
    )

    reports = [await client.load(one, folder) for one in (first, second, first)]

    journals = [Path(str(report.journal)) for report in reports]
    assert {path.parent for path in journals} == {tmp_path / "state" / "dify-kb"}
    assert journals[0] == journals[2] != journals[1]


async def test_order_of_folders_and_archives_does_not_matter(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Their keys do not depend on it."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name, 2)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("c.md", name)
    dataset = await create_dataset(client)
    for sources in (["b", "a"], ["b.zip", "a.zip"]):
        paths = [tmp_path / name for name in sources]
        await client.load(dataset, paths)

        report = await client.load(dataset, paths[::-1])

        assert report.unchanged == report.found > 0


async def test_missing_state_folder_warns_that_the_load_cannot_be_resumed(
    client: AsyncClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, 2)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    dataset = await create_dataset(client)

    with pytest.warns(UserWarning, match="cannot be resumed"):
        report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 2}
    assert report.journal is None
    assert list(report.failures()) == []


async def test_unwritable_given_journal_raises(
    client: AsyncClient, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    """A journal that was named explicitly must not be replaced by one in memory."""
    write(folder, 2)
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(JournalError, match="cannot be used"):
        await client.load(await create_dataset(client), folder, journal=tmp_path / "file" / "a.db")

    assert count_creates(emulator) == 0


async def test_journal_of_another_dataset_sends_nothing(
    client: AsyncClient, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    write(folder, 2)
    journal = tmp_path / "journal.db"
    await client.load(await create_dataset(client), folder, journal=journal)
    other = await client.datasets.create("other", indexing_technique="economy")

    with pytest.raises(ConfigError, match="belongs to dataset"):
        await client.load(other, folder, journal=journal)

    assert count_creates(emulator) == 2


async def test_two_loads_do_not_share_a_journal_at_a_time(
    client: AsyncClient, tmp_path: Path
) -> None:
    dataset = await create_dataset(client)
    journal = tmp_path / "journal.db"
    refused = anyio.Event()

    async def source() -> AsyncIterator[Item]:
        yield Item("a.md", text="text")
        await refused.wait()

    results = client.load_iter(dataset, source(), journal=journal)
    async for _ in results:
        with pytest.raises(JournalError, match="in use by another load of this process"):
            await client.load(dataset, [Item("b.md", text="text")], journal=journal)
        refused.set()

    assert results.report


async def test_load_can_be_repeated_after_break(client: AsyncClient, folder: Path) -> None:
    """As the guide says, although the event loop closes the iterator only some iterations later."""
    write(folder, 40)
    dataset = await create_dataset(client)
    for _ in range(5):
        async for _ in client.load_iter(dataset, folder):
            break

        report = await client.load(dataset, folder)

        assert report.added + report.unchanged == 40


async def test_iterator_that_is_dropped_cancels_its_load_at_once(
    client: AsyncClient, folder: Path
) -> None:
    write(folder, 40)
    dataset = await create_dataset(client)
    before = asyncio.all_tasks()
    rows = aiter(client.load_iter(dataset, folder))
    await anext(rows)
    (load,) = [task for task in asyncio.all_tasks() - before if "run_load" in str(task.get_coro())]

    del rows

    assert load.cancelling()
    await asyncio.wait([load])


def test_load_can_be_repeated_after_break_in_the_blocking_client(
    emulator: Emulator, folder: Path, quick: Policy
) -> None:
    write(folder, 40)
    with Client(emulator.url, emulator.api_key, policy=quick) as client:
        dataset = client.datasets.create("docs", indexing_technique="economy")
        for _ in range(5):
            for _ in client.load_iter(dataset, folder):
                break

            report = client.load(dataset, folder)

            assert report.added + report.unchanged == 40


async def test_consumer_that_is_cancelled_twice_loses_nothing(
    client: AsyncClient, folder: Path
) -> None:
    """asyncio cancels through shields: the second one interrupts the wait for the load."""
    write(folder, 40)
    dataset = await create_dataset(client)
    before = leftovers()
    chance = random.Random(3)

    async def consume() -> None:
        async for _ in client.load_iter(dataset, folder):
            pass

    for _ in range(20 if LONG else 8):
        task = asyncio.create_task(consume())
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0, 0.03))
            task.cancel()
        await asyncio.wait([task])

        report = await client.load(dataset, folder)

        assert report.added + report.unchanged == 40
    with anyio.fail_after(5):
        while leftovers() != before:  # noqa: ASYNC110 -- the garbage collector
            await anyio.sleep(0.01)


async def test_dry_run_leaves_no_trace(
    client: AsyncClient, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    write(folder, 3)
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder, dry_run=True, journal=tmp_path / "new" / "a.db")

    assert count_outcomes(report) == {"pending": 3}
    assert not (tmp_path / "new").exists()
    assert count_creates(emulator) == 0


async def test_dry_run_uses_a_journal_without_modifying_it(
    client: AsyncClient, folder: Path, tmp_path: Path
) -> None:
    write(folder, 3)
    dataset = await create_dataset(client)
    place = tmp_path / "journal"
    await client.load(dataset, folder, journal=place / "a.db")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    (folder / "1.md").write_text("changed")

    report = await client.load(dataset, folder, dry_run=True, journal=place / "a.db")

    assert count_outcomes(report) == {"unchanged": 2, "pending": 1}
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


# Iteration over results.


async def test_iteration_yields_every_result_before_the_report(
    client: AsyncClient, folder: Path
) -> None:
    write(folder, 120)
    (folder / "empty.md").touch()
    dataset = await create_dataset(client)
    before = leftovers()

    results = client.load_iter(dataset, folder)
    seen = Counter([result.outcome.value async for result in results])

    assert results.report is not None
    assert seen == count_outcomes(results.report) == {"added": 120, "skipped": 1}
    assert leftovers() == before


@pytest.mark.parametrize("way", ["break", "error", "cancel"])
async def test_early_break_loses_no_file(
    client: AsyncClient, emulator: Emulator, folder: Path, way: str
) -> None:
    write(folder, 80)
    dataset = await create_dataset(client)
    before = leftovers()

    await leave(client.load_iter(dataset, folder).pages(), way)

    assert leftovers() == before
    report = await client.load(dataset, folder)
    assert report.added + report.unchanged == 80
    assert len(await list_document_names(client, dataset)) == 80
    assert count_creates(emulator) == 80


async def leave(pages: AsyncIterator[object], way: str) -> None:
    """Consume one page of results, then stop."""
    try:
        with anyio.CancelScope() as scope:
            async for _ in pages:
                if way == "error":
                    _ = 1 // 0
                if way == "cancel":
                    scope.cancel()
                    await anyio.sleep(1)
                return
    except ZeroDivisionError:
        pass
    finally:
        await pages.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_break_ends_the_load(client: AsyncClient, folder: Path) -> None:
    """The event loop closes an iterator that nothing else closes."""
    write(folder, 80)
    dataset = await create_dataset(client)
    before = leftovers()

    async for _ in client.load_iter(dataset, folder):
        break

    await anyio.sleep(0.5)
    assert leftovers() == before
    assert await client.load(dataset, folder)


async def test_load_that_cannot_start_raises_from_the_iteration(
    client: AsyncClient, folder: Path
) -> None:
    dataset = await create_dataset(client)
    before = leftovers()

    with pytest.raises(ConfigError):
        await anext(aiter(client.load_iter(dataset, folder / "nowhere")))

    assert leftovers() == before


async def test_unawaited_load_error_is_not_logged(
    client: AsyncClient,
) -> None:
    """A consumer that stops has its own reason; the load's error is irrelevant to it."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    dataset = await create_dataset(client)

    async def source() -> AsyncIterator[Item]:
        for number in range(3):
            yield Item(f"{number}.md", text="text")
        await anyio.sleep(1)
        raise ZeroDivisionError

    pages = client.load_iter(dataset, source()).pages()
    await anext(pages)
    await anyio.sleep(1.3)
    await pages.aclose()
    gc.collect()

    assert errors == []


async def test_slow_consumer_pauses_sending(
    client: AsyncClient, emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dify_kb.ingest.result_iterator.MAX_BUFFERED", MAX_BUFFERED)
    write(folder, MAX_BUFFERED + 250)
    dataset = await create_dataset(client)
    results = client.load_iter(dataset, folder, max_unindexed=50)
    pages = results.pages()
    first = await anext(pages)
    sent = -1
    with anyio.fail_after(15):
        while sent != count_creates(emulator) or sent < MAX_BUFFERED:
            sent = count_creates(emulator)
            await anyio.sleep(0.5)

    # Beyond the first page and the full buffer, some files are sent but not indexed yet, and each
    # worker has one.
    assert len(first) + MAX_BUFFERED <= sent <= len(first) + MAX_BUFFERED + 50 + MAX_CONCURRENCY
    seen = Counter(one.outcome for one in first)
    async for page in pages:
        seen.update(one.outcome for one in page)
    assert seen == {Outcome.ADDED: MAX_BUFFERED + 250}


async def test_abandoned_iteration_gives_no_warnings(client: AsyncClient, folder: Path) -> None:
    write(folder, 50)
    dataset = await create_dataset(client)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            await leave(client.load_iter(dataset, folder).pages(), "break")
        gc.collect()

    assert [str(one.message) for one in caught] == []
