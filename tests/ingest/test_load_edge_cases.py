from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from load_examples import CREATE, LONG, create_dataset, list_document_names

from dify_kb import AsyncClient, Item, Policy, Progress, StopReason
from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.journal import journal_database


def write(folder: Path, *keys: str) -> None:
    for key in keys:
        (folder / key).write_text(f"the text of {key}")


async def test_unseen_create_does_not_hide_a_deleted_document(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """One document more and one less leave the count unchanged."""
    write(folder, "a.md", "b.md")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    write(folder, "c.md")
    emulator.faults.plan(CREATE, ["commit-then-reset"])
    async with AsyncClient(emulator.url, emulator.api_key) as patient:
        with anyio.move_on_after(0.7):  # before the lookup of the lost create
            await patient.load(dataset, folder)
    (document,) = [row async for row in client.documents.iter(dataset) if row.name == "a.md"]
    await client.documents.delete(dataset, document.id)

    report = await client.load(dataset, folder)

    assert not emulator.faults.left()
    assert report
    assert await list_document_names(client, dataset) == ["a.md", "b.md", "c.md"]


async def test_unrecorded_end_of_a_load_is_reported(
    client: AsyncClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here another program locks the file; a full disk has the same effect."""
    monkeypatch.setattr(journal_database, "BUSY_TIMEOUT", 0.2)
    write(folder, "a.md", "b.md")
    journal = tmp_path / "journal.db"
    other = sqlite3.connect(journal, isolation_level=None, check_same_thread=False)

    def hold(event: object) -> None:
        if isinstance(event, Progress) and event.accepted == 2 and not other.in_transaction:
            other.execute("BEGIN IMMEDIATE")

    report = await client.load(await create_dataset(client), folder, journal=journal, on_event=hold)

    other.close()
    assert report.stopped is StopReason.JOURNAL
    assert report.exit_code == 8


async def test_folder_whose_name_is_not_utf_8_has_a_journal(
    client: AsyncClient, folder: Path
) -> None:
    path = os.fsencode(folder) + b"/caf\xe9"
    inside = Path(os.fsdecode(path))
    inside.mkdir()  # noqa: ASYNC240 -- a name that is no text
    write(inside, "a.md")

    report = await client.load(await create_dataset(client), inside)

    assert report.added == 1
    assert report.journal is not None


async def test_user_without_a_home_gets_a_warning(
    client: AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in containers that run under a user id without a name."""
    write(folder, "a.md")
    monkeypatch.delenv("XDG_STATE_HOME")

    def fail() -> Path:
        message = "Could not determine home directory."
        raise RuntimeError(message)

    monkeypatch.setattr(Path, "home", fail)
    dataset = await create_dataset(client)

    with pytest.warns(UserWarning, match="cannot be resumed"):
        report = await client.load(dataset, folder)

    assert report.added == 1


async def test_dry_run_makes_no_state_folder(
    client: AsyncClient, folder: Path, tmp_path: Path
) -> None:
    write(folder, "a.md")

    await client.load(await create_dataset(client), folder, dry_run=True)

    assert not (tmp_path / "state").exists()


async def test_endless_source_ends_with_the_run(client: AsyncClient) -> None:
    async def feed() -> AsyncIterator[Item]:
        number = 0
        while True:
            number += 1
            yield Item(f"{number}.md", text="text")
            await anyio.sleep(0.01)

    with anyio.fail_after(8):
        report = await client.load(await create_dataset(client), feed(), deadline=0.3)

    assert report.stopped is StopReason.DEADLINE


@pytest.mark.parametrize("number", [1, 3])
async def test_generator_cut_off_by_the_deadline_is_not_reported_as_complete(
    client: AsyncClient, number: int
) -> None:
    """All items it produced are indexed, but it may have had more."""

    async def feed() -> AsyncIterator[Item]:
        for index in range(number):
            yield Item(f"{index}.md", text="text")
        await anyio.sleep_forever()

    with anyio.fail_after(8):
        report = await client.load(await create_dataset(client), feed(), deadline=1.5)

    assert (report.added, report.stopped) == (number, StopReason.DEADLINE)
    assert not report


@pytest.mark.parametrize("seed", range(10 if LONG else 2))
@pytest.mark.parametrize("times", [1, 2])
async def test_asyncio_cancellation_leaves_nothing_behind(
    folder: Path, quick: Policy, seed: int, times: int
) -> None:
    """Web frameworks cancel tasks natively, sometimes twice."""
    write(folder, *(f"{number}.md" for number in range(30)))
    draw = random.Random(seed)
    with Emulator(settings=Settings(create_io=0.01, seed=seed)) as server:
        async with AsyncClient(server.url, server.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            for _ in range(3):
                task = asyncio.create_task(client.load(dataset, folder))
                for _ in range(times):
                    await asyncio.sleep(draw.uniform(0.0, 0.06))
                    task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.result()
                gc.collect()
                with anyio.fail_after(20):  # a generator that was cancelled twice closes by itself
                    while any("journal" in one.name for one in threading.enumerate()):  # noqa: ASYNC110 -- threads
                        await asyncio.sleep(0.01)

            assert await client.load(dataset, folder)
            assert len(await list_document_names(client, dataset)) == 30
