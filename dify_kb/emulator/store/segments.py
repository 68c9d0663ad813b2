"""Tables of segments and their child chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, join_columns
from .rows import ChildChunkRow, SegmentRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEGMENT_COLUMNS = join_columns(SegmentRow)

_CHILD_CHUNK_COLUMNS = join_columns(ChildChunkRow)


@frozen
class SegmentTable:
    """Segments of documents."""

    database: Database

    def add(self, rows: Sequence[SegmentRow]) -> None:
        """Add segments."""
        self.database.insert("segments", rows)

    def get(self, segment_id: str) -> SegmentRow | None:
        """Return a segment, or None."""
        return self.get_many([segment_id]).get(segment_id)

    def list_by_document(self, document_id: str) -> list[SegmentRow]:
        """Return the segments of a document, in order of position."""
        return self._select("document_id = ? ORDER BY position, number", document_id)

    def list_page(
        self, document_id: str, keyword: str, statuses: Sequence[str], offset: int, size: int
    ) -> tuple[list[SegmentRow], int]:
        """Return a page of segments, in order of position, and the total number.

        The keyword matches a part of the content, in any case.
        """
        where = "document_id = ? AND instr(folded(content), folded(?)) > 0"
        values: list[object] = [document_id, keyword]
        if statuses:
            where += " AND status IN (SELECT value FROM json_each(?))"
            values.append(json.dumps([*statuses]))
        order = "ORDER BY position, number LIMIT ? OFFSET ?"
        rows = self._select(f"{where} {order}", *values, size, offset)
        sql = f"SELECT count(*) FROM segments WHERE {where}"  # noqa: S608 -- own names
        return rows, self.database.fetch_value(sql, values)

    def get_many(self, segment_ids: Sequence[str]) -> dict[str, SegmentRow]:
        """Return the existing segments of these ids, by id."""
        rows = self._select("id IN (SELECT value FROM json_each(?))", json.dumps([*segment_ids]))
        return {row.id: row for row in rows}

    def select_existing_ids(self, segment_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that exist."""
        sql = "SELECT id FROM segments WHERE id IN (SELECT value FROM json_each(?))"
        rows = self.database.fetch_all(sql, (json.dumps([*segment_ids]),))
        return {segment_id for (segment_id,) in rows}

    def count_completed_and_all(self, document_id: str) -> tuple[int, int]:
        """Count the completed and all segments of a document, without retired ones."""
        ((completed, total),) = self.database.fetch_all(
            "SELECT total(status = 'completed'), count(*) FROM segments"
            " WHERE document_id = ? AND status <> 're_segment'",
            (document_id,),
        )
        return int(completed), total

    def next_position(self, document_id: str) -> int:
        """Return the position for the next segment."""
        sql = "SELECT max(position) FROM segments WHERE document_id = ?"
        return (self.database.fetch_value(sql, (document_id,)) or 0) + 1

    def mark_completed(self, keywords: Sequence[tuple[str, str | None]], now: float) -> None:
        """Mark segments as indexed and enabled, and set their keywords.

        Args:
            keywords: pairs of a segment id and its keywords, as JSON or None.
        """
        with self.database.transaction():
            self.database.connection.executemany(
                "UPDATE segments SET keywords = ?, status = 'completed', completed_at = ?,"
                " enabled = 1 WHERE id = ?",
                [(keywords_json, now, segment_id) for segment_id, keywords_json in keywords],
            )

    def set_keywords(self, keywords: Sequence[tuple[str, str]]) -> None:
        """Set the keywords of segments.

        Args:
            keywords: pairs of a segment id and its keywords, as JSON.
        """
        with self.database.transaction():
            self.database.connection.executemany(
                "UPDATE segments SET keywords = ? WHERE id = ?",
                [(keywords_json, segment_id) for segment_id, keywords_json in keywords],
            )

    def update(self, segment_id: str, **changes: object) -> None:
        """Update columns of a segment."""
        self.database.update("segments", segment_id, changes)

    def delete(self, segment_id: str) -> None:
        """Delete a segment."""
        self.database.execute("DELETE FROM segments WHERE id = ?", (segment_id,))

    def set_enabled_by_document(self, document_id: str, enabled: bool, now: float) -> None:  # noqa: FBT001 -- a column
        """Enable or disable all segments of a document (measured)."""
        self.database.execute(
            "UPDATE segments SET enabled = ?, disabled_at = ? WHERE document_id = ?",
            (int(enabled), None if enabled else now, document_id),
        )

    def retire_by_document(self, document_id: str) -> int:
        """Mark the segments of a document as outdated by an update; return their number.

        The update's task deletes them when it starts (server source).
        """
        return self.database.execute(
            "UPDATE segments SET status = 're_segment' WHERE document_id = ?", (document_id,)
        )

    def delete_by_document(self, document_id: str) -> None:
        """Delete all segments of a document."""
        self.database.execute("DELETE FROM segments WHERE document_id = ?", (document_id,))

    def delete_by_dataset(self, dataset_id: str) -> None:
        """Delete all segments of a dataset."""
        self.database.execute("DELETE FROM segments WHERE dataset_id = ?", (dataset_id,))

    def _select(self, where: str, *values: object) -> list[SegmentRow]:
        sql = f"SELECT {_SEGMENT_COLUMNS} FROM segments WHERE {where}"  # noqa: S608 -- own names
        return [SegmentRow(*row) for row in self.database.fetch_all(sql, values)]


@frozen
class ChildChunkTable:
    """Child chunks of segments, which are deleted with their segment."""

    database: Database

    def add(self, rows: Sequence[ChildChunkRow]) -> None:
        """Add child chunks."""
        self.database.insert("child_chunks", rows)

    def get(self, child_chunk_id: str) -> ChildChunkRow | None:
        """Return a child chunk, or None."""
        rows = self._select("id = ?", child_chunk_id)
        return rows[0] if rows else None

    def list_by_segment(self, segment_id: str) -> list[ChildChunkRow]:
        """Return the child chunks of a segment, in order of position."""
        return self._select("segment_id = ? ORDER BY position", segment_id)

    def get_many(self, child_chunk_ids: Sequence[str]) -> dict[str, ChildChunkRow]:
        """Return the existing child chunks of these ids, by id."""
        rows = self._select(
            "id IN (SELECT value FROM json_each(?))", json.dumps([*child_chunk_ids])
        )
        return {row.id: row for row in rows}

    def list_page(
        self, segment_id: str, keyword: str, offset: int, size: int
    ) -> tuple[list[ChildChunkRow], int]:
        """Return a page of child chunks, in order of position, and the total number.

        The keyword matches a part of the content, in any case.
        """
        where = "segment_id = ? AND instr(folded(content), folded(?)) > 0"
        values: Sequence[object] = (segment_id, keyword)
        rows = self._select(f"{where} ORDER BY position LIMIT ? OFFSET ?", *values, size, offset)
        sql = f"SELECT count(*) FROM child_chunks WHERE {where}"  # noqa: S608 -- own names
        return rows, self.database.fetch_value(sql, values)

    def next_position(self, segment_id: str) -> int:
        """Return the position for the next child chunk."""
        sql = "SELECT max(position) FROM child_chunks WHERE segment_id = ?"
        return (self.database.fetch_value(sql, (segment_id,)) or 0) + 1

    def update(self, child_chunk_id: str, **changes: object) -> None:
        """Update columns of a child chunk."""
        self.database.update("child_chunks", child_chunk_id, changes)

    def delete(self, child_chunk_id: str) -> None:
        """Delete a child chunk."""
        self.database.execute("DELETE FROM child_chunks WHERE id = ?", (child_chunk_id,))

    def delete_by_segment(self, segment_id: str) -> None:
        """Delete all child chunks of a segment."""
        self.database.execute("DELETE FROM child_chunks WHERE segment_id = ?", (segment_id,))

    def _select(self, where: str, *values: object) -> list[ChildChunkRow]:
        sql = f"SELECT {_CHILD_CHUNK_COLUMNS} FROM child_chunks WHERE {where}"  # noqa: S608 -- own names
        return [ChildChunkRow(*row) for row in self.database.fetch_all(sql, values)]
