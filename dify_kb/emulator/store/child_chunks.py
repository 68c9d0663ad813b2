from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, columns
from .rows import ChildChunkRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = columns(ChildChunkRow)


@frozen
class ChildChunks:
    """Pieces of chunks. They go with their chunk."""

    database: Database

    def add(self, rows: Sequence[ChildChunkRow]) -> None:
        """Add some."""
        self.database.insert("child_chunks", rows)

    def get(self, child_chunk_id: str) -> ChildChunkRow | None:
        """Find one."""
        rows = self._all("id = ?", child_chunk_id)
        return rows[0] if rows else None

    def of(self, segment_id: str) -> list[ChildChunkRow]:
        """Find those of a chunk."""
        return self._all("segment_id = ? ORDER BY position", segment_id)

    def find(self, child_chunk_ids: Sequence[str]) -> dict[str, ChildChunkRow]:
        """Find some by their ids."""
        rows = self._all("id IN (SELECT value FROM json_each(?))", json.dumps([*child_chunk_ids]))
        return {row.id: row for row in rows}

    def page(
        self, segment_id: str, keyword: str, offset: int, size: int
    ) -> tuple[list[ChildChunkRow], int]:
        """Find those that have the keyword in any case, in their order; and count them."""
        where = "segment_id = ? AND instr(folded(content), folded(?)) > 0"
        values: Sequence[object] = (segment_id, keyword)
        rows = self._all(f"{where} ORDER BY position LIMIT ? OFFSET ?", *values, size, offset)
        sql = f"SELECT count(*) FROM child_chunks WHERE {where}"  # noqa: S608 -- own names
        return rows, self.database.value(sql, values)

    def next_position(self, segment_id: str) -> int:
        """Tell the position of the next one."""
        sql = "SELECT max(position) FROM child_chunks WHERE segment_id = ?"
        return (self.database.value(sql, (segment_id,)) or 0) + 1

    def update(self, child_chunk_id: str, **changes: object) -> None:
        """Change columns."""
        self.database.update("child_chunks", child_chunk_id, changes)

    def delete(self, child_chunk_id: str) -> None:
        """Delete one."""
        self.database.run("DELETE FROM child_chunks WHERE id = ?", (child_chunk_id,))

    def delete_of(self, segment_id: str) -> None:
        """Delete those of a chunk."""
        self.database.run("DELETE FROM child_chunks WHERE segment_id = ?", (segment_id,))

    def _all(self, where: str, *values: object) -> list[ChildChunkRow]:
        sql = f"SELECT {_COLUMNS} FROM child_chunks WHERE {where}"  # noqa: S608 -- own names
        return [ChildChunkRow(*row) for row in self.database.rows(sql, values)]
