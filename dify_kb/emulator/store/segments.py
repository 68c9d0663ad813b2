from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, columns
from .rows import SegmentRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = columns(SegmentRow)


@frozen
class Segments:
    """Chunks of documents."""

    database: Database

    def add(self, rows: Sequence[SegmentRow]) -> None:
        """Add some."""
        self.database.insert("segments", rows)

    def find(self, segment_ids: Sequence[str]) -> dict[str, SegmentRow]:
        """Find some by their ids."""
        rows = self.database.rows(
            f"SELECT {_COLUMNS} FROM segments"  # noqa: S608 -- own names
            " WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*segment_ids]),),
        )
        return {row[0]: SegmentRow(*row) for row in rows}

    def counts(self, document_id: str) -> tuple[int, int]:
        """Count the completed ones of a document, and all."""
        ((completed, total),) = self.database.rows(
            "SELECT total(status = 'completed'), count(*) FROM segments WHERE document_id = ?",
            (document_id,),
        )
        return int(completed), total

    def next_position(self, document_id: str) -> int:
        """Tell the position of the next one."""
        sql = "SELECT max(position) FROM segments WHERE document_id = ?"
        return (self.database.value(sql, (document_id,)) or 0) + 1

    def complete(self, keywords: Sequence[tuple[str, str]], now: float) -> None:
        """Note that these (id, keywords as JSON) are indexed."""
        with self.database.transaction():
            self.database.connection.executemany(
                "UPDATE segments SET keywords = ?, status = 'completed', completed_at = ?"
                " WHERE id = ?",
                [(words, now, segment_id) for segment_id, words in keywords],
            )

    def delete_of(self, document_id: str) -> None:
        """Delete those of a document."""
        self.database.run("DELETE FROM segments WHERE document_id = ?", (document_id,))

    def delete_of_dataset(self, dataset_id: str) -> None:
        """Delete those of a dataset."""
        self.database.run("DELETE FROM segments WHERE dataset_id = ?", (dataset_id,))
