"""The journal of a load: records its files and runs."""

from __future__ import annotations

import functools
import sqlite3
import time
from typing import TYPE_CHECKING

import anyio.to_thread

from dify_kb.errors import ConfigError

from .journal_database import JournalDatabase
from .journal_queries import FilesByState, KnownDocuments, StoredResults
from .journal_rows import COLUMNS, JournalRow, JournalState, from_sqlite, parse_row, row_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .group_commit import JournalThread


def _placeholders(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@functools.cache
def _make_intent_sql(rows: int) -> str:
    return f"""
        INSERT INTO item ({", ".join(COLUMNS)}) VALUES {_placeholders(len(COLUMNS), rows)}
        ON CONFLICT (key) DO UPDATE SET name = excluded.name, size = excluded.size,
            token = excluded.token, content = excluded.content, rule = excluded.rule,
            labels = excluded.labels, state = excluded.state, attempts = excluded.attempts,
            sent_at = excluded.sent_at, previous = excluded.previous, reason = NULL
    """  # noqa: S608 -- own names


def _make_update_sql(*columns: str) -> Callable[[int], str]:
    """Return a function from the number of rows to the SQL that updates these columns by key."""
    names = ", ".join(columns)

    @functools.cache
    def sql(rows: int) -> str:
        return f"""
            WITH given (key, {names}) AS (VALUES {_placeholders(1 + len(columns), rows)})
            UPDATE item SET ({names}) = (SELECT {names} FROM given WHERE given.key = item.key)
            WHERE key IN (SELECT key FROM given)
        """  # noqa: S608 -- own names

    return sql


_make_accepted_sql = _make_update_sql("state", "document_id", "batch", "upload_file_id")
_make_state_sql = _make_update_sql("state", "reason", "labels")


class NameTakenError(Exception):
    """Raised if the document name belongs to another file of the journal."""


class Journal:
    """An open journal: the rows of files and runs.

    `files` queries the rows by state, `documents` contains the dataset's documents, `results` the
    results of the run. Coroutines return once their write is on disk; other methods write within
    50 ms. Methods that read block the thread for at most one commit.
    """

    def __init__(self, writer: JournalThread, path: Path | None) -> None:
        self.path = path
        self._database = JournalDatabase(writer, path)
        self.files = FilesByState(self._database)
        self.documents = KnownDocuments(self._database)
        self.results = StoredResults(self._database)

    @property
    def run(self) -> int:
        """The number of this run; 0 before `begin_run`."""
        return self.results.run

    def get_rows(self, keys: Sequence[str]) -> Mapping[str, JournalRow]:
        """Return the rows of these keys, by key."""
        slots = ", ".join("?" * len(keys))
        sql = f"SELECT {', '.join(COLUMNS)} FROM item WHERE key IN ({slots})"  # noqa: S608 -- slots
        rows = [parse_row(tuple(row)) for row in self._database.select(sql, keys)]
        return {row.key: row for row in rows}

    async def record_intent(self, row: JournalRow | Callable[[], JournalRow]) -> None:
        """Record that a file is about to be sent.

        Args:
            row: the row, or a function that creates it in the journal's thread, which saves a
                thread switch for small files. Its exceptions are raised here.

        Raises:
            NameTakenError: another key has the same document name.
            JournalBusyError: the journal's thread was busy for too long; the row was not created.
            JournalError: the journal cannot be written; the file must not be sent.
        """
        values = row_values(row) if isinstance(row, JournalRow) else lambda: row_values(row())
        try:
            await self._database.commit(_make_intent_sql, values)
        except sqlite3.IntegrityError as error:
            raise NameTakenError from error

    def record_accepted(
        self, key: str, document_id: str, batch: str | None, upload_file_id: str | None
    ) -> None:
        """Record that the server has accepted a document.

        If this write is lost, the next run searches for the document.
        """
        self._database.add(
            _make_accepted_sql, key, JournalState.ACCEPTED, document_id, batch, upload_file_id
        )

    def record_state(
        self, key: str, state: JournalState, *, reason: str | None = None, labels: str = ""
    ) -> None:
        """Record the state of a file."""
        self._database.add(_make_state_sql, key, state, reason, labels)

    def update_token(self, key: str, token: str) -> None:
        """Record the new token of a file whose content did not change."""
        self._database.add("UPDATE item SET token = ? WHERE key = ?", token, key)

    def update_labels(self, key: str, labels: str) -> None:
        """Record the labels of a file on whose document nothing has to be set."""
        self._database.add("UPDATE item SET labels = ? WHERE key = ?", labels, key)

    def forget(self, key: str) -> None:
        """Remove the row of a file that is gone, once its document is deleted."""
        self._database.add("DELETE FROM item WHERE key = ?", key)

    def move(self, key: str, new_key: str, name: str) -> None:
        """Change the key of a file that was renamed, and the name of its document."""
        self._database.add("UPDATE item SET key = ?, name = ? WHERE key = ?", new_key, name, key)

    def get_value(self, name: str) -> str | None:
        """Return a value that an earlier run stored. Blocking."""
        rows = self._database.select("SELECT value FROM meta WHERE name = ?", [name])
        return from_sqlite(rows[0]["value"]) if rows else None

    def set_value(self, name: str, value: str) -> None:
        """Store a value for later runs."""
        self._database.add("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    async def flush(self) -> None:
        """Wait until all writes are on disk.

        Raises:
            JournalError: the journal cannot be written.
        """
        await self._database.commit("UPDATE run SET ended = NULL WHERE id = ?", [self.run])
        self._database.check_commits()

    def finish_run(self, report: str) -> None:
        """Record the end of the run."""
        sql = "UPDATE run SET ended = ?, report = ? WHERE id = ?"
        self._database.add(sql, time.time(), report, self.run)

    def record_dataset_name(self, name: str) -> None:
        """Record the name of the dataset, by which `dify-kb journal` finds the journal."""
        self._database.add("INSERT OR REPLACE INTO meta VALUES ('dataset_name', ?)", name)

    async def begin_run(self, identity: Mapping[str, str]) -> None:
        """Begin a run. A new journal stores `identity`.

        Raises:
            ConfigError: the journal belongs to another server, dataset or source.
        """
        known, last = await anyio.to_thread.run_sync(self._read_head)
        for name, value in identity.items():
            if known.get(name, value) != value:
                raise ConfigError(
                    f"Journal {self.path} belongs to {name} {known[name]}, not {value}.",
                    hint="Pass another journal, or omit journal= (--journal). Nothing was sent.",
                )
        for name, value in identity.items():
            self._database.add("INSERT OR IGNORE INTO meta VALUES (?, ?)", name, value)
        run = last + 1
        self._database.add("INSERT INTO run (id, started) VALUES (?, ?)", run, time.time())
        self.results.begin(run)
        await self.flush()

    def _read_head(self) -> tuple[Mapping[str, str], int]:
        """Return the identity stored in the journal, and the number of its last run."""
        rows = self._database.select("SELECT name, value FROM meta")
        meta = {row["name"]: from_sqlite(row["value"]) for row in rows}
        sql = "SELECT coalesce(max(id), 0) FROM run"
        return meta, self._database.select_number(sql)

    def close(self) -> None:
        """Request a final commit and the closing of the file, without waiting."""
        self._database.close()
