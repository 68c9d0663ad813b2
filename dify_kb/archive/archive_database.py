"""Open the SQLite databases in which exports and imports record their progress."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
from attrs import define, field

from dify_kb.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@define
class ProgressDatabase:
    """A database that one process uses at a time. Use `call` for its methods, which block."""

    path: Path | None
    _database: sqlite3.Connection = field(repr=False)
    _limiter: anyio.CapacityLimiter = field(factory=lambda: anyio.CapacityLimiter(1), init=False)

    @classmethod
    def connect(cls, path: Path | None, application_id: int, tables: str) -> Self:
        """Open or create a database; in memory without a path.

        Raises:
            ArchiveError: another process uses it, or it is damaged.
        """
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(path or ":memory:", timeout=0.5, check_same_thread=False)
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN EXCLUSIVE")
            (mark,) = database.execute("PRAGMA application_id").fetchone()
            if mark == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                database.execute(f"PRAGMA application_id = {application_id}")
                for statement in tables.split(";"):
                    database.execute(statement)
            elif mark != application_id:
                database.close()
                raise ArchiveError(
                    f"{path} is not the journal of an export or import.", hint="Pass another path."
                )
            database.commit()
        except sqlite3.DatabaseError as error:
            if database is not None:
                database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise ArchiveError(
                    f"{path} is in use by another process, or cannot be written: {error}.",
                    hint="Wait for the other export or import to end.",
                ) from error
            raise damaged_error(path, error) from error
        return cls(path, database)

    async def call(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Run a method in a thread, one at a time.

        Raises:
            ArchiveError: the database is damaged.
        """
        try:
            return await anyio.to_thread.run_sync(method, *arguments, limiter=self._limiter)
        except sqlite3.DatabaseError as error:
            raise damaged_error(self.path, error) from error

    def close(self) -> None:
        """Close the database and release its lock."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit the changes of the block, or none of them."""
        with self._database as database:
            yield database

    def get_meta(self, name: str) -> str | None:
        """Return a stored value, or None."""
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: str) -> None:
        """Store a value."""
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def damaged_error(path: Path | None, error: Exception) -> ArchiveError:
    """Return the error of a damaged database."""
    return ArchiveError(
        f"{path} is damaged: {error}.", hint="Delete it: the next run starts from the beginning."
    )
