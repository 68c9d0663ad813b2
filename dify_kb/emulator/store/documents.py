from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from .database import Database, columns
from .document_versions import AS_OF, keep_versions
from .rows import DocumentRow, DocumentState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COLUMNS = columns(DocumentRow)

_AVAILABLE: Final = "indexing_status = 'completed' AND enabled AND NOT archived"

DISPLAYED: Final[Mapping[str, str]] = {
    "queuing": "indexing_status = 'waiting'",
    "indexing": "indexing_status IN ('parsing', 'cleaning', 'splitting', 'indexing')",
    "paused": "0",
    "error": "indexing_status = 'error'",
    "available": _AVAILABLE,
    "enabled": _AVAILABLE,
    "active": _AVAILABLE,
    "disabled": "indexing_status = 'completed' AND NOT enabled AND NOT archived",
    "archived": "indexing_status = 'completed' AND archived",
}
"""The words of the list's `status` filter; any other lists everything (measured)."""


@frozen
class Documents:
    """Documents and the bytes of their files."""

    database: Database

    def add(self, row: DocumentRow, content: bytes) -> None:
        """Add one."""
        self.database.insert("documents", [row])
        self.set_content(row.id, content)

    def get(self, dataset_id: str, document_id: str) -> DocumentRow | None:
        """Find one in its dataset."""
        return self._one("dataset_id = ? AND id = ?", dataset_id, document_id)

    def find(self, document_id: str) -> DocumentRow | None:
        """Find one."""
        return self._one("id = ?", document_id)

    def named(self, dataset_id: str, name: str) -> DocumentRow | None:
        """Find the newest enabled one of exactly this name: what a create replaces."""
        order = "ORDER BY created_at DESC, position DESC LIMIT 1"
        return self._one(f"dataset_id = ? AND name = ? AND enabled {order}", dataset_id, name)

    def of_batch(self, dataset_id: str, batch: str) -> list[DocumentRow]:
        """Find those whose latest create had this batch id."""
        return self._all("batch = ? AND dataset_id = ?", batch, dataset_id)

    def next_position(self, dataset_id: str) -> int:
        """Tell the position of the next one."""
        sql = "SELECT max(position) FROM documents WHERE dataset_id = ?"
        return (self.database.value(sql, (dataset_id,)) or 0) + 1

    def page(
        self,
        dataset_id: str,
        keyword: str,
        status: str,
        offset: int,
        size: int,
        *,
        as_of: float | None = None,
    ) -> tuple[list[DocumentRow], int]:
        """Find those whose name is LIKE the keyword, the newest first; and count them.

        Args:
            as_of: show them as they were at this time; only after `keep_versions`.
        """
        table, times = ("documents", []) if as_of is None else (AS_OF, [as_of, as_of])
        where, values = "dataset_id = ?", [*times, dataset_id]
        if keyword:
            where += r" AND name LIKE ? ESCAPE '\'"
            values.append(f"%{keyword}%")
        if status.lower() in DISPLAYED:
            where += f" AND {DISPLAYED[status.lower()]}"
        order = "ORDER BY created_at DESC, position DESC LIMIT ? OFFSET ?"
        sql = f"SELECT {_COLUMNS} FROM {table} WHERE {where} {order}"  # noqa: S608 -- own names
        rows = self.database.rows(sql, [*values, size, offset])
        sql = f"SELECT count(*) FROM {table} WHERE {where}"  # noqa: S608 -- own names
        return [DocumentRow(*row) for row in rows], self.database.value(sql, values)

    def keep_versions(self, now: Callable[[], float]) -> None:
        """Keep each version of each from now on, for lists as they were."""
        keep_versions(self.database, now)

    def searched(self, dataset_id: str) -> list[DocumentRow]:
        """Find those that a search with conditions looks at (server source)."""
        return self._all(f"dataset_id = ? AND {_AVAILABLE}", dataset_id)

    def completed(self, dataset_id: str) -> list[str]:
        """Return the ids of those that are available, in the order of their creation."""
        rows = self.database.rows(
            f"SELECT id FROM documents WHERE dataset_id = ? AND {_AVAILABLE} ORDER BY number",  # noqa: S608 -- own names
            (dataset_id,),
        )
        return [document_id for (document_id,) in rows]

    def states(self, dataset_id: str) -> list[DocumentState]:
        """Tell how those of a dataset stand, in the order of their creation."""
        sql = (
            "SELECT d.id, d.dataset_id, d.name, d.indexing_status, d.error, d.enabled, d.archived,"
            " d.batch, d.file_id, d.file_size, count(s.id), total(s.status = 'completed')"
            " FROM documents d LEFT JOIN segments s ON s.document_id = d.id"
            " WHERE d.dataset_id = ? GROUP BY d.number ORDER BY d.number"
        )
        return [DocumentState(*row) for row in self.database.rows(sql, (dataset_id,))]

    def unfinished(self) -> list[str]:
        """Tell the ids of those that are not indexed yet, in the order of their creation."""
        rows = self.database.rows(
            "SELECT id FROM documents WHERE indexing_status NOT IN ('completed', 'error')"
            " ORDER BY batch, number"
        )
        return [document_id for (document_id,) in rows]

    def update(self, document_id: str, **changes: object) -> bool:
        """Change columns; tell whether there is such a document still."""
        return self.database.update("documents", document_id, changes)

    def of_file(self, file_id: str) -> DocumentRow | None:
        """Find the one that has a file."""
        return self._one("file_id = ?", file_id)

    def content(self, document_id: str) -> bytes | None:
        """Read the file of one."""
        sql = "SELECT content FROM contents WHERE document_id = ?"
        content: bytes | None = self.database.value(sql, (document_id,))
        return content

    def set_content(self, document_id: str, content: bytes) -> None:
        """Write the file of one."""
        self.database.run("REPLACE INTO contents VALUES (?, ?)", (document_id, content))

    def delete(self, document_id: str) -> None:
        """Delete one with its file."""
        self.database.run("DELETE FROM contents WHERE document_id = ?", (document_id,))
        self.database.run("DELETE FROM documents WHERE id = ?", (document_id,))

    def delete_of(self, dataset_id: str) -> None:
        """Delete all of a dataset."""
        self.database.run(
            "DELETE FROM contents WHERE document_id IN"
            " (SELECT id FROM documents WHERE dataset_id = ?)",
            (dataset_id,),
        )
        self.database.run("DELETE FROM documents WHERE dataset_id = ?", (dataset_id,))

    def _one(self, where: str, *values: object) -> DocumentRow | None:
        rows = self._all(where, *values)
        return rows[0] if rows else None

    def _all(self, where: str, *values: object) -> list[DocumentRow]:
        sql = f"SELECT {_COLUMNS} FROM documents WHERE {where}"  # noqa: S608 -- own names
        return [DocumentRow(*row) for row in self.database.rows(sql, values)]
