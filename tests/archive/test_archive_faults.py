"""Exports and imports of servers that fail, lock, hide their files, or stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from archive_examples import create_servers, create_texts, open_client

from dify_kb import AsyncClient, Dataset, ModelRef, Policy, StopReason, verify_archive
from dify_kb.emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
async def dataset(client: AsyncClient) -> Dataset:
    created = await client.datasets.create("Handbook", indexing_technique="economy")
    await create_texts(client, created, {f"{n}.md": f"text {n}" for n in range(6)})
    return created


@pytest.mark.parametrize(
    "words", [["503 x5"], ["500 x2"], ["reset x3"], ["429 retry-after=0.01 x5"], ["truncate x2"]]
)
@pytest.mark.parametrize("endpoint", ["documents.list", "segments.list", "documents.get"])
async def test_an_export_outlasts_passing_failures(
    client: AsyncClient,
    emulator: Emulator,
    dataset: Dataset,
    tmp_path: Path,
    endpoint: str,
    words: Sequence[str],
) -> None:
    emulator.faults.plan(endpoint, words)

    report = await client.export(dataset, tmp_path / "a")

    assert (report.stopped, report.documents) == (None, 6)
    assert verify_archive(tmp_path / "a")


async def test_an_export_stops_with_a_revoked_key_and_continues_with_a_new_one(
    client: AsyncClient, emulator: Emulator, dataset: Dataset, tmp_path: Path
) -> None:
    emulator.faults.plan("segments.list", ["ok x3", "401 x60"])

    stopped = await client.export(dataset, tmp_path / "a", concurrency=1)
    damaged = verify_archive(tmp_path / "a")
    emulator.faults.clear()
    finished = await client.export(dataset, tmp_path / "a")

    assert (stopped.stopped, stopped.exit_code) == (StopReason.UNAUTHORIZED, 4)
    assert not stopped
    assert "not a complete archive" in damaged.problems[0]
    assert (finished.exported, finished.unchanged) == (3, 3)
    assert verify_archive(tmp_path / "a")


async def test_an_import_stops_at_an_outage_and_continues(
    emulator: Emulator, client: AsyncClient, dataset: Dataset, tmp_path: Path
) -> None:
    """Its exit code says that the same command continues."""
    await client.export(dataset, tmp_path / "a")
    emulator.faults.plan("documents.create_by_file", ["ok x2", "503 x100000"])
    emulator.faults.plan("datasets.get", ["503 x100000"])
    hurried = Policy().scaled(0.001)
    journal = tmp_path / "journal.db"

    async with AsyncClient(emulator.url, emulator.api_key, policy=hurried) as other:
        stopped = await other.import_(tmp_path / "a", name="Copy", journal=journal)
    emulator.faults.clear()
    finished = await client.import_(tmp_path / "a", name="Copy", journal=journal)

    assert (stopped.stopped, stopped.exit_code) == (StopReason.OUTAGE, 5)
    assert finished
    assert (await client.compare(tmp_path / "a", finished.dataset_id or "")).counts == {}


async def test_a_document_that_the_server_refuses_fails_alone(
    client: AsyncClient, emulator: Emulator, dataset: Dataset, tmp_path: Path
) -> None:
    await client.export(dataset, tmp_path / "a", files=False)
    emulator.faults.plan("documents.create_by_text", ["ok x2", "413"])

    report = await client.import_(
        tmp_path / "a", name="Copy", concurrency=1, journal=tmp_path / "j.db"
    )
    again = await client.import_(tmp_path / "a", name="Copy", journal=tmp_path / "j.db")

    assert (report.added, report.failed, report.exit_code) == (5, 1, 3)
    assert len(report.failures) == 1
    assert (again.added, again.unchanged) == (1, 5)


async def test_a_second_change_of_a_state_waits_for_the_lock_of_the_first() -> None:
    """1.12.1 locks a document for 600 s after a change of its state (measured)."""
    settings = Settings(status_lock=0.3)
    with Emulator(version="1.12.1", settings=settings) as server:
        async with open_client(server) as client:
            dataset = await client.datasets.create("Handbook", indexing_technique="economy")
            ids = await create_texts(client, dataset, {"a.md": "text"})
            await client.documents.disable(dataset, [ids["a.md"]])
            await anyio.sleep(0.4)
            await client.documents.archive(dataset, [ids["a.md"]])

            report = await client.copy(dataset, client, name="Copy")

            assert report.imported
            assert report.imported.losses == {}
            (row,) = (await client.documents.list(report.imported.dataset_id or "")).data
            assert (row.enabled, row.archived) == (False, True)


async def test_files_are_fetched_where_the_host_of_their_link_cannot_be_reached(
    tmp_path: Path,
) -> None:
    """Links name FILES_URL, often a host inside of the server's network."""
    with Emulator(version="1.8.1") as server:
        hidden = {"Host": "files.invalid:5001"}
        async with AsyncClient(
            server.url, server.api_key, policy=Policy().scaled(0.01), headers=hidden
        ) as client:
            dataset = await client.datasets.create("Handbook", indexing_technique="economy")
            await create_texts(client, dataset, {"a.md": "text"})
            (row,) = (await client.documents.list(dataset)).data
            link = (await client.documents.upload_file(dataset, row.id)).download_url

            report = await client.export(dataset, tmp_path / "a")

            assert link
            assert link.startswith("http://files.invalid:5001/")
            assert (report.files, report.missing_files) == (1, {})


async def test_versions_without_a_route_for_files_say_so(tmp_path: Path) -> None:
    with Emulator(version="1.12.1") as server:
        async with open_client(server) as client:
            dataset = await client.datasets.create("Handbook", indexing_technique="economy")
            await create_texts(client, dataset, {"a.md": "text"})

            report = await client.export(dataset, tmp_path / "a")

            assert report.missing_files == {"Dify 1.12.1 does not offer files": 1}


WORDS = (
    "wombat", "burrow", "reset", "button", "manual", "orbit", "quokka", "database", "memory",
    "engine",
)  # fmt: skip


async def test_fifty_queries_find_the_same_chunks_in_the_same_order() -> None:
    """With the embedding model of the embedded server."""
    here, there = create_servers("1.14.2", "1.16")
    model = ModelRef(provider="dify-kb/emulator/stand-in", model="hashed-n-grams")
    with here, there:
        async with open_client(here) as source, open_client(there) as target:
            dataset = await source.datasets.create(
                "Handbook", indexing_technique="high_quality", embedding=model
            )
            texts = {
                f"{n}.md": "\n".join(
                    f"{WORDS[n % 10]} {WORDS[(n + m) % 10]} number {n * m} of {WORDS[m]}"
                    for m in range(10)
                )
                for n in range(12)
            }
            await create_texts(source, dataset, texts)
            report = await source.copy(dataset, target)
            assert report.imported
            copy = await target.datasets.get(report.imported.dataset_id or "")

            for number in range(50):
                query = f"{WORDS[number % 10]} {WORDS[(number * 3 + 1) % 10]} {number}"
                one = await source.datasets.retrieve(dataset, query, method="semantic", top_k=5)
                other = await target.datasets.retrieve(copy, query, method="semantic", top_k=5)
                assert [round(record.score or 0, 6) for record in one.records] == [
                    round(record.score or 0, 6) for record in other.records
                ]
                assert _found(one) == _found(other), query


def _found(result: object) -> list[tuple[str, str]]:
    """Return document and content of each record, those of equal scores by their content."""
    records = getattr(result, "records")  # noqa: B009 -- a result of either client
    rows = [(-(r.score or 0), r.segment.document.name, r.segment.content) for r in records]
    return [(name, content) for _, name, content in sorted(rows)]
