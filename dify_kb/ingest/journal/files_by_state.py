"""Count and list the files of a journal by state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .rows import State, from_sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .database import JournalDatabase


class FilesByState:
    """Queries on the files of a journal by state."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def count_documents(self) -> int:
        """Count the files with a document on the server."""
        return self._database.select_number(
            "SELECT count(*) FROM item WHERE document_id IS NOT NULL AND state != 'sending'"
        )

    def count_unanswered(self) -> int:
        """Count the files that were sent without a known response."""
        sql = "SELECT count(*) FROM item WHERE state = 'sending'"
        return self._database.select_number(sql)

    def count_states(self) -> Mapping[State, int]:
        """Return the number of files in each state; states without files are omitted."""
        sql = "SELECT state, count(*) AS number FROM item GROUP BY state"
        return {State(row["state"]): row["number"] for row in self._database.select(sql)}

    def unanswered_names(self) -> Sequence[str]:
        """Return the document names of files that were sent without a known response."""
        sql = "SELECT name FROM item WHERE state = 'sending'"
        return [from_sqlite(row["name"]) for row in self._database.select(sql)]

    def emptied_keys(self) -> Sequence[str]:
        """Return the keys of files whose document was emptied by a failed replacement."""
        sql = "SELECT key FROM item WHERE state = 'emptied' ORDER BY key"
        return [from_sqlite(row["key"]) for row in self._database.select(sql)]
