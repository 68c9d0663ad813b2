"""Tables of documents, their files and former versions, and of pipeline files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from .database import Database, join_columns
from .rows import DocumentRow, DocumentState, PipelineFileRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DOCUMENT_COLUMNS = join_columns(DocumentRow)

_PIPELINE_FILE_COLUMNS = join_columns(PipelineFileRow)

_IS_AVAILABLE: Final = "indexing_status = 'completed' AND enabled AND NOT archived"

DISPLAY_STATUS_FILTERS: Final[Mapping[str, str]] = {
    "queuing": "indexing_status = 'waiting'",
    "indexing": "indexing_status IN ('parsing', 'cleaning', 'splitting', 'indexing')",
    "paused": "0",
    "error": "indexing_status = 'error'",
    "available": _IS_AVAILABLE,
    "enabled": _IS_AVAILABLE,
    "active": _IS_AVAILABLE,
    "disabled": "indexing_status = 'completed' AND NOT enabled AND NOT archived",
    "archived": "indexing_status = 'completed' AND archived",
}
"""SQL conditions by the list's `status` filter; other values list everything (measured)."""

DOCUMENTS_AS_OF: Final = "(SELECT * FROM document_versions WHERE since <= ? AND before > ?)"
"""The documents as of a past time, as a table; takes that time as two parameters."""

_ADD_VERSION: Final = (
    "INSERT INTO document_versions SELECT version_time(), 9e999, * FROM documents"
    " WHERE id = NEW.id;"
)

_END_VERSION: Final = (
    "UPDATE document_versions SET before = version_time() WHERE id = OLD.id AND before = 9e999;"
)

# Temporary, so that the format of a database file does not change.
_VERSION_STATEMENTS: Final = (
    (
        "CREATE TEMP TABLE document_versions AS"
        " SELECT -9e999 AS since, 9e999 AS before, * FROM documents"
    ),
    "CREATE INDEX temp.versions_of_documents ON document_versions (id, before)",
    f"CREATE TEMP TRIGGER added AFTER INSERT ON documents BEGIN {_ADD_VERSION} END",
    (
        "CREATE TEMP TRIGGER changed AFTER UPDATE ON documents"
        f" BEGIN {_END_VERSION} {_ADD_VERSION} END"
    ),
    f"CREATE TEMP TRIGGER deleted AFTER DELETE ON documents BEGIN {_END_VERSION} END",
)


@frozen
class DocumentTable:
    """Documents and the contents of their files."""

    database: Database

    def add(self, row: DocumentRow, content: bytes) -> None:
        """Add a document and the content of its file."""
        self.database.insert("documents", [row])
        self.set_content(row.id, content)

    def get(self, dataset_id: str, document_id: str) -> DocumentRow | None:
        """Return a document of a dataset, or None."""
        return self._select_one("dataset_id = ? AND id = ?", dataset_id, document_id)

    def get_by_id(self, document_id: str) -> DocumentRow | None:
        """Return a document of any dataset, or None."""
        return self._select_one("id = ?", document_id)

    def get_by_name(
        self, dataset_id: str, name: str, *, oldest: bool = False
    ) -> DocumentRow | None:
        """Return the newest or oldest enabled document of exactly this name, or None."""
        order = "created_at, position" if oldest else "created_at DESC, position DESC"
        return self._select_one(
            f"dataset_id = ? AND name = ? AND enabled ORDER BY {order} LIMIT 1", dataset_id, name
        )

    def list_by_batch(self, dataset_id: str, batch: str) -> list[DocumentRow]:
        """Return the documents whose latest create has this batch id."""
        return self._select("batch = ? AND dataset_id = ?", batch, dataset_id)

    def next_position(self, dataset_id: str) -> int:
        """Return the position for the next document."""
        sql = "SELECT max(position) FROM documents WHERE dataset_id = ?"
        return (self.database.fetch_value(sql, (dataset_id,)) or 0) + 1

    def list_page(
        self,
        dataset_id: str,
        keyword: str,
        status: str,
        offset: int,
        size: int,
        *,
        as_of: float | None = None,
    ) -> tuple[list[DocumentRow], int]:
        """Return a page of documents, newest first, and the total number.

        Args:
            keyword: matches a part of the name, like SQL's LIKE.
            as_of: list the documents as of this time; requires `keep_versions`.
        """
        table, times = ("documents", []) if as_of is None else (DOCUMENTS_AS_OF, [as_of, as_of])
        where, values = "dataset_id = ?", [*times, dataset_id]
        if keyword:
            where += r" AND name LIKE ? ESCAPE '\'"
            values.append(f"%{keyword}%")
        if status.lower() in DISPLAY_STATUS_FILTERS:
            where += f" AND {DISPLAY_STATUS_FILTERS[status.lower()]}"
        order = "ORDER BY created_at DESC, position DESC LIMIT ? OFFSET ?"
        sql = f"SELECT {_DOCUMENT_COLUMNS} FROM {table} WHERE {where} {order}"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, [*values, size, offset])
        sql = f"SELECT count(*) FROM {table} WHERE {where}"  # noqa: S608 -- own names
        return [DocumentRow(*row) for row in rows], self.database.fetch_value(sql, values)

    def keep_versions(self, now: Callable[[], float]) -> None:
        """Record every version of a document from now on, for lists as of an earlier time."""
        _keep_versions(self.database, now)

    def list_available(self, dataset_id: str) -> list[DocumentRow]:
        """Return the documents that a search with conditions considers (server source)."""
        return self._select(f"dataset_id = ? AND {_IS_AVAILABLE}", dataset_id)

    def list_available_ids(self, dataset_id: str) -> list[str]:
        """Return the ids of the available documents, in order of creation."""
        rows = self.database.fetch_all(
            f"SELECT id FROM documents WHERE dataset_id = ? AND {_IS_AVAILABLE} ORDER BY number",  # noqa: S608 -- own names
            (dataset_id,),
        )
        return [document_id for (document_id,) in rows]

    def list_states(self, dataset_id: str) -> list[DocumentState]:
        """Return the states of a dataset's documents, in order of creation."""
        sql = (
            "SELECT d.id, d.dataset_id, d.name, d.indexing_status, d.error, d.enabled, d.archived,"
            " d.batch, d.file_id, d.file_size, count(s.id), total(s.status = 'completed')"
            " FROM documents d LEFT JOIN segments s ON s.document_id = d.id"
            " WHERE d.dataset_id = ? GROUP BY d.number ORDER BY d.number"
        )
        return [DocumentState(*row) for row in self.database.fetch_all(sql, (dataset_id,))]

    def list_unfinished_ids(self) -> list[str]:
        """Return the ids of documents still to be indexed, by batch and order of creation."""
        rows = self.database.fetch_all(
            "SELECT id FROM documents WHERE indexing_status NOT IN ('completed', 'error')"
            " ORDER BY batch, number"
        )
        return [document_id for (document_id,) in rows]

    def update(self, document_id: str, **changes: object) -> bool:
        """Update columns of a document; return whether it exists."""
        return self.database.update("documents", document_id, changes)

    def get_by_file(self, file_id: str) -> DocumentRow | None:
        """Return the document that a file belongs to, or None."""
        return self._select_one("file_id = ?", file_id)

    def get_content(self, document_id: str) -> bytes | None:
        """Return the content of a document's file, or None."""
        sql = "SELECT content FROM contents WHERE document_id = ?"
        content: bytes | None = self.database.fetch_value(sql, (document_id,))
        return content

    def set_content(self, document_id: str, content: bytes) -> None:
        """Store the content of a document's file."""
        self.database.execute("REPLACE INTO contents VALUES (?, ?)", (document_id, content))

    def delete(self, document_id: str) -> None:
        """Delete a document with its file."""
        self.database.execute("DELETE FROM contents WHERE document_id = ?", (document_id,))
        self.database.execute("DELETE FROM documents WHERE id = ?", (document_id,))

    def delete_by_dataset(self, dataset_id: str) -> None:
        """Delete all documents of a dataset."""
        self.database.execute(
            "DELETE FROM contents WHERE document_id IN"
            " (SELECT id FROM documents WHERE dataset_id = ?)",
            (dataset_id,),
        )
        self.database.execute("DELETE FROM documents WHERE dataset_id = ?", (dataset_id,))

    def _select_one(self, where: str, *values: object) -> DocumentRow | None:
        rows = self._select(where, *values)
        return rows[0] if rows else None

    def _select(self, where: str, *values: object) -> list[DocumentRow]:
        sql = f"SELECT {_DOCUMENT_COLUMNS} FROM documents WHERE {where}"  # noqa: S608 -- own names
        return [DocumentRow(*row) for row in self.database.fetch_all(sql, values)]


@frozen
class PipelineFileTable:
    """Files uploaded for pipeline runs."""

    database: Database

    def add(self, row: PipelineFileRow) -> None:
        """Add a file."""
        self.database.insert("pipeline_files", [row])

    def get(self, file_id: str) -> PipelineFileRow | None:
        """Return a file, or None."""
        sql = f"SELECT {_PIPELINE_FILE_COLUMNS} FROM pipeline_files WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, (file_id,))
        return PipelineFileRow(*rows[0]) if rows else None


def _keep_versions(database: Database, now: Callable[[], float]) -> None:
    """Record every version of a document from now on; repeated calls do nothing."""
    with database.transaction():
        if database.fetch_value(
            "SELECT 1 FROM sqlite_temp_master WHERE name = 'document_versions'"
        ):
            return
        database.connection.create_function("version_time", 0, now)
        for statement in _VERSION_STATEMENTS:
            database.execute(statement)
