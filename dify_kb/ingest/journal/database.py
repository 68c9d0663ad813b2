"""Read and write the database of an open journal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import schema
from .rows import to_sqlite

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .batch import Statement, Values
    from .writer import Writer


class JournalDatabase:
    """The database of an open journal; without a path, in memory.

    Reads block the thread for at most one commit; writes of all tasks share commits.
    """

    def __init__(self, writer: Writer, path: Path | None) -> None:
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
        with schema.translate_errors(self.path), self._writer.connection_lock:
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
            LateError: the journal's thread was busy for too long; the values were not computed.
            JournalError: the commit failed.
        """
        batch, position = self._writer.add(statement, values, soon=True)
        await batch.done.wait()
        if batch.error is not None:
            raise schema.journal_error(self.path, batch.error) from batch.error
        if (refused := batch.refused.get(position)) is not None:
            raise refused

    def check_commits(self) -> None:
        """Raise the error of the first commit that failed.

        Raises:
            JournalError: a commit failed.
        """
        if self._writer.error is not None:
            raise schema.journal_error(self.path, self._writer.error) from self._writer.error

    def close(self) -> None:
        """Commit the rest and close the file, in the journal's thread; returns at once."""
        self._writer.close()
