"""The state of the server, in SQLite: synchronous, and without a word of HTTP."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from dify_kb.corpus import Index

from .child_chunks import ChildChunks
from .database import Database
from .datasets import Datasets
from .documents import Documents
from .external import External
from .metadata import Metadata
from .pipeline_files import PipelineFiles
from .rows import (
    BindingRow,
    ChildChunkRow,
    Counts,
    DatasetRow,
    DocumentRow,
    DocumentState,
    ExternalApiRow,
    MetadataRow,
    PipelineFileRow,
    RuleRow,
    SegmentRow,
    TagRow,
)
from .segments import Segments
from .tags import Tags

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = [
    "BindingRow",
    "ChildChunkRow",
    "Counts",
    "DatasetRow",
    "DocumentRow",
    "DocumentState",
    "ExternalApiRow",
    "MetadataRow",
    "PipelineFileRow",
    "RuleRow",
    "SegmentRow",
    "Store",
    "TagRow",
]


class Store:
    """Everything that the server remembers, in memory or in a file that stays.

    Any thread may call it; calls that belong together stand in `with store.transaction()`.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path)
        self.datasets = Datasets(self._database)
        self.documents = Documents(self._database)
        self.segments = Segments(self._database)
        self.child_chunks = ChildChunks(self._database)
        self.metadata = Metadata(self._database)
        self.tags = Tags(self._database)
        self.pipeline_files = PipelineFiles(self._database)
        self.external = External(self._database)
        self.index = Index(self._database.connection)
        self.account = self._remembered("account")
        """The id of the workspace's owner, as whom the server acts."""
        self.tenant = self._remembered("tenant")
        """The id of the workspace."""
        self.secret = self._remembered("secret")
        """What links to files are signed with."""

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

    def retire_segments(self, document_id: str) -> int:
        """Have the chunks of a document neither be found nor be counted; return their number."""
        with self.transaction():
            self.index.remove(document_id)
            return self.segments.retire_of(document_id)

    def add_segments(
        self, rows: Sequence[SegmentRow], children: Sequence[ChildChunkRow] = ()
    ) -> None:
        """Add chunks of one document, with their children; those enabled are found at once."""
        with self.transaction():
            self.segments.add(rows)
            self.child_chunks.add(children)
            self.find_by([row for row in rows if row.enabled])

    def find_by(self, rows: Sequence[SegmentRow]) -> None:
        """Have chunks of one document be found: by their words, and on a high-quality base by
        their vectors; parents by those of their children, and on an economy base not at all.
        """
        with self.transaction():
            document = self.documents.find(rows[0].document_id) if rows else None
            dataset = self.datasets.get(document.dataset_id) if document else None
            if document is None or dataset is None:
                return
            if document.doc_form != "hierarchical_model":
                entries = [_indexed(row, words=not dataset.high_quality) for row in rows]
            elif dataset.high_quality:
                entries = [entry for row in rows for entry in self._children(row)]
            else:
                return
            self.index.add(entries, vectors=dataset.high_quality)

    def find_dataset_by(self, dataset_id: str) -> None:
        """Have all of a dataset be found as its technique says, which was another one before."""
        with self.transaction():
            self.index.remove_dataset(dataset_id)
            for document in self.documents.completed(dataset_id):
                self.find_by([row for row in self.segments.of(document) if row.enabled])

    def put_children(self, segment: SegmentRow, rows: Sequence[ChildChunkRow]) -> None:
        """Give a chunk other children than it has."""
        with self.transaction():
            self._lose([segment.id])
            self.child_chunks.delete_of(segment.id)
            self.child_chunks.add(rows)
            if segment.enabled:
                self.find_by([segment])

    def add_child(self, segment: SegmentRow, row: ChildChunkRow) -> None:
        """Give a chunk one more child."""
        with self.transaction():
            self.child_chunks.add([row])
            if segment.enabled:
                self.find_by([segment])

    def change_child(self, child: ChildChunkRow, **changes: object) -> None:
        """Change columns of a child, and what it is found by."""
        with self.transaction():
            self.child_chunks.update(child.id, **changes)
            segment = self.segments.get(child.segment_id)
            if segment is not None and segment.enabled:
                self.find_by([segment])

    def delete_child(self, child: ChildChunkRow) -> None:
        """Delete a child."""
        with self.transaction():
            self.index.remove_segments([child.id])
            self.child_chunks.delete(child.id)

    def change_segment(self, segment_id: str, **changes: object) -> SegmentRow | None:
        """Change columns of a chunk, and whether and by what it is found."""
        with self.transaction():
            self.segments.update(segment_id, **changes)
            row = self.segments.get(segment_id)
            if row is None or not row.enabled:
                self._lose([segment_id])
            else:
                self.find_by([row])
        return row

    def delete_segment(self, segment_id: str) -> None:
        """Delete a chunk."""
        with self.transaction():
            self._lose([segment_id])
            self.segments.delete(segment_id)

    def switch_segments(self, document_id: str, *, enabled: bool, now: float) -> None:
        """Enable or disable all chunks of a document, as its own switch does (measured)."""
        with self.transaction():
            self.segments.enable_of(document_id, enabled, now)
            self.index.remove(document_id)
            if enabled:
                self.find_by(self.segments.of(document_id))

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

    def _lose(self, segment_ids: Sequence[str]) -> None:
        """Have chunks not be found, nor their children."""
        children = [child.id for one in segment_ids for child in self.child_chunks.of(one)]
        self.index.remove_segments([*segment_ids, *children])

    def _children(self, row: SegmentRow) -> list[tuple[str, str, str, str]]:
        return [
            (child.id, row.dataset_id, row.document_id, child.content)
            for child in self.child_chunks.of(row.id)
        ]

    def _remembered(self, name: str) -> str:
        self._database.run(
            "INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, str(uuid.uuid4()))
        )
        return str(self._database.value("SELECT value FROM settings WHERE name = ?", (name,)))


def _indexed(row: SegmentRow, *, words: bool) -> tuple[str, str, str, str]:
    """Tell what a chunk is found by: its text, and `words` of its own that are not in it."""
    if not words:
        return row.id, row.dataset_id, row.document_id, row.content
    folded = row.content.casefold()
    more = [word for word in json.loads(row.keywords or "[]") if word.casefold() not in folded]
    return row.id, row.dataset_id, row.document_id, " ".join([row.content, *more])
