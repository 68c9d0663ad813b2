from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve
from journal_examples import IDENTITY, intent

from dify_kb.errors import JournalError, SourceError
from dify_kb.ingest import ItemResult, Outcome
from dify_kb.ingest.journal import (
    Journal,
    JournalBusyError,
    JournalRow,
    JournalState,
    NameTakenError,
    iter_failed_results,
    open_journal,
)
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.models import IndexingStatus


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with open_journal(tmp_path / "journal.db", IDENTITY) as journal:
        yield journal


def read_state(journal: Journal, key: str) -> JournalState | None:
    row = journal.get_rows([key]).get(key)
    return row.state if row else None


def fill_disk(journal: Journal) -> None:
    """Limit the file to its current size."""
    (pages,) = journal._database.connection.execute("PRAGMA page_count").fetchone()
    journal._database.connection.execute(f"PRAGMA max_page_count={pages}")


def record_commits(journal: Journal) -> list[str]:
    """Return a list to which each commit appends a line."""
    commits: list[str] = []
    journal._database.connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    return commits


def list_journal_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "journal" in thread.name]


async def test_intents_and_accepted_documents_survive_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    row = intent("a/b.md", name="a__b.md", token="1.2.3", content=bytes(range(32)), previous="f0")
    async with open_journal(path, IDENTITY) as journal:
        await journal.record_intent(row)
        journal.record_accepted(row.key, "d1", "b1", "f1")

    async with open_journal(path, IDENTITY) as journal:
        assert journal.get_rows([row.key, "other.md"]) == {
            row.key: evolve(
                row, state=JournalState.ACCEPTED, document_id="d1", batch="b1", upload_file_id="f1"
            )
        }


async def test_new_intent_keeps_the_known_document(journal: Journal) -> None:
    """Until the server accepts the new content, it has the old document."""
    await journal.record_intent(intent("a.md"))
    journal.record_accepted("a.md", "d1", "b1", "f1")
    journal.record_state("a.md", JournalState.DONE, labels="l1")

    await journal.record_intent(intent("a.md", content=b"new", attempts=1, previous="f1"))

    row = journal.get_rows(["a.md"])["a.md"]
    assert (row.state, row.document_id, row.upload_file_id) == (JournalState.SENDING, "d1", "f1")
    assert (row.content, row.previous, row.labels, row.reason) == (b"new", "f1", "", None)


async def test_failing_row_function_does_not_affect_other_rows(journal: Journal) -> None:
    def broken() -> JournalRow:
        raise SourceError("b.md: it could not be read.")

    async with anyio.create_task_group() as together:
        together.start_soon(journal.record_intent, lambda: intent("a.md"))
        with pytest.raises(SourceError, match=r"b\.md"):
            await journal.record_intent(broken)

    assert set(journal.get_rows(["a.md", "b.md"])) == {"a.md"}


async def test_late_row_raises_journal_busy_error(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On slow storage, the caller then creates the row in another thread."""
    monkeypatch.setattr("dify_kb.ingest.journal.group_commit.MAX_EVALUATION_SECONDS", -1.0)

    with pytest.raises(JournalBusyError):
        await journal.record_intent(lambda: intent("a.md"))

    assert not journal.get_rows(["a.md"])


async def test_known_documents_and_unanswered_sends_are_counted(
    journal: Journal,
) -> None:
    for key in ("new.md", "again.md", "known.md", "refused.md"):
        await journal.record_intent(intent(key))
    for key in ("again.md", "known.md"):
        journal.record_accepted(key, f"d-{key}", "b", "f")
    await journal.record_intent(intent("again.md"))
    journal.record_state("refused.md", JournalState.FAILED, reason="too large")
    await journal.flush()

    assert journal.files.count_documents() == 1
    assert journal.files.count_unanswered() == 2


async def test_files_are_counted_by_their_state(journal: Journal) -> None:
    for key in ("a.md", "b.md", "c.md", "d\udce9.md"):
        await journal.record_intent(intent(key))
    journal.record_state("b.md", JournalState.DONE)
    journal.record_state("d\udce9.md", JournalState.EMPTIED, reason="its replacement failed")
    await journal.flush()

    assert journal.files.count_states() == {
        JournalState.SENDING: 2,
        JournalState.DONE: 1,
        JournalState.EMPTIED: 1,
    }
    assert journal.files.list_emptied_keys() == ["d\udce9.md"]


async def test_many_writers_share_few_commits(journal: Journal) -> None:
    """Each commit flushes the disk, which takes some milliseconds."""
    commits = record_commits(journal)

    async with anyio.create_task_group() as tasks:
        for number in range(500):
            tasks.start_soon(journal.record_intent, intent(f"{number}.md"))

    assert journal.files.count_unanswered() == 500
    assert len(commits) < 50


async def test_close_writes_share_one_commit(tmp_path: Path) -> None:
    """Even if they arrive in different loop iterations; once all have arrived, none waits."""
    async with open_journal(tmp_path / "journal.db", IDENTITY, max_waiters=lambda: 8) as journal:
        await journal.record_intent(intent("first.md"))
        commits = record_commits(journal)
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(journal.record_intent, intent(f"{number}.md"))
                for _ in range(number):
                    await anyio.lowlevel.checkpoint()

        assert journal.files.count_unanswered() == 9
        assert len(commits) <= 2


async def test_taken_name_fails_only_its_file(journal: Journal) -> None:
    """Even though the rows of a commit share one statement."""
    await journal.record_intent(intent("taken.md"))
    failed: list[str] = []

    async def intend(key: str, name: str) -> None:
        try:
            await journal.record_intent(intent(key, name=name))
        except NameTakenError:
            failed.append(key)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            name = "taken.md" if number % 10 == 3 else f"{number}.md"
            tasks.start_soon(intend, f"{number}.md", name)

    assert sorted(failed) == ["13.md", "23.md", "3.md", "33.md"]
    assert journal.files.count_unanswered() == 37


async def test_writes_keep_their_order(journal: Journal) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.record_intent, intent("a.md"))
        await anyio.lowlevel.checkpoint()
        journal.record_accepted("a.md", "d1", "b1", "f1")
        journal.record_state("a.md", JournalState.DONE)

    await journal.flush()
    assert read_state(journal, "a.md") is JournalState.DONE


async def test_taken_name_is_rejected_within_a_batch(journal: Journal) -> None:
    """Two files with one document name would replace each other in every load."""
    refused: list[str] = []

    async def write(number: int) -> None:
        try:
            await journal.record_intent(intent(f"{number}.md", name=f"{number % 25}.md"))
        except NameTakenError:
            refused.append(f"{number}.md")

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(write, number)

    assert sorted(refused) == sorted(f"{number}.md" for number in range(25, 50))
    assert journal.files.count_unanswered() == 25


async def test_full_disk_fails_all_waiting_and_later_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    failed: list[JournalError] = []

    async def write(journal: Journal, number: int) -> None:
        try:
            await journal.record_intent(intent(f"{number}.md", content=bytes(8000)))
        except JournalError as error:
            failed.append(error)

    async with open_journal(path, IDENTITY) as journal:
        await journal.record_intent(intent("before.md"))
        fill_disk(journal)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(write, journal, number)
        journal.record_state("before.md", JournalState.DONE)
        with pytest.raises(JournalError, match="full"):
            await journal.flush()

    assert len(failed) == 20
    assert all(str(path) in error.summary and "free space" in error.hint for error in failed)
    async with open_journal(path, IDENTITY) as journal:
        assert read_state(journal, "before.md") is JournalState.DONE
        assert journal.files.count_unanswered() == 0


async def test_failed_background_write_fails_the_flush(journal: Journal) -> None:
    """Otherwise the report would claim that everything was recorded."""
    fill_disk(journal)
    for number in range(50):
        journal.results.store(
            ItemResult(key=f"{number}", outcome=Outcome.FAILED, reason="x" * 1000)
        )

    with pytest.raises(JournalError, match="full"):
        await journal.flush()


async def test_write_error_fails_the_intent(journal: Journal) -> None:
    journal._database.connection.execute("PRAGMA query_only=1")

    with pytest.raises(JournalError, match="readonly"):
        await journal.record_intent(intent("a.md"))


async def test_locked_database_is_a_journal_error(
    journal: Journal,
) -> None:
    assert journal.path is not None
    journal._database.connection.execute("PRAGMA busy_timeout=50")
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(JournalError, match="locked"):
        await journal.record_intent(intent("a.md"))

    other.execute("ROLLBACK")
    other.close()
    await journal.record_intent(intent("a.md"))
    assert journal.files.count_unanswered() == 1


async def test_close_commits_pending_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, IDENTITY) as journal:
        await journal.record_intent(intent("a.md"))
        journal.record_state("a.md", JournalState.FAILED, reason="no")

    async with open_journal(path, IDENTITY) as journal:
        row = journal.get_rows(["a.md"])["a.md"]
        assert (row.state, row.reason) == (JournalState.FAILED, "no")


async def test_close_leaves_no_thread_or_file_open(tmp_path: Path) -> None:
    async def fail(path: Path) -> None:
        async with open_journal(path, IDENTITY) as journal:
            await journal.record_intent(intent("a.md"))
            raise ZeroDivisionError

    for number in range(3):
        with pytest.raises(ZeroDivisionError):
            await fail(tmp_path / f"{number}.db")
        assert not (tmp_path / f"{number}.db-wal").exists()

    assert list_journal_threads() == []


async def test_write_after_close_is_rejected_at_once(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", IDENTITY) as journal:
        pass

    with pytest.raises(JournalError, match="closed"):
        await journal.record_intent(intent("a.md"))
    journal.record_state("a.md", JournalState.DONE)


async def test_write_of_a_cancelled_task_is_committed(journal: Journal) -> None:
    """The file may have been sent: the next run has to look it up."""
    for number in range(20):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.record_intent(intent(f"{number}.md"))

    await journal.flush()
    assert journal.files.count_unanswered() == 20


async def test_cancelled_task_does_not_block_other_writers(journal: Journal) -> None:
    tasks = [
        asyncio.create_task(journal.record_intent(intent(f"{number}.md"))) for number in range(10)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()

    await asyncio.wait(tasks)

    await journal.flush()
    assert journal.files.count_unanswered() == 10


async def test_non_utf8_file_name_is_stored(tmp_path: Path) -> None:
    """Linux allows any bytes, which Python returns as lone surrogates."""
    path = tmp_path / "journal.db"
    key = "folder/latin\udce9.txt"
    identity = {**IDENTITY, "source": "/docs\udce9"}
    async with open_journal(path, identity) as journal:
        await journal.record_intent(intent(key, name="plain"))
        journal.record_accepted(key, "d1", "b1", "f1")
        journal.record_state(key, JournalState.FAILED, reason=key)
        journal.results.store(ItemResult(key=key, outcome=Outcome.FAILED))
        await journal.flush()

        run = journal.run

    async with open_journal(path, identity) as journal:
        row = journal.get_rows(["other", key])[key]
        assert (row.key, row.document_id, row.reason) == (key, "d1", key)
    assert [result.key for result in iter_failed_results(path, run)] == [key]


async def test_unsupported_sqlite_value_is_an_error(journal: Journal) -> None:
    with pytest.raises(JournalError, match="too large"):
        await journal.record_intent(intent("a.md", size=2**64))

    await journal.record_intent(intent("b.md"))
    assert journal.files.count_unanswered() == 1


async def test_failures_are_kept_for_five_runs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for number in range(1, 8):
        async with open_journal(path, IDENTITY) as journal:
            assert journal.run == number
            journal.results.store(
                ItemResult(key=f"{number}.md", outcome=Outcome.FAILED, reason="no")
            )
            await journal.flush()
            assert [result.key for result in journal.results.iter_failures()] == [f"{number}.md"]

    failures = {
        run: [result.key for result in iter_failed_results(path, run)] for run in range(1, 8)
    }
    assert failures == {1: [], 2: []} | {run: [f"{run}.md"] for run in range(3, 8)}


async def test_stored_results_are_complete_and_ordered(journal: Journal) -> None:
    expected = [
        ItemResult(
            key=f"{number}.md",
            outcome=Outcome.STALLED,
            reason="why",
            name="name",
            document_id="d",
            batch="b",
            size=3,
            attempts=2,
            reconciled=True,
            warnings=["doubled"],
            error="error",
            timings={"upload": 0.5},
        )
        for number in range(450)
    ]
    for result in expected:
        journal.results.store(result)
    await journal.flush()

    assert list(journal.results.iter_failures()) == expected


async def test_held_results_are_not_failures_and_last_one_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, IDENTITY) as journal:
        journal.results.store(ItemResult(key="a.md", outcome=Outcome.ADDED), held=True)
        await journal.flush()
        assert [result.key for page in journal.results.iter_held() for result in page] == ["a.md"]
        assert list(journal.results.iter_failures()) == []

    async with open_journal(path, IDENTITY):
        pass
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM result").fetchone() == (0,)
    connection.close()


async def test_duplicate_names_return_the_document_that_a_create_replaces(journal: Journal) -> None:
    def remote(document_id: str, *, enabled: bool, place: int) -> RemoteDocument:
        return RemoteDocument(
            document_id=document_id,
            enabled=enabled,
            status=IndexingStatus.COMPLETED,
            upload_file_id=f"f-{document_id}",
            size=3,
            place=place,
        )

    off, on, older = (
        remote("off", enabled=False, place=0),
        remote("on", enabled=True, place=1),
        remote("older", enabled=True, place=2),
    )
    alone = remote("alone", enabled=False, place=3)
    journal.documents.add([("a.md", off), ("a.md", on), ("a.md", older), ("b.md", alone)])
    journal.documents.add([("b.md", alone)])

    assert journal.documents.find_by_name(["a.md", "b.md", "c.md"]) == {"a.md": on, "b.md": alone}
    assert journal.documents.find_by_id(["older", "gone"]) == {"older": older}
    assert journal.documents.count_duplicates(["a.md", "b.md"]) == {"a.md": 3}
    journal.documents.clear()
    assert journal.documents.find_by_name(["a.md"]) == {}
