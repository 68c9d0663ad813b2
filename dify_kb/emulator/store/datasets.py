"""Tables of datasets, their process rules, and external knowledge APIs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import frozen

from .database import Database, join_columns
from .rows import DatasetCounts, DatasetRow, ExternalApiRow, ExternalBindingRow, RuleRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_DATASET_COLUMNS = join_columns(DatasetRow)

_RULE_COLUMNS = join_columns(RuleRow)

_API_COLUMNS = join_columns(ExternalApiRow)

_BINDING_COLUMNS = join_columns(ExternalBindingRow)


@frozen
class DatasetTable:
    """Datasets and their process rules."""

    database: Database

    def add(self, row: DatasetRow, *, any_name: bool = False) -> bool:
        """Add a dataset; return False if the name is in use, unless any name is accepted."""
        with self.database.transaction():
            if not any_name and self.ids_by_name(row.name):
                return False
            self.database.insert("datasets", [row])
            return True

    def ids_by_name(self, name: str) -> list[str]:
        """Return the ids of datasets with exactly this name; old servers allow duplicates."""
        rows = self.database.fetch_all("SELECT id FROM datasets WHERE name = ?", (name,))
        return [dataset_id for (dataset_id,) in rows]

    def get(self, dataset_id: str) -> DatasetRow | None:
        """Return a dataset, or None."""
        sql = f"SELECT {_DATASET_COLUMNS} FROM datasets WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, (dataset_id,))
        return DatasetRow(*rows[0]) if rows else None

    def list_page(
        self, keyword: str, offset: int, size: int, within: Sequence[str] | None = None
    ) -> tuple[list[DatasetRow], int]:
        """Return a page of datasets, newest first, and the total number.

        The keyword matches a part of the name, in any case.
        """
        where, values = "instr(folded(name), folded(?)) > 0", [keyword]
        if within is not None:
            where += " AND id IN (SELECT value FROM json_each(?))"
            values.append(json.dumps([*within]))
        rows = self.database.fetch_all(
            f"SELECT {_DATASET_COLUMNS} FROM datasets WHERE {where}"  # noqa: S608 -- own names
            " ORDER BY CAST(created_at AS INTEGER) DESC, number DESC LIMIT ? OFFSET ?",
            (*values, size, offset),
        )
        sql = f"SELECT count(*) FROM datasets WHERE {where}"  # noqa: S608 -- own names
        return [DatasetRow(*row) for row in rows], self.database.fetch_value(sql, values)

    def count_contents(self, dataset_id: str) -> DatasetCounts:
        """Count the documents and characters of a dataset, in one index scan."""
        ((documents, available, words),) = self.database.fetch_all(
            "SELECT count(*), total(indexing_status = 'completed' AND enabled AND NOT archived),"
            " total(word_count) FROM documents WHERE dataset_id = ?",
            (dataset_id,),
        )
        return DatasetCounts(documents, int(available), int(words))

    def get_doc_form(self, dataset_id: str) -> str | None:
        """Return the form of a dataset's documents; None if it has none."""
        sql = "SELECT doc_form FROM documents WHERE dataset_id = ? LIMIT 1"
        form: str | None = self.database.fetch_value(sql, (dataset_id,))
        return form

    def update(self, dataset_id: str, **changes: object) -> None:
        """Update columns of a dataset."""
        self.database.update("datasets", dataset_id, changes)

    def delete(self, dataset_id: str) -> bool:
        """Delete a dataset with its process rules; return whether it existed."""
        self.database.execute("DELETE FROM process_rules WHERE dataset_id = ?", (dataset_id,))
        return self.database.execute("DELETE FROM datasets WHERE id = ?", (dataset_id,)) == 1

    def add_rule(self, row: RuleRow) -> None:
        """Add a process rule, which becomes the latest of its dataset."""
        self.database.insert("process_rules", [row])

    def get_rule(self, rule_id: str) -> RuleRow | None:
        """Return a process rule, or None."""
        sql = f"SELECT {_RULE_COLUMNS} FROM process_rules WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, (rule_id,))
        return RuleRow(*rows[0]) if rows else None

    def get_latest_rule(self, dataset_id: str) -> RuleRow | None:
        """Return the latest process rule, which documents created without a rule use, or None."""
        rows = self.database.fetch_all(
            f"SELECT {_RULE_COLUMNS} FROM process_rules"  # noqa: S608 -- own names
            " WHERE dataset_id = ? ORDER BY number DESC LIMIT 1",
            (dataset_id,),
        )
        return RuleRow(*rows[0]) if rows else None


@frozen
class ExternalKnowledgeTable:
    """External knowledge APIs and their bindings to datasets."""

    database: Database

    def add_api(self, row: ExternalApiRow) -> None:
        """Add an API."""
        self.database.insert("external_apis", [row])

    def get_api(self, api_id: str) -> ExternalApiRow | None:
        """Return an API, or None."""
        sql = f"SELECT {_API_COLUMNS} FROM external_apis WHERE id = ?"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, (api_id,))
        return ExternalApiRow(*rows[0]) if rows else None

    def get_binding(self, dataset_id: str) -> ExternalBindingRow | None:
        """Return the binding of a dataset, or None."""
        sql = f"SELECT {_BINDING_COLUMNS} FROM external_bindings WHERE dataset_id = ?"  # noqa: S608 -- own names
        rows = self.database.fetch_all(sql, (dataset_id,))
        return ExternalBindingRow(*rows[0]) if rows else None

    def bind(self, row: ExternalBindingRow) -> None:
        """Bind a dataset, replacing any existing binding."""
        sql = "DELETE FROM external_bindings WHERE dataset_id = ?"
        with self.database.transaction():
            self.database.execute(sql, (row.dataset_id,))
            self.database.insert("external_bindings", [row])
