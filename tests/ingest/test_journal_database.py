from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from journal_examples import IDENTITY, intent

from dify_kb.errors import ConfigError, JournalError, KnowledgeError
from dify_kb.ingest import ItemResult, Outcome
from dify_kb.ingest.journal import JournalState, iter_failed_results, journal_database, open_journal
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.models import IndexingStatus

REMOTE = RemoteDocument(
    document_id="d", enabled=True, status=IndexingStatus.COMPLETED, upload_file_id=None
)

HOLDER = """
import anyio, sys
from pathlib import Path
from dify_kb.ingest.journal import open_journal

async def main():
    async with open_journal(Path(sys.argv[1]), {"server": "https://dify", "dataset": "d"}):
        print("open", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""

CUT_OFF = """
import os, sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA application_id=0x4b424c44")
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.execute("CREATE TABLE item (a)")
for _ in range(100):
    connection.execute("INSERT INTO item VALUES (hex(randomblob(5000)))")
os.kill(os.getpid(), 9)
"""


@contextmanager
def hold_journal(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Open a journal in another process."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


async def open_and_catch_error(
    path: Path, identity: Mapping[str, str] = IDENTITY, *, copy: bool = False
) -> str:
    """Try to open a journal; return the error message."""
    with pytest.raises(KnowledgeError) as caught:
        async with open_journal(path, identity, copy=copy):
            pass
    assert caught.type in {JournalError, ConfigError}
    assert caught.value.hint
    return caught.value.summary


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def protect(path: Path, mode: int) -> None:
    path.chmod(mode)
    if os.access(path, os.W_OK):
        pytest.skip("nothing is read-only for root")


async def create_journal(path: Path, *keys: str) -> None:
    async with open_journal(path, IDENTITY) as journal:
        for key in keys:
            await journal.record_intent(intent(key))


async def test_second_load_of_the_process_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, IDENTITY):
        assert "in use by another load of this process" in await open_and_catch_error(path)

    async with open_journal(path, IDENTITY):
        pass


async def test_journal_held_by_another_process_is_rejected(tmp_path: Path) -> None:
    """The operating system releases the lock when the process dies."""
    path = tmp_path / "journal.db"
    with hold_journal(path) as process:
        assert f"in use by process {process.pid} on " in await open_and_catch_error(path)
        process.send_signal(signal.SIGKILL)
        process.wait()

        async with open_journal(path, IDENTITY) as journal:
            assert journal.run == 2


async def test_dry_run_reads_while_a_load_writes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, IDENTITY) as journal:
        await journal.record_intent(intent("a.md"))

        async with open_journal(path, IDENTITY, copy=True) as copy:
            assert copy.files.count_unanswered() == 1
            copy.record_accepted("a.md", "d", "b", "f")

        assert journal.files.count_unanswered() == 1


@pytest.mark.parametrize("name", ["server", "dataset", "source"])
@pytest.mark.parametrize("copy", [False, True], ids=["load", "dry run"])
async def test_journal_of_another_load_is_rejected_unmodified(
    tmp_path: Path, name: str, *, copy: bool
) -> None:
    path = tmp_path / "journal.db"
    await create_journal(path, "a.md")
    before = path.read_bytes()

    why = await open_and_catch_error(path, {**IDENTITY, name: "another"}, copy=copy)

    assert f"belongs to {name} " in why
    assert path.read_bytes() == before


async def test_unnamed_source_can_use_a_given_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    identity = {name: IDENTITY[name] for name in ("server", "dataset")}
    for number in (1, 2):
        async with open_journal(path, identity) as journal:
            assert journal.run == number

    assert "belongs to dataset d, not e" in await open_and_catch_error(
        path, {**identity, "dataset": "e"}
    )


def text(path: Path) -> None:
    path.write_text("notes of mine, which are long\n" * 200)


def short_text(path: Path) -> None:
    path.write_text("a")


def database(path: Path) -> None:
    """Create a database of another program, with its latest writes in the write-ahead log."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    journal(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA user_version={journal_database.FORMAT_VERSION + 1}")
    connection.close()


def journal(path: Path) -> None:
    journal_database.connect_journal(path).close()


@pytest.mark.parametrize("copy", [False, True], ids=["load", "dry run"])
@pytest.mark.parametrize(
    ("make_it", "why"),
    [
        (text, "not a journal of a load"),
        (short_text, "not a journal of a load"),
        (database, "not a journal of a load"),
        (newer, "written by a newer dify-kb"),
        (Path.mkdir, "is a directory"),
    ],
)
async def test_foreign_file_is_rejected_unmodified(
    tmp_path: Path, make_it: object, why: str, *, copy: bool
) -> None:
    assert callable(make_it)
    path = tmp_path / "there" / "journal.db"
    path.parent.mkdir()
    make_it(path)
    before = None if path.is_dir() else files(path.parent)

    assert why in await open_and_catch_error(path, copy=copy)

    if before is not None:
        now = files(path.parent)
        now.pop("journal.db-lock", None)
        assert now == before


async def test_log_file_of_another_program_is_not_modified(tmp_path: Path) -> None:
    """SQLite merges the log into the database when the last connection closes, even a reader's."""
    path = tmp_path / "emulator.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE mine (a)")
    before = files(tmp_path)

    assert "not a journal" in await open_and_catch_error(path)

    assert files(tmp_path) == before
    writer.close()


@pytest.mark.parametrize("copy", [False, True], ids=["load", "dry run"])
@pytest.mark.parametrize("part", [0.001, 0.01, 0.2, 0.5, 0.9])
async def test_truncated_journal_is_rejected_unmodified(
    tmp_path: Path, part: float, *, copy: bool
) -> None:
    path = tmp_path / "journal.db"
    await create_journal(path, *(f"{number}.md" for number in range(200)))
    whole = path.read_bytes()
    rest = whole[: int(len(whole) * part)]
    path.write_bytes(rest)

    why = await open_and_catch_error(path, copy=copy)

    assert f"The journal {path} cannot be used" in why
    assert path.read_bytes() == rest


async def test_damaged_page_raises_when_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await create_journal(path, *(f"{number}.md" for number in range(500)))
    whole = bytearray(path.read_bytes())
    for page in range(8 * 4096, len(whole), 4096):
        whole[page : page + 2000] = b"\xff" * 2000
    path.write_bytes(whole)

    with pytest.raises(JournalError, match="malformed"):
        async with open_journal(path, IDENTITY) as opened_again:
            opened_again.get_rows([f"{number}.md" for number in range(500)])


async def test_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()

    await create_journal(path, "a.md")

    async with open_journal(path, IDENTITY) as again:
        assert again.files.count_unanswered() == 1


async def test_interrupted_creation_starts_a_new_journal(tmp_path: Path) -> None:
    """A process killed at that moment leaves a file that is rolled back when opened."""
    path = tmp_path / "journal.db"
    await anyio.run_process([sys.executable, "-c", CUT_OFF, str(path)], check=False)
    left = files(tmp_path)
    assert len(left["journal.db"]) > 4096
    assert left["journal.db-journal"]

    await create_journal(path, "a.md")

    async with open_journal(path, IDENTITY) as again:
        assert again.files.count_unanswered() == 1


async def test_missing_folder_is_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "journal.db"

    await create_journal(path, "a.md")

    assert path.exists()


async def test_unwritable_path_raises_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert "cannot be used" in await open_and_catch_error(tmp_path / "file" / "journal.db")


async def test_readonly_journal_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await create_journal(path, "a.md")
    protect(path, 0o400)

    assert "the file is read-only" in await open_and_catch_error(path)

    async with open_journal(path, IDENTITY, copy=True) as copy:
        assert copy.files.count_unanswered() == 1


@pytest.mark.parametrize("existing", [False, True])
async def test_readonly_folder_is_rejected(tmp_path: Path, *, existing: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if existing:
        await create_journal(folder / "journal.db", "a.md")
        (folder / "journal.db-lock").unlink()
    protect(folder, 0o500)
    try:
        assert "permission denied" in await open_and_catch_error(folder / "journal.db")
    finally:
        folder.chmod(0o700)


async def test_dry_run_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    async with open_journal(folder / "journal.db", IDENTITY, copy=True) as copy:
        await copy.record_intent(intent("a.md"))
        assert copy.path is None

    assert not folder.exists()


async def test_dry_run_does_not_modify_an_existing_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await create_journal(path, "a.md")
    before = files(tmp_path)

    async with open_journal(path, IDENTITY, copy=True) as copy:
        assert copy.files.count_unanswered() == 1
        copy.record_state("a.md", JournalState.DONE)
        await copy.flush()
        assert copy.files.count_unanswered() == 0

    assert files(tmp_path) == before


async def test_dry_run_after_a_kill_does_not_modify_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with hold_journal(path):
        pass
    before = files(tmp_path)
    assert before["journal.db-wal"]

    async with open_journal(path, {**IDENTITY}, copy=True) as copy:
        assert copy.run == 2

    now = files(tmp_path)
    now.pop("journal.db-shm")
    before.pop("journal.db-shm")
    assert now == before


async def test_reading_failures_leaves_no_files(tmp_path: Path) -> None:
    path = tmp_path / "with space? 100%#.db"
    async with open_journal(path, IDENTITY) as journal:
        journal.results.store(ItemResult(key="a.md", outcome=Outcome.FAILED))
        await journal.flush()
        assert [result.key for result in iter_failed_results(path, 1)] == ["a.md"]
    before = files(tmp_path)

    assert [result.key for result in iter_failed_results(path, 1)] == ["a.md"]

    assert files(tmp_path) == before


async def test_failures_of_a_missing_journal_raise(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="Journal not found"):
        next(iter_failed_results(tmp_path / "gone.db", 1))
    (tmp_path / "text").write_text("text")
    with pytest.raises(JournalError, match="not a journal"):
        next(iter_failed_results(tmp_path / "text", 1))


@pytest.mark.parametrize("damage", ["DROP TABLE result", "UPDATE result SET result = '{'"])
async def test_failures_of_a_damaged_journal_raise(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, IDENTITY) as journal:
        journal.results.store(ItemResult(key="a.md", outcome=Outcome.FAILED))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)

    with pytest.raises(JournalError, match=f"The journal {path} cannot be used"):
        next(iter_failed_results(path, 1))


async def test_unstorable_document_raises_journal_error(
    tmp_path: Path,
) -> None:
    """It is stored in a temporary table, and the disk for temporary files may be full, too."""
    async with open_journal(tmp_path / "journal.db", IDENTITY) as journal:
        journal._database.connection.execute("DROP TABLE remote")
        with pytest.raises(JournalError, match="no such table"):
            journal.documents.add([("a.md", REMOTE)])
        with pytest.raises(JournalError, match="no such table"):
            journal.documents.clear()
        await journal.record_intent(intent("a.md"))
