"""Tables of metadata fields and the documents that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, join_columns
from .rows import MetadataRow

if TYPE_CHECKING:
    from collections.abc import Iterable

_METADATA_COLUMNS = ", ".join(f"metadata.{name}" for name in join_columns(MetadataRow).split(", "))


@frozen
class MetadataTable:
    """Metadata fields of datasets, and the documents that have them.

    The values are stored with the documents.
    """

    database: Database

    def add(self, row: MetadataRow) -> None:
        """Add a field."""
        self.database.insert("metadata", [row])

    def get(self, dataset_id: str, metadata_id: str) -> MetadataRow | None:
        """Return a field, or None."""
        rows = self._select("WHERE dataset_id = ? AND id = ?", dataset_id, metadata_id)
        return rows[0] if rows else None

    def list_by_dataset(self, dataset_id: str) -> list[MetadataRow]:
        """Return the fields of a dataset."""
        return self._select("WHERE dataset_id = ? ORDER BY number", dataset_id)

    def list_by_document(self, dataset_id: str, document_id: str) -> list[MetadataRow]:
        """Return the fields of a document, in the order of their assignment."""
        return self._select(
            "JOIN metadata_bindings ON metadata_id = metadata.id"
            " WHERE dataset_id = ? AND document_id = ? ORDER BY metadata_bindings.number",
            dataset_id,
            document_id,
        )

    def count_documents(self, dataset_id: str) -> dict[str, int]:
        """Return the number of documents with each field, by field id."""
        return dict(
            self.database.fetch_all(
                "SELECT metadata_id, count(*) FROM metadata_bindings"
                " JOIN metadata ON metadata_id = metadata.id WHERE dataset_id = ?"
                " GROUP BY metadata_id",
                (dataset_id,),
            )
        )

    def document_ids_with(self, metadata_id: str) -> list[str]:
        """Return the ids of the documents that have a field."""
        sql = "SELECT document_id FROM metadata_bindings WHERE metadata_id = ?"
        return [document_id for (document_id,) in self.database.fetch_all(sql, (metadata_id,))]

    def bind(self, document_id: str, metadata_ids: Iterable[str]) -> None:
        """Assign fields to a document.

        The fields need not exist (697), and one assigned twice is listed twice (1633).
        """
        for metadata_id in metadata_ids:
            self.database.execute(
                "INSERT INTO metadata_bindings (document_id, metadata_id) VALUES (?, ?)",
                (document_id, metadata_id),
            )

    def list_ids(self, document_id: str) -> list[str]:
        """Return the ids of the fields assigned to a document."""
        sql = "SELECT metadata_id FROM metadata_bindings WHERE document_id = ?"
        return [metadata_id for (metadata_id,) in self.database.fetch_all(sql, (document_id,))]

    def unbind(self, document_id: str) -> None:
        """Remove all fields from a document."""
        sql = "DELETE FROM metadata_bindings WHERE document_id = ?"
        self.database.execute(sql, (document_id,))

    def rename(self, metadata_id: str, name: str) -> None:
        """Rename a field."""
        self.database.update("metadata", metadata_id, {"name": name})

    def delete(self, metadata_id: str) -> None:
        """Delete a field."""
        sql = "DELETE FROM metadata_bindings WHERE metadata_id = ?"
        self.database.execute(sql, (metadata_id,))
        self.database.execute("DELETE FROM metadata WHERE id = ?", (metadata_id,))

    def _select(self, clause: str, *values: object) -> list[MetadataRow]:
        sql = f"SELECT {_METADATA_COLUMNS} FROM metadata {clause}"  # noqa: S608 -- own names
        return [MetadataRow(*row) for row in self.database.fetch_all(sql, values)]
