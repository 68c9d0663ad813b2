from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, columns
from .rows import MetadataRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = ", ".join(f"metadata.{name}" for name in columns(MetadataRow).split(", "))


@frozen
class Metadata:
    """The metadata fields of datasets, and which documents have them; the values stand in the
    documents.
    """

    database: Database

    def add(self, row: MetadataRow) -> None:
        """Add a field."""
        self.database.insert("metadata", [row])

    def get(self, dataset_id: str, metadata_id: str) -> MetadataRow | None:
        """Find a field."""
        rows = self._all("WHERE dataset_id = ? AND id = ?", dataset_id, metadata_id)
        return rows[0] if rows else None

    def of(self, dataset_id: str) -> list[MetadataRow]:
        """Find the fields of a dataset."""
        return self._all("WHERE dataset_id = ? ORDER BY number", dataset_id)

    def of_document(self, dataset_id: str, document_id: str) -> list[MetadataRow]:
        """Find the fields that a document has, in the order in which it got them."""
        return self._all(
            "JOIN metadata_bindings ON metadata_id = metadata.id"
            " WHERE dataset_id = ? AND document_id = ? ORDER BY metadata_bindings.number",
            dataset_id,
            document_id,
        )

    def counts(self, dataset_id: str) -> dict[str, int]:
        """Count the documents that have a field, by its id."""
        return dict(
            self.database.rows(
                "SELECT metadata_id, count(*) FROM metadata_bindings"
                " JOIN metadata ON metadata_id = metadata.id WHERE dataset_id = ?"
                " GROUP BY metadata_id",
                (dataset_id,),
            )
        )

    def holders(self, metadata_id: str) -> list[str]:
        """Tell the ids of the documents that have a field."""
        sql = "SELECT document_id FROM metadata_bindings WHERE metadata_id = ?"
        return [document_id for (document_id,) in self.database.rows(sql, (metadata_id,))]

    def bind(self, document_id: str, metadata_ids: Sequence[str]) -> None:
        """Give a document fields, one of which may not exist (recording 697)."""
        for metadata_id in metadata_ids:
            self.database.run(
                "INSERT OR IGNORE INTO metadata_bindings (document_id, metadata_id) VALUES (?, ?)",
                (document_id, metadata_id),
            )

    def unbind(self, document_id: str) -> None:
        """Take all fields from a document."""
        sql = "DELETE FROM metadata_bindings WHERE document_id = ?"
        self.database.run(sql, (document_id,))

    def rename(self, metadata_id: str, name: str) -> None:
        """Give a field another name."""
        self.database.update("metadata", metadata_id, {"name": name})

    def delete(self, metadata_id: str) -> None:
        """Delete a field."""
        sql = "DELETE FROM metadata_bindings WHERE metadata_id = ?"
        self.database.run(sql, (metadata_id,))
        self.database.run("DELETE FROM metadata WHERE id = ?", (metadata_id,))

    def _all(self, rest: str, *values: object) -> list[MetadataRow]:
        sql = f"SELECT {_COLUMNS} FROM metadata {rest}"  # noqa: S608 -- own names
        return [MetadataRow(*row) for row in self.database.rows(sql, values)]
