"""The tables of an open journal: files by state, documents of the dataset, results of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.models import IndexingStatus

from . import journal_database
from .journal_rows import COLUMNS, JournalRow, JournalState, from_sqlite, parse_row, row_values

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .journal_database import JournalDatabase


class FilesByState:
    """Queries on the files of a journal by state."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def count_documents(self) -> int:
        """Count the files with a document on the server."""
        return self._database.select_number(
            "SELECT count(*) FROM item WHERE document_id IS NOT NULL AND state != 'sending'"
        )

    def count_unanswered(self) -> int:
        """Count the files that were sent without a known response."""
        sql = "SELECT count(*) FROM item WHERE state = 'sending'"
        return self._database.select_number(sql)

    def count_states(self) -> Mapping[JournalState, int]:
        """Return the number of files in each state; states without files are omitted."""
        sql = "SELECT state, count(*) AS number FROM item GROUP BY state"
        return {JournalState(row["state"]): row["number"] for row in self._database.select(sql)}

    def list_unanswered_names(self) -> Sequence[str]:
        """Return the document names of files that were sent without a known response."""
        sql = "SELECT name FROM item WHERE state = 'sending'"
        return [from_sqlite(row["name"]) for row in self._database.select(sql)]

    def list_rows(self) -> Sequence[JournalRow]:
        """Return the rows of all files: about 1 kB each."""
        sql = f"SELECT {', '.join(COLUMNS)} FROM item"  # noqa: S608 -- own names
        return [parse_row(tuple(row)) for row in self._database.select(sql)]

    def replace_rows(self, rows: Sequence[JournalRow]) -> None:
        """Replace the rows of all files."""
        slots = ", ".join("?" * len(COLUMNS))
        insert = f"INSERT INTO item ({', '.join(COLUMNS)}) VALUES ({slots})"  # noqa: S608 -- slots
        with self._database.lock() as connection, connection:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM item")
            connection.executemany(insert, [row_values(row) for row in rows])

    def list_emptied_keys(self) -> Sequence[str]:
        """Return the keys of files whose document was emptied by a failed replacement."""
        sql = "SELECT key FROM item WHERE state = 'emptied' ORDER BY key"
        return [from_sqlite(row["key"]) for row in self._database.select(sql)]


_INSERT: Final = "INSERT OR REPLACE INTO remote VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class KnownDocuments:
    """The documents of the dataset that were listed in this run."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def add(self, documents: Iterable[tuple[str, RemoteDocument]]) -> None:
        """Add documents with their names, replacing those with the same id."""
        values = [_row_from_document(name, remote) for name, remote in documents]
        with self._database.lock() as connection, connection:
            connection.execute("BEGIN")
            connection.executemany(_INSERT, values)

    def clear(self) -> None:
        """Remove all documents, before the dataset is listed again."""
        with self._database.lock() as connection:
            connection.execute("DELETE FROM remote")

    def find_by_name(self, names: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the documents with these names, by name.

        Of several documents with one name, returns an enabled one, which a create would replace.
        """
        slots = ", ".join("?" * len(names))
        sql = f"SELECT * FROM remote WHERE name IN ({slots}) ORDER BY enabled, place DESC"  # noqa: S608 -- slots
        return {row["name"]: _document_from_row(row) for row in self._database.select(sql, names)}

    def find_by_id(self, document_ids: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the documents with these ids, by id."""
        slots = ", ".join("?" * len(document_ids))
        sql = f"SELECT * FROM remote WHERE document_id IN ({slots})"  # noqa: S608 -- slots
        rows = self._database.select(sql, document_ids)
        return {row["document_id"]: _document_from_row(row) for row in rows}

    def count_duplicates(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the number of documents by name, for names that several documents have."""
        slots = ", ".join("?" * len(names))
        sql = (
            f"SELECT name, count(*) AS number FROM remote WHERE name IN ({slots})"  # noqa: S608 -- slots
            " GROUP BY name HAVING number > 1"
        )
        return {row["name"]: row["number"] for row in self._database.select(sql, names)}


def _row_from_document(name: str, remote: RemoteDocument) -> tuple[object, ...]:
    return (
        name,
        remote.document_id,
        remote.enabled,
        remote.archived,
        str(remote.status),
        remote.upload_file_id,
        remote.size,
        remote.place,
    )


def _document_from_row(row: sqlite3.Row) -> RemoteDocument:
    return RemoteDocument(
        document_id=row["document_id"],
        enabled=bool(row["enabled"]),
        archived=bool(row["archived"]),
        status=IndexingStatus(row["status"]),
        upload_file_id=row["upload_file_id"],
        size=row["size"],
        place=row["place"],
    )


_MAX_RUNS_WITH_FAILURES: Final = 5
"""Number of latest runs whose failures are kept."""

_SELECT: Final = (
    "SELECT number, result FROM result WHERE run = ? AND held = ? AND number > ?"
    " ORDER BY number LIMIT 200"
)


class StoredResults:
    """The stored results of a run: failed files, and files to be verified."""

    def __init__(self, database: JournalDatabase) -> None:
        self.run = 0
        """The number of the run; 0 before `begin`."""
        self._database = database

    def begin(self, run: int) -> None:
        """Start a run, and delete the results of old runs."""
        self.run = run
        self._database.add(
            "DELETE FROM result WHERE held OR run <= ?", run - _MAX_RUNS_WITH_FAILURES
        )

    def store(self, result: ItemResult, *, held: bool = False) -> None:
        """Store the result of a failed file or, with `held`, of a file to be verified."""
        sql = "INSERT INTO result (run, held, result) VALUES (?, ?, ?)"
        self._database.add(sql, self.run, held, json.dumps(attrs.asdict(result)))

    def iter_held(self) -> Iterator[Sequence[ItemResult]]:
        """Yield the results to be verified, in batches."""
        return _select_results(self._database.select, self.run, held=True)

    def iter_failures(self) -> Iterator[ItemResult]:
        """Yield the results of the failed files."""
        for results in _select_results(self._database.select, self.run):
            yield from results


def iter_failed_results(path: Path, run: int) -> Iterator[ItemResult]:
    """Yield the results of the failed files of a run, from its journal.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    with journal_database.open_readonly(path) as connection:
        for results in _select_results(connection.execute, run):
            yield from results


def _select_results(
    select: Callable[[str, Sequence[Any]], Iterable[sqlite3.Row]], run: int, *, held: bool = False
) -> Iterator[Sequence[ItemResult]]:
    after = 0
    while rows := list(select(_SELECT, (run, held, after))):
        values = [json.loads(row["result"]) for row in rows]
        yield [ItemResult(**{**one, "outcome": Outcome(one["outcome"])}) for one in values]
        after = rows[-1]["number"]
