"""The server's state in SQLite: synchronous and independent of HTTP."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from dify_kb.rag import SearchIndex

from .database import Database
from .datasets import DatasetTable, ExternalKnowledgeTable
from .documents import DocumentTable, PipelineFileTable
from .metadata import MetadataTable
from .rows import (
    ChildChunkRow,
    DatasetCounts,
    DatasetRow,
    DocumentRow,
    DocumentState,
    ExternalApiRow,
    ExternalBindingRow,
    MetadataRow,
    PipelineFileRow,
    RuleRow,
    SegmentRow,
    TagRow,
)
from .segments import ChildChunkTable, SegmentTable
from .tags import TagTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = [
    "ChildChunkRow",
    "DatasetCounts",
    "DatasetRow",
    "DocumentRow",
    "DocumentState",
    "ExternalApiRow",
    "ExternalBindingRow",
    "MetadataRow",
    "PipelineFileRow",
    "RuleRow",
    "SegmentRow",
    "Store",
    "TagRow",
]


class Store:
    """The complete state of the server, in memory or in a file.

    Thread-safe. Calls that belong together are grouped in `with store.transaction()`.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path)
        self.datasets = DatasetTable(self._database)
        self.documents = DocumentTable(self._database)
        self.segments = SegmentTable(self._database)
        self.child_chunks = ChildChunkTable(self._database)
        self.metadata = MetadataTable(self._database)
        self.tags = TagTable(self._database)
        self.pipeline_files = PipelineFileTable(self._database)
        self.external = ExternalKnowledgeTable(self._database)
        self.index = SearchIndex(self._database.connection)
        self.account = self._load_or_create_setting("account")
        """The id of the workspace owner, recorded as the author of every change."""
        self.tenant = self._load_or_create_setting("tenant")
        """The id of the workspace."""
        self.secret = self._load_or_create_setting("secret")
        """The key that signs file URLs."""

    def transaction(self) -> AbstractContextManager[None]:
        """Run a block as one transaction: all or nothing, and isolated from other threads."""
        return self._database.transaction()

    def delete_document(self, document_id: str) -> None:
        """Delete a document with its segments and its file."""
        with self.transaction():
            self.delete_segments(document_id)
            self.documents.delete(document_id)

    def delete_segments(self, document_id: str) -> None:
        """Delete the segments of a document."""
        with self.transaction():
            self.index.remove_document(document_id)
            self.segments.delete_by_document(document_id)

    def retire_segments(self, document_id: str) -> int:
        """Hide the segments of a document from searches and counts; return their number."""
        with self.transaction():
            self.index.remove_document(document_id)
            return self.segments.retire_by_document(document_id)

    def add_segments(
        self, rows: Sequence[SegmentRow], children: Sequence[ChildChunkRow] = ()
    ) -> None:
        """Add segments of one document and their child chunks; index the enabled ones."""
        with self.transaction():
            self.segments.add(rows)
            self.child_chunks.add(children)
            self.index_segments([row for row in rows if row.enabled])

    def index_segments(self, rows: Sequence[SegmentRow]) -> None:
        """Add segments of one document to the search index.

        They are indexed by words and, in a high-quality dataset, also by vectors. Parents are
        indexed through their children, or not at all in an economy dataset.
        """
        with self.transaction():
            document = self.documents.get_by_id(rows[0].document_id) if rows else None
            dataset = self.datasets.get(document.dataset_id) if document else None
            if document is None or dataset is None:
                return
            if document.doc_form != "hierarchical_model":
                entries = [
                    _build_index_entry(row, with_keywords=not dataset.is_high_quality)
                    for row in rows
                ]
            elif dataset.is_high_quality:
                entries = [entry for row in rows for entry in self._build_child_entries(row)]
            else:
                return
            self.index.add(entries, vectors=dataset.is_high_quality)

    def reindex_dataset(self, dataset_id: str) -> None:
        """Rebuild the index of a dataset after a change of its indexing technique."""
        with self.transaction():
            self.index.remove_dataset(dataset_id)
            for document in self.documents.list_available_ids(dataset_id):
                self.index_segments(
                    [row for row in self.segments.list_by_document(document) if row.enabled]
                )

    def replace_children(self, segment: SegmentRow, rows: Sequence[ChildChunkRow]) -> None:
        """Replace the child chunks of a segment."""
        with self.transaction():
            self._remove_from_index([segment.id])
            self.child_chunks.delete_by_segment(segment.id)
            self.child_chunks.add(rows)
            if segment.enabled:
                self.index_segments([segment])

    def add_child(self, segment: SegmentRow, row: ChildChunkRow) -> None:
        """Add a child chunk to a segment."""
        with self.transaction():
            self.child_chunks.add([row])
            if segment.enabled:
                self.index_segments([segment])

    def update_child(self, child: ChildChunkRow, **changes: object) -> None:
        """Update columns of a child chunk and its index entry."""
        with self.transaction():
            self.child_chunks.update(child.id, **changes)
            segment = self.segments.get(child.segment_id)
            if segment is not None and segment.enabled:
                self.index_segments([segment])

    def delete_child(self, child: ChildChunkRow) -> None:
        """Delete a child chunk."""
        with self.transaction():
            self.index.remove_segments([child.id])
            self.child_chunks.delete(child.id)

    def update_segment(self, segment_id: str, **changes: object) -> SegmentRow | None:
        """Update columns of a segment and its index entries; return None if it does not exist."""
        with self.transaction():
            self.segments.update(segment_id, **changes)
            row = self.segments.get(segment_id)
            if row is None or not row.enabled:
                self._remove_from_index([segment_id])
            else:
                self.index_segments([row])
        return row

    def delete_segment(self, segment_id: str) -> None:
        """Delete a segment."""
        with self.transaction():
            self._remove_from_index([segment_id])
            self.segments.delete(segment_id)

    def set_segments_enabled(self, document_id: str, *, enabled: bool, now: float) -> None:
        """Enable or disable all segments, as changing the document's status does (measured)."""
        with self.transaction():
            self.segments.set_enabled_by_document(document_id, enabled, now)
            self.index.remove_document(document_id)
            if enabled:
                self.index_segments(self.segments.list_by_document(document_id))

    def delete_dataset(self, dataset_id: str) -> bool:
        """Delete a dataset and its contents; return whether it existed."""
        with self.transaction():
            self.index.remove_dataset(dataset_id)
            self.segments.delete_by_dataset(dataset_id)
            self.documents.delete_by_dataset(dataset_id)
            return self.datasets.delete(dataset_id)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _remove_from_index(self, segment_ids: Sequence[str]) -> None:
        """Remove segments and their child chunks from the search index."""
        children = [
            child.id
            for segment_id in segment_ids
            for child in self.child_chunks.list_by_segment(segment_id)
        ]
        self.index.remove_segments([*segment_ids, *children])

    def _build_child_entries(self, row: SegmentRow) -> list[tuple[str, str, str, str]]:
        return [
            (child.id, row.dataset_id, row.document_id, child.content)
            for child in self.child_chunks.list_by_segment(row.id)
        ]

    def _load_or_create_setting(self, name: str) -> str:
        self._database.execute(
            "INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, str(uuid.uuid4()))
        )
        return str(self._database.fetch_value("SELECT value FROM settings WHERE name = ?", (name,)))


def _build_index_entry(row: SegmentRow, *, with_keywords: bool) -> tuple[str, str, str, str]:
    """Return the index entry of a segment: its text and the keywords that the text lacks."""
    if not with_keywords:
        return row.id, row.dataset_id, row.document_id, row.content
    folded_content = row.content.casefold()
    extra_keywords = [
        keyword
        for keyword in json.loads(row.keywords or "[]")
        if keyword.casefold() not in folded_content
    ]
    return row.id, row.dataset_id, row.document_id, " ".join([row.content, *extra_keywords])
