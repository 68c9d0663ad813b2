from __future__ import annotations

from attrs import frozen

from .database import Database, columns
from .rows import BindingRow, ExternalApiRow

_API = columns(ExternalApiRow)
_BINDING = columns(BindingRow)


@frozen
class External:
    """External knowledge APIs, and which dataset is asked of which."""

    database: Database

    def add_api(self, row: ExternalApiRow) -> None:
        """Add an API."""
        self.database.insert("external_apis", [row])

    def api(self, api_id: str) -> ExternalApiRow | None:
        """Find an API."""
        sql = f"SELECT {_API} FROM external_apis WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.rows(sql, (api_id,))
        return ExternalApiRow(*rows[0]) if rows else None

    def binding(self, dataset_id: str) -> BindingRow | None:
        """Tell what a dataset is bound to."""
        sql = f"SELECT {_BINDING} FROM external_bindings WHERE dataset_id = ?"  # noqa: S608 -- own names
        rows = self.database.rows(sql, (dataset_id,))
        return BindingRow(*rows[0]) if rows else None

    def bind(self, row: BindingRow) -> None:
        """Bind a dataset, which may be bound already."""
        sql = "DELETE FROM external_bindings WHERE dataset_id = ?"
        with self.database.transaction():
            self.database.run(sql, (row.dataset_id,))
            self.database.insert("external_bindings", [row])
