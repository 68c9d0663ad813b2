"""The documents of a dataset, listed in this run, in a temporary table of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.models import IndexingStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from .database import JournalDatabase

_INSERT: Final = "INSERT OR REPLACE INTO remote VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class KnownDocuments:
    """The documents of the dataset, as listed in this run."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def add(self, documents: Iterable[tuple[str, RemoteDocument]]) -> None:
        """Add documents with their names, replacing those with the same id."""
        values = [_remote_values(name, remote) for name, remote in documents]
        with self._database.lock() as connection, connection:
            connection.execute("BEGIN")
            connection.executemany(_INSERT, values)

    def clear(self) -> None:
        """Remove all documents, before the dataset is listed again."""
        with self._database.lock() as connection:
            connection.execute("DELETE FROM remote")

    def by_name(self, names: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the documents with these names, by name.

        Of several with one name, an enabled one: the one that a create replaces.
        """
        slots = ", ".join("?" * len(names))
        sql = f"SELECT * FROM remote WHERE name IN ({slots}) ORDER BY enabled, place DESC"  # noqa: S608 -- slots
        return {row["name"]: _parse_remote(row) for row in self._database.select(sql, names)}

    def by_id(self, document_ids: Sequence[str]) -> Mapping[str, RemoteDocument]:
        """Return the documents with these ids, by id."""
        slots = ", ".join("?" * len(document_ids))
        sql = f"SELECT * FROM remote WHERE document_id IN ({slots})"  # noqa: S608 -- slots
        rows = self._database.select(sql, document_ids)
        return {row["document_id"]: _parse_remote(row) for row in rows}

    def twins(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the number of documents of each of these names that more than one has."""
        slots = ", ".join("?" * len(names))
        sql = (
            f"SELECT name, count(*) AS number FROM remote WHERE name IN ({slots})"  # noqa: S608 -- slots
            " GROUP BY name HAVING number > 1"
        )
        return {row["name"]: row["number"] for row in self._database.select(sql, names)}


def _remote_values(name: str, remote: RemoteDocument) -> tuple[object, ...]:
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


def _parse_remote(row: sqlite3.Row) -> RemoteDocument:
    return RemoteDocument(
        document_id=row["document_id"],
        enabled=bool(row["enabled"]),
        archived=bool(row["archived"]),
        status=IndexingStatus(row["status"]),
        upload_file_id=row["upload_file_id"],
        size=row["size"],
        place=row["place"],
    )
