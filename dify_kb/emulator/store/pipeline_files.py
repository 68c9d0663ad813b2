from __future__ import annotations

from attrs import frozen

from .database import Database, columns
from .rows import PipelineFileRow

_COLUMNS = columns(PipelineFileRow)


@frozen
class PipelineFiles:
    """Files that pipelines can read."""

    database: Database

    def add(self, row: PipelineFileRow) -> None:
        """Add one."""
        self.database.insert("pipeline_files", [row])

    def get(self, file_id: str) -> PipelineFileRow | None:
        """Find one."""
        sql = f"SELECT {_COLUMNS} FROM pipeline_files WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.rows(sql, (file_id,))
        return PipelineFileRow(*rows[0]) if rows else None
