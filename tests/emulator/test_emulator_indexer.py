"""Indexing runs with planned faults."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from emulator_client import EmulatorClient, Response, run_emulator, wait_until

from dify_kb.emulator import Faults, ManualClock, Settings, check_load
from dify_kb.errors import ConfigError

THREE = b"\n\n".join(letter * 400 for letter in (b"a", b"b", b"c"))
"""A text that is split into three chunks."""


async def wait_for_statuses(
    client: EmulatorClient, dataset: str, **counts: int
) -> Mapping[str, str]:
    """Wait until each status has that number of documents; return the statuses by name."""

    def counts_match() -> bool:
        found = [document.status for document in client.emulator.documents(dataset)]
        return all(found.count(status) == count for status, count in counts.items())

    await wait_until(counts_match)
    return {document.name: document.status for document in client.emulator.documents(dataset)}


async def upload_files(
    client: EmulatorClient, dataset: str, names: Sequence[str]
) -> list[Response]:
    return [await client.create_by_file(dataset, name, THREE) for name in names]


async def test_indexing_error_fault_fails_a_document_once() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["error provider is overloaded"])
        failed = await client.create_by_file(one, "a.txt", THREE)
        entry = await client.wait_until_indexed(one, failed)
        again = await client.create_by_file(one, "a.txt", THREE)
        repaired_check = await client.wait_until_indexed(one, again)

    assert entry["indexing_status"] == "error"
    assert entry["error"] == "provider is overloaded"
    assert entry["stopped_at"]
    assert entry["completed_at"] is None
    assert entry["completed_segments"] == 0
    assert (repaired_check["indexing_status"], repaired_check["total_segments"]) == ("completed", 3)
    assert client.emulator.faults.met() == {"indexing": {"error provider is overloaded": 1}}


@pytest.mark.parametrize("version", ["1.14.2", "1.16"])
async def test_vector_limit_fault_has_the_error_code_of_newer_servers(version: str) -> None:
    code = {
        "error_code": "vector_space_estimate_exceeded",
        "estimated_vector_space_mb": 52,
        "vector_space_limit_mb": 50,
    }
    async with run_emulator(version=version) as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["vector-limit"])
        failed = await client.create_by_file(one, "a.txt")
        entry = await client.wait_until_indexed(one, failed)
        again = await client.create_by_file(one, "a.txt")
        repaired = await client.wait_until_indexed(one, again)

    assert (entry["indexing_status"], "50 MB" in entry["error"]) == ("error", True)
    sent = {name: entry[name] for name in code if name in entry}
    assert sent == (code if version == "1.16" else {})
    assert repaired["error"] is None
    assert not code.keys() & repaired.keys()


async def test_indexing_faults_select_documents_by_name_and_interval() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        faults = client.emulator.faults
        faults.indexing(["error broken"], names="*.md", always=True)
        faults.indexing(["error unlucky x2"], names="*.txt", every=2)
        await upload_files(
            client, one, ["1.txt", "2.txt", "a.md", "3.txt", "4.txt", "b.md", "5.txt"]
        )
        states = await wait_for_statuses(client, one, waiting=0, completed=3, error=4)

    failed = {name for name, status in states.items() if status == "error"}
    assert failed == {"a.md", "b.md", "2.txt", "4.txt"}
    assert faults.left() == {}
    assert faults.met() == {"indexing": {"error broken": 2, "error unlucky": 2}}


async def test_hang_fault_does_not_block_other_documents() -> None:
    """When a worker is killed and restarted, its task is lost, but others are processed."""
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["hang"])
        await upload_files(client, one, ["a.txt", "b.txt"])
        states = await wait_for_statuses(client, one, completed=1)
        await client.create_by_file(one, "a.txt", THREE)
        repaired_check = await wait_for_statuses(client, one, completed=2)

    assert states == {"a.txt": "indexing", "b.txt": "completed"}
    assert repaired_check == {"a.txt": "completed", "b.txt": "completed"}


async def test_block_fault_keeps_the_worker_busy() -> None:
    async with run_emulator(settings=Settings(workers=1)) as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["block"])
        await upload_files(client, one, ["a.txt", "b.txt"])
        states = await wait_for_statuses(client, one, indexing=1)
        await asyncio.sleep(0.05)
        later = await wait_for_statuses(client, one, indexing=1)

    assert states == later == {"a.txt": "indexing", "b.txt": "waiting"}


async def test_a_lost_task_leaves_its_document_waiting() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["ok", "lose"])
        await upload_files(client, one, ["a.txt", "b.txt", "c.txt"])
        states = await wait_for_statuses(client, one, completed=2)

    assert states == {"a.txt": "completed", "b.txt": "waiting", "c.txt": "completed"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_dead_workers_index_nothing_until_restarted(workers: int) -> None:
    async with run_emulator(settings=Settings(workers=workers)) as client:
        one = await client.create_dataset()
        faults = client.emulator.faults
        faults.indexing(["ok", "die"])
        await upload_files(client, one, ["a.txt"])
        await wait_for_statuses(client, one, completed=1)
        await upload_files(client, one, ["b.txt", "c.txt", "d.txt"])
        await asyncio.sleep(0.05)
        dead = await wait_for_statuses(client, one, completed=1)
        faults.load({"indexing": ["restart"]})
        alive = await wait_for_statuses(client, one, completed=4)

    assert [*dead.values()] == ["completed", "waiting", "waiting", "waiting"]
    assert len(alive) == 4
    assert faults.met() == {"indexing": {"ok": 1, "die": 1}}


async def test_create_while_workers_are_dead_doubles_no_chunks() -> None:
    """The document has two queued tasks then, which a single worker runs one after the other."""
    async with run_emulator(settings=Settings(workers=1)) as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["die"])
        await upload_files(client, one, ["a.txt"])
        await wait_until(lambda: client.emulator.faults.are_workers_dead)
        await upload_files(client, one, ["a.txt"])
        client.emulator.faults.restart()
        await wait_for_ended_runs(client, 2)
        (document,) = client.emulator.documents(one)

    assert document.chunks == 3
    assert {event.file_id for event in client.emulator.runs} == {document.file_id}
    assert not any(event.overlapping for event in client.emulator.runs)


async def test_clearing_faults_restarts_the_workers() -> None:
    async with run_emulator() as client:
        one = await client.create_dataset()
        client.emulator.faults.indexing(["die"])
        await upload_files(client, one, ["a.txt"])
        await wait_until(lambda: client.emulator.faults.are_workers_dead)
        client.emulator.faults.clear()
        states = await wait_for_statuses(client, one, completed=1)

    assert states == {"a.txt": "completed"}


@pytest.mark.parametrize("word", ["explode", "error", "error ", "hang up", "restart"])
def test_unknown_indexing_fault_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="Unknown indexing fault"):
        Faults().indexing([word])


async def test_blind_retry_after_a_lost_response_doubles_the_chunks() -> None:
    """Both runs write their chunks, and the document ends `completed` without a hint (measured)."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(workers=3, splitting=1)) as client:
        one = await client.create_dataset()
        emulator = client.emulator
        emulator.faults.plan("documents.create_by_file", ["commit-then-504-html"])
        await upload_files(client, one, ["a.txt", "b.txt"])
        await wait_for_statuses(client, one, splitting=2)
        (again,) = await upload_files(client, one, ["a.txt"])
        await client.wait_for_status(one, again.body["batch"], "splitting")
        clock.advance(2)
        await wait_for_ended_runs(client, 3)
        documents = {document.name: document for document in emulator.documents(one)}
        repeated_check = check_load(
            ["a.txt", "b.txt"], [*documents.values()], emulator.history, emulator.runs
        )
        await upload_files(client, one, ["a.txt"])
        clock.advance(2)
        await wait_for_ended_runs(client, 4)
        repaired_check = check_load(
            ["a.txt", "b.txt"], emulator.documents(one), emulator.history, emulator.runs
        )

    assert (documents["a.txt"].status, documents["a.txt"].chunks) == ("completed", 6)
    assert documents["b.txt"].chunks == 3
    assert not repeated_check
    assert (repeated_check.lost, repeated_check.duplicates) == ([], {})
    assert (
        repeated_check.overlapped
        == repeated_check.doubled_chunks
        == repeated_check.reposted
        == ["a.txt"]
    )
    assert repeated_check.extra_creates == {"a.txt": 1}
    assert repaired_check.doubled_chunks == []
    assert repaired_check.extra_creates == {"a.txt": 2}


async def wait_for_ended_runs(client: EmulatorClient, count: int) -> None:
    await wait_until(lambda: sum(event.kind == "ended" for event in client.emulator.runs) == count)


async def test_run_whose_chunks_another_deleted_leaves_none_searchable() -> None:
    """Otherwise a search would find chunks that no longer exist."""
    clock = ManualClock()
    async with run_emulator(clock=clock, settings=Settings(workers=2, indexing=1)) as client:
        one = await client.create_dataset()
        for text in (b"an old zebra", b"a new lion"):
            made = await client.create_by_file(one, "a.txt", text)
            await client.wait_for_status(one, made.body["batch"], "indexing")
        clock.advance(2)
        await wait_for_ended_runs(client, 2)
        zebras = await client.retrieve(one, "zebra")
        lions = await client.retrieve(one, "lion")

    assert (zebras.status, zebras.body["records"]) == (200, [])
    assert len(lions.body["records"]) == 1
