"""The state of the server, in SQLite: synchronous, and without a word of HTTP."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from dify_kb.corpus import Index

from .database import Database
from .datasets import Datasets
from .documents import Documents
from .rows import Counts, DatasetRow, DocumentRow, RuleRow, SegmentRow
from .segments import Segments

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Counts", "DatasetRow", "DocumentRow", "RuleRow", "SegmentRow", "Store"]


class Store:
    """Everything that the server remembers, in memory or in a file that stays.

    Any thread may call it; calls that belong together stand in `with store.transaction()`.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path)
        self.datasets = Datasets(self._database)
        self.documents = Documents(self._database)
        self.segments = Segments(self._database)
        self.index = Index(self._database.connection)
        self.account = self._remembered("account")
        """The id of the workspace's owner, as whom the server acts."""

    def transaction(self) -> AbstractContextManager[None]:
        """Do all of it or nothing, and let nobody else in meanwhile."""
        return self._database.transaction()

    def delete_document(self, document_id: str) -> None:
        """Delete a document and all that hangs on it."""
        with self.transaction():
            self.drop_segments(document_id)
            self.documents.delete(document_id)

    def drop_segments(self, document_id: str) -> None:
        """Delete the chunks of a document."""
        with self.transaction():
            self.index.remove(document_id)
            self.segments.delete_of(document_id)

    def delete_dataset(self, dataset_id: str) -> bool:
        """Delete a dataset and all that hangs on it; tell whether there was one."""
        with self.transaction():
            self.index.remove_dataset(dataset_id)
            self.segments.delete_of_dataset(dataset_id)
            self.documents.delete_of(dataset_id)
            return self.datasets.delete(dataset_id)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _remembered(self, name: str) -> str:
        self._database.run(
            "INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, str(uuid.uuid4()))
        )
        return str(self._database.value("SELECT value FROM settings WHERE name = ?", (name,)))
