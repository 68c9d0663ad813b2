"""The SQLite database of a journal: creation, checks, reads and writes."""

from __future__ import annotations

import functools
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dify_kb.errors import JournalError

from .journal_rows import to_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .group_commit import JournalThread, Statement, Values

APPLICATION_ID: Final = 0x4B42_4C44
"""The SQLite `application_id` of journals: "KBLD"."""

FORMAT_VERSION: Final = 3

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that has locked the file, such as a backup."""

_MARK: Final = APPLICATION_ID.to_bytes(4)
_HEADER_SIZE: Final = 100
"""Bytes of the header of an SQLite file; the `application_id` is at offset 68."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE run (
    id INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, report TEXT
);
CREATE TABLE item (
    key TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, token TEXT,
    content BLOB NOT NULL, rule TEXT NOT NULL, labels TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, sent_at REAL NOT NULL, previous TEXT, document_id TEXT, batch TEXT,
    upload_file_id TEXT, reason TEXT
) WITHOUT ROWID;
CREATE TABLE result (
    number INTEGER PRIMARY KEY, run INTEGER NOT NULL, held INTEGER NOT NULL, result TEXT NOT NULL
);
CREATE INDEX result_of_run ON result (run, held, number);
"""

_TEMPORARY_TABLES: Final = """
CREATE TEMP TABLE remote (
    name TEXT NOT NULL, document_id TEXT PRIMARY KEY, enabled INTEGER NOT NULL,
    archived INTEGER NOT NULL, status TEXT NOT NULL, upload_file_id TEXT, size INTEGER,
    place INTEGER
) WITHOUT ROWID;
CREATE INDEX remote_by_name ON remote (name, enabled);
"""


def require_journal(path: Path) -> None:
    """Check that a file is a journal before SQLite opens, and possibly modifies, the file.

    Raises:
        JournalError: the file is not a journal, or it is truncated or unreadable.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_SIZE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable_error(path, (error.strerror or str(error)).lower()) from error
    if not head:
        return
    if head[:16] != b"SQLite format 3\0"[: len(head)] or head[68:72] not in {b"", _MARK}:
        raise JournalError(
            f"{path} is not a journal of a load.", hint="Pass another file. It was not modified."
        )
    if len(head) < _HEADER_SIZE:
        raise _unusable_error(path, "the file is truncated")


def connect_journal(path: Path | None, original: Path | None = None) -> sqlite3.Connection:
    """Open or create a journal; without a path in memory, as a copy of `original` if that exists.

    Raises:
        JournalError: the file is not a journal, damaged, of another version or not writable.
    """
    if path is None and original is not None and original.exists():
        return _copy_to_memory(original)
    if path is not None and path.exists() and not os.access(path, os.W_OK):
        raise _unusable_error(path, "the file is read-only")
    with translate_errors(path):
        return _open_database(
            ":memory:" if path is None else str(path), lambda db: _prepare(db, path)
        )


def _copy_to_memory(original: Path) -> sqlite3.Connection:
    """Copy a journal, even while a load writes to it; create no files next to an idle journal."""
    log = Path(f"{original}-wal")
    require_journal(original)
    while True:
        idle = not log.exists()
        name = f"file:{quote(str(original))}?mode=ro{'&immutable=1' if idle else ''}"
        with translate_errors(original):
            copy = _open_database(
                ":memory:", functools.partial(_copy_into, name=name, original=original)
            )
        if not idle or not log.exists():
            return copy
        copy.close()  # a load began during the copy, which may be inconsistent


def _copy_into(copy: sqlite3.Connection, name: str, original: Path) -> None:
    source = _open_database(name, lambda db: _require_version(db, original))
    try:
        source.backup(copy)
    finally:
        source.close()
    copy.executescript(_TEMPORARY_TABLES)


@contextmanager
def open_readonly(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal read-only, even while a load writes to it.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    if not path.is_file():
        raise JournalError(
            f"Journal not found: {path}.", hint="List the journals with `dify-kb journal show`."
        )
    require_journal(path)
    with translate_errors(path):
        # mode=ro would not delete the files of the write-ahead log.
        connection = _open_database(
            f"file:{quote(str(path))}?mode=rw", lambda db: _require_version(db, path)
        )
        try:
            connection.execute("PRAGMA query_only=1")
            yield connection
        finally:
            connection.close()


def journal_error(path: Path | None, error: Exception) -> JournalError:
    """Return the error of a journal whose database failed."""
    return _unusable_error(path, str(error))


@contextmanager
def translate_errors(path: Path | None) -> Iterator[None]:
    """Translate SQLite errors and unparsable values into JournalError."""
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise journal_error(path, error) from error


def _open_database(
    name: str, prepare: Callable[[sqlite3.Connection], object]
) -> sqlite3.Connection:
    """Open a database and prepare it; close it if that fails."""
    connection = sqlite3.connect(
        name,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        uri=name[:5] == "file:",
    )
    connection.row_factory = sqlite3.Row
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path | None) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _require_version(connection, path)
    else:
        # Before WAL mode is enabled, so that the application_id is in the file itself, not in the
        # log. If the process is killed here, the file is still empty.
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id={APPLICATION_ID};"
            f" PRAGMA user_version={FORMAT_VERSION}; COMMIT;"
        )
    connection.execute("PRAGMA journal_mode=WAL")
    # Recorded documents must survive a power failure.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-8192")
    connection.executescript(_TEMPORARY_TABLES)


def _require_version(connection: sqlite3.Connection, path: Path | None) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        age = "a newer" if version > FORMAT_VERSION else "an older"
        raise JournalError(
            f"The journal {path} was written by {age} dify-kb"
            f" (format {version}, not {FORMAT_VERSION}).",
            hint="Use that version, or pass another journal= (--journal). It was not modified.",
        )


def _unusable_error(path: Path | None, why: str) -> JournalError:
    return JournalError(
        f"The journal {path or 'in memory'} cannot be used: {why}.",
        hint="Check free space and permissions, or pass another journal= (--journal).",
    )


class JournalDatabase:
    """The database of an open journal; in memory if it has no path.

    Reads block the thread for at most one commit; writes of all tasks share commits.
    """

    def __init__(self, writer: JournalThread, path: Path | None) -> None:
        self.path = path
        self.connection = writer.connection
        self._writer = writer

    def select(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self.lock() as connection:
            return connection.execute(sql, [to_sqlite(value) for value in values]).fetchall()

    def select_number(self, sql: str) -> int:
        """Return the single number of a query."""
        return int(self.select(sql)[0][0])

    @contextmanager
    def lock(self) -> Iterator[sqlite3.Connection]:
        """Lock the connection against concurrent commits.

        Raises:
            JournalError: SQLite failed.
        """
        with translate_errors(self.path), self._writer.connection_lock:
            yield self.connection

    def add(self, statement: Statement, *values: Any) -> None:
        """Add a write to the next commit, which follows within 50 ms."""
        self._writer.add(statement, [to_sqlite(value) for value in values], soon=False)

    async def commit(self, statement: Statement, values: Values | Callable[[], Values]) -> None:
        """Write, and return once the write is on disk.

        Args:
            values: the values, or a function that computes them in the journal's thread. Its
                exceptions are raised here.

        Raises:
            sqlite3.IntegrityError: the values violate a constraint.
            JournalBusyError: the journal's thread was busy for too long to compute the values.
            JournalError: the commit failed.
        """
        batch, position = self._writer.add(statement, values, soon=True)
        await batch.done.wait()
        if batch.error is not None:
            raise journal_error(self.path, batch.error) from batch.error
        if (refused := batch.refused.get(position)) is not None:
            raise refused

    def check_commits(self) -> None:
        """Raise the error of the first failed commit.

        Raises:
            JournalError: a commit failed.
        """
        if self._writer.error is not None:
            raise journal_error(self.path, self._writer.error) from self._writer.error

    def close(self) -> None:
        """Request a final commit and the closing of the file, without waiting."""
        self._writer.close()
