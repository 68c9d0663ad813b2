"""Read and write the rows of a journal: files, runs, results, and documents of the dataset."""

from __future__ import annotations

import functools
import json
import operator
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import attrs

from dify_kb.errors import ConfigError
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import IndexingStatus

from . import schema
from .rows import COLUMNS, Row, State, from_sqlite, parse_row, to_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .writer import Statement, Values, Writer

_RUNS: Final = 5
"""Latest runs whose failures are kept."""

_COUNT_DOCUMENTS: Final = (
    "SELECT count(*) FROM item WHERE document_id IS NOT NULL AND state != 'sending'"
)


def _placeholders(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@functools.cache
def _intend_sql(rows: int) -> str:
    return f"""
        INSERT INTO item ({", ".join(COLUMNS)}) VALUES {_placeholders(len(COLUMNS), rows)}
        ON CONFLICT (key) DO UPDATE SET name = excluded.name, size = excluded.size,
            mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
            content = excluded.content, rule = excluded.rule,
            labels = excluded.labels, state = excluded.state, attempts = excluded.attempts,
            sent_at = excluded.sent_at, previous = excluded.previous, reason = NULL
    """  # noqa: S608 -- own names


def _update(*columns: str) -> Callable[[int], str]:
    """Return the SQL that updates these columns of a number of rows, by key."""
    names = ", ".join(columns)

    @functools.cache
    def sql(rows: int) -> str:
        return f"""
            WITH given (key, {names}) AS (VALUES {_placeholders(1 + len(columns), rows)})
            UPDATE item SET ({names}) = (SELECT {names} FROM given WHERE given.key = item.key)
            WHERE key IN (SELECT key FROM given)
        """  # noqa: S608 -- own names

    return sql


_accepted_sql = _update("state", "document_id", "batch", "upload_file_id")
_state_sql = _update("state", "reason", "labels")

_REMOTE: Final = "INSERT OR REPLACE INTO remote VALUES (?, ?, ?, ?, ?, ?, ?)"
_RESULTS: Final = (
    "SELECT number, result FROM result WHERE run = ? AND held = ? AND number > ?"
    " ORDER BY number LIMIT 200"
)


class NameTakenError(Exception):
    """Another file of the journal has the same document name."""


class Journal:
    """An open journal. Coroutines return once their write is on disk, other writes follow in 50 ms.

    Methods that read block the thread for a commit at most.
    """

    def __init__(self, writer: Writer, path: Path | None) -> None:
        self.path = path
        self.run = 0
        self._writer = writer
        self._connection = writer.connection

    def rows(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Return the rows of these keys."""
        slots = ", ".join("?" * len(keys))
        sql = f"SELECT {', '.join(COLUMNS)} FROM item WHERE key IN ({slots})"  # noqa: S608 -- slots
        rows = [parse_row(tuple(row)) for row in self._select(sql, keys)]
        return {row.key: row for row in rows}

    def count_documents(self) -> int:
        """Count the files whose document the server has."""
        return int(self._value(_COUNT_DOCUMENTS))

    def count_unanswered(self) -> int:
        """Count the files that were sent without a known answer."""
        return int(self._value("SELECT count(*) FROM item WHERE state = 'sending'"))

    def count_states(self) -> Mapping[State, int]:
        """Return the number of files in each state that occurs."""
        rows = self._select("SELECT state, count(*) AS number FROM item GROUP BY state", ())
        return {State(row["state"]): row["number"] for row in rows}

    def emptied_keys(self) -> Sequence[str]:
        """Return the keys of files whose document was emptied by a failed replacement."""
        sql = "SELECT key FROM item WHERE state = 'emptied' ORDER BY key"
        return [from_sqlite(row["key"]) for row in self._select(sql, ())]

    def unanswered_names(self) -> Sequence[str]:
        """Return the document names of files that were sent without a known answer."""
        sql = "SELECT name FROM item WHERE state = 'sending'"
        return [from_sqlite(row["name"]) for row in self._select(sql, ())]

    def note_remote(self, documents: Iterable[tuple[str, RemoteDocument]]) -> None:
        """Store the documents of the dataset, by name, for this run."""
        values = [_remote_values(name, remote) for name, remote in documents]
        with schema.translate_errors(self.path), self._writer.connection_lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(_REMOTE, values)

    def forget_remote(self) -> None:
        """Delete the stored documents of the dataset, to list them again."""
        with schema.translate_errors(self.path), self._writer.connection_lock:
            self._connection.execute("DELETE FROM remote")

    def remote_by_id(self, document_ids: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the stored documents with these ids."""
        slots = ", ".join("?" * len(document_ids))
        sql = f"SELECT * FROM remote WHERE document_id IN ({slots})"  # noqa: S608 -- slots
        return {row["document_id"]: _parse_remote(row) for row in self._select(sql, document_ids)}

    def twins(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the number of documents of each of these names that has several."""
        slots = ", ".join("?" * len(names))
        sql = (
            f"SELECT name, count(*) AS number FROM remote WHERE name IN ({slots})"  # noqa: S608 -- slots
            " GROUP BY name HAVING number > 1"
        )
        return {row["name"]: row["number"] for row in self._select(sql, names)}

    def remote(self, names: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the stored documents with these names; of several, an enabled one, since a create
        replaces that.
        """
        slots = ", ".join("?" * len(names))
        sql = f"SELECT * FROM remote WHERE name IN ({slots}) ORDER BY enabled, place DESC"  # noqa: S608 -- slots
        return {row["name"]: _parse_remote(row) for row in self._select(sql, names)}

    async def intend(self, row: Row | Callable[[], Row]) -> None:
        """Record that a file is about to be sent.

        Args:
            row: the row, or a function that creates it in the journal's thread, which saves a
                thread switch for small files. What it raises is raised here.

        Raises:
            NameTakenError: another key has its name.
            LateError: the journal's thread was busy for too long; the row was not created.
            JournalError: it could not be written, so nothing may be sent.
        """
        if isinstance(row, Row):
            await self._commit(_intend_sql, _row_values(row))
        else:
            await self._commit(_intend_sql, lambda: _row_values(row()))

    def record_accepted(
        self, key: str, document_id: str, batch: str | None, upload_file_id: str | None
    ) -> None:
        """Record that the server has a document. If that is lost, the next run searches for it."""
        self._add(_accepted_sql, key, State.ACCEPTED, document_id, batch, upload_file_id)

    def record_state(
        self, key: str, state: State, *, reason: str | None = None, labels: str = ""
    ) -> None:
        """Record the state of a file."""
        self._add(_state_sql, key, state, reason, labels)

    def update_stamp(
        self, key: str, mtime_ns: int | None, ctime_ns: int | None = None, inode: int | None = None
    ) -> None:
        """Record new times and inode of a file whose content did not change."""
        sql = "UPDATE item SET mtime_ns = ?, ctime_ns = ?, inode = ? WHERE key = ?"
        self._add(sql, mtime_ns, ctime_ns, inode, key)

    def keep(self, result: ItemResult, *, held: bool = False) -> None:
        """Store the result of a failed file, or, with `held`, a good one that is to be verified."""
        sql = "INSERT INTO result (run, held, result) VALUES (?, ?, ?)"
        self._add(sql, self.run, held, json.dumps(attrs.asdict(result)))

    def held(self) -> Iterator[Sequence[ItemResult]]:
        """Yield the results that are to be verified, in batches."""
        return _select_results(self._select, self.run, held=True)

    async def flush(self) -> None:
        """Wait until all writes are on disk.

        Raises:
            JournalError: it could not be written.
        """
        await self._commit("UPDATE run SET ended = NULL WHERE id = ?", [self.run])
        if self._writer.error is not None:
            raise schema.journal_error(self.path, self._writer.error) from self._writer.error

    def finish(self, report: str) -> None:
        """Record the end of the run."""
        sql = "UPDATE run SET ended = ?, report = ? WHERE id = ?"
        self._add(sql, time.time(), report, self.run)

    def failures(self) -> Iterator[ItemResult]:
        """Yield the results of the files of this run that failed."""
        for results in _select_results(self._select, self.run, held=False):
            yield from results

    async def begin(self, identity: Mapping[str, str]) -> None:
        """Begin a run. A new journal belongs to this load from now on.

        Raises:
            ConfigError: the journal belongs to another server, dataset or source.
        """
        known, last = await anyio.to_thread.run_sync(self._head)
        for name, value in identity.items():
            if known.get(name, value) != value:
                raise ConfigError(
                    f"Journal {self.path} belongs to {name} {known[name]}, not {value}.",
                    hint="Name another journal, or omit journal= (--journal); nothing was sent.",
                )
        for name, value in identity.items():
            self._add("INSERT OR IGNORE INTO meta VALUES (?, ?)", name, value)
        self.run = last + 1
        self._add("INSERT INTO run (id, started) VALUES (?, ?)", self.run, time.time())
        self._add("DELETE FROM result WHERE held OR run <= ?", self.run - _RUNS)
        await self.flush()

    def _head(self) -> tuple[Mapping[str, str], int]:
        meta = {
            row["name"]: from_sqlite(row["value"]) for row in self._select("SELECT * FROM meta", ())
        }
        return meta, int(self._value("SELECT coalesce(max(id), 0) FROM run"))

    def close(self) -> None:
        """Begin to commit the rest and close the file; returns at once."""
        self._writer.close()

    async def _commit(self, sql: Statement, values: Values | Callable[[], Values]) -> None:
        batch, position = self._writer.add(sql, values, soon=True)
        await batch.done.wait()
        if batch.error is not None:
            raise schema.journal_error(self.path, batch.error) from batch.error
        match batch.refused.get(position):
            case None:
                pass
            case sqlite3.IntegrityError() as error:
                raise NameTakenError from error
            case error:
                raise error

    def _add(self, sql: Statement, *values: Any) -> None:
        self._writer.add(sql, [to_sqlite(value) for value in values], soon=False)

    def _select(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with schema.translate_errors(self.path), self._writer.connection_lock:
            return self._connection.execute(sql, [to_sqlite(value) for value in values]).fetchall()

    def _value(self, sql: str) -> Any:
        return self._select(sql, ())[0][0]


_columns = operator.attrgetter(*COLUMNS)


def _row_values(row: Row) -> Values:
    return [to_sqlite(value) for value in _columns(row)]


def failures(path: Path, run: int) -> Iterator[ItemResult]:
    """Yield the results of the files of a run that failed, from its journal.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    with schema.open_readonly(path) as connection:
        for results in _select_results(connection.execute, run):
            yield from results


def _select_results(
    select: Callable[[str, Sequence[Any]], Iterable[sqlite3.Row]], run: int, *, held: bool = False
) -> Iterator[Sequence[ItemResult]]:
    after = 0
    while rows := list(select(_RESULTS, (run, held, after))):
        values = [json.loads(row["result"]) for row in rows]
        yield [ItemResult(**{**one, "outcome": Outcome(one["outcome"])}) for one in values]
        after = rows[-1]["number"]


def _remote_values(name: str, remote: RemoteDocument) -> tuple[object, ...]:
    file = (remote.upload_file_id, remote.size)
    return (name, remote.document_id, remote.enabled, str(remote.status), *file, remote.place)


def _parse_remote(row: sqlite3.Row) -> RemoteDocument:
    return RemoteDocument(
        document_id=row["document_id"],
        enabled=bool(row["enabled"]),
        status=IndexingStatus(row["status"]),
        upload_file_id=row["upload_file_id"],
        size=row["size"],
        place=row["place"],
    )
