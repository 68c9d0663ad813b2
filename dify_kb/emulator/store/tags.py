"""Tables of tags and the datasets that have them."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, join_columns
from .rows import TagRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAG_COLUMNS = join_columns(TagRow)


@frozen
class TagTable:
    """Tags and the datasets that have them."""

    database: Database

    def add(self, row: TagRow) -> bool:
        """Add a tag; return False if the name is in use."""
        try:
            self.database.insert("tags", [row])
        except sqlite3.IntegrityError:
            return False
        return True

    def get(self, tag_id: str) -> TagRow | None:
        """Return a tag, or None."""
        rows = self._select("WHERE id = ?", tag_id)
        return rows[0] if rows else None

    def list_all(self) -> list[TagRow]:
        """Return all tags, newest first."""
        return self._select("ORDER BY number DESC")

    def list_by_dataset(self, dataset_id: str) -> list[TagRow]:
        """Return the tags of a dataset, newest first."""
        return self._select(
            "JOIN tag_bindings ON tag_id = id WHERE dataset_id = ? ORDER BY number DESC", dataset_id
        )

    def dataset_ids_with(self, tag_ids: Sequence[str], *, all_tags: bool) -> list[str]:
        """Return the ids of the datasets that have any, or all, of these tags.

        Tags that do not exist are ignored, or match nothing if none exists (1466).
        """
        rows = self.database.fetch_all(
            "SELECT dataset_id FROM tag_bindings JOIN tags ON tags.id = tag_id"
            " WHERE tag_id IN (SELECT value FROM json_each(?1)) GROUP BY dataset_id"
            " HAVING NOT ?2 OR count(*) = (SELECT count(DISTINCT value) FROM json_each(?1)"
            " JOIN tags ON tags.id = value)",
            (json.dumps([*tag_ids]), all_tags),
        )
        return [dataset_id for (dataset_id,) in rows]

    def count_datasets(self, tag_id: str) -> int:
        """Count the datasets that have a tag."""
        sql = "SELECT count(*) FROM tag_bindings WHERE tag_id = ?"
        count: int = self.database.fetch_value(sql, (tag_id,))
        return count

    def rename(self, tag_id: str, name: str) -> bool:
        """Rename a tag; return False if any tag has the name, even this one (server source)."""
        if self.database.fetch_value("SELECT 1 FROM tags WHERE name = ?", (name,)):
            return False
        return self.database.update("tags", tag_id, {"name": name})

    def delete(self, tag_id: str) -> None:
        """Delete a tag, and remove it from all datasets."""
        self.database.execute("DELETE FROM tag_bindings WHERE tag_id = ?", (tag_id,))
        self.database.execute("DELETE FROM tags WHERE id = ?", (tag_id,))

    def bind(self, dataset_id: str, tag_id: str) -> None:
        """Add a tag to a dataset; the tag need not exist (recording 837)."""
        self.database.execute(
            "INSERT OR IGNORE INTO tag_bindings VALUES (?, ?)", (dataset_id, tag_id)
        )

    def unbind(self, dataset_id: str, tag_id: str) -> None:
        """Remove a tag from a dataset."""
        sql = "DELETE FROM tag_bindings WHERE dataset_id = ? AND tag_id = ?"
        self.database.execute(sql, (dataset_id, tag_id))

    def _select(self, clause: str, *values: object) -> list[TagRow]:
        sql = f"SELECT {_TAG_COLUMNS} FROM tags {clause}"  # noqa: S608 -- own names
        return [TagRow(*row) for row in self.database.fetch_all(sql, values)]
