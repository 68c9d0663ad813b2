"""Index one document, stage by stage. All functions block."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from dify_kb.models import DocForm, ProcessRule
from dify_kb.rag import (
    ChunkError,
    ParentChunk,
    chunk_parents,
    chunk_with_sources,
    extract,
    extract_keywords,
)
from dify_kb.wire import codec

from . import stub_models
from .clocks import Clock
from .request_context import InvokeModel
from .server_profile import ServerProfile
from .store import ChildChunkRow, DatasetRow, DocumentRow, SegmentRow, Store

_BATCH_SIZE: Final = 200
"""Segments per transaction; small enough that requests do not wait long for the database."""

_SPLITTING_BATCHES: Final = 10
"""Number of batches in which segments are inserted if splitting has a simulated duration."""


class RunAbortedError(Exception):
    """Raised if the document was deleted or the worker killed; the run ends silently."""


@frozen
class SegmentBatch:
    """Segments to insert in one transaction, with their child chunks."""

    rows: Sequence[SegmentRow]
    children: Sequence[ChildChunkRow]


@frozen
class IndexingRun:
    """An indexing run of one document. It deletes only the segments that exist when it starts.

    If an earlier run of the document is still active, the segments it inserts afterwards remain
    (measured, 1.14.2).
    """

    store: Store
    clock: Clock
    document_id: str
    started: float
    profile: ServerProfile
    invoke: InvokeModel
    is_killed: Callable[[], bool] = lambda: False
    """Returns whether the worker was killed; if so, the run must not write anymore."""

    def parse(self) -> list[str]:
        """Delete the existing segments and extract the text of the file."""
        store = self.store
        with store.transaction():
            self._update(indexing_status="parsing", processing_started_at=self.started)
            store.delete_segments(self.document_id)
            row = store.documents.get_by_id(self.document_id)
            content = store.documents.get_content(self.document_id)
        if row is None or content is None:
            raise RunAbortedError
        return extract(content, row.file_extension)

    def start_splitting(self, texts: Sequence[str]) -> None:
        """Set the status `splitting`."""
        words = {"word_count": sum(map(len, texts))} if self.profile.counts_words_of_text else {}
        now = self.clock.now()
        self._update(indexing_status="splitting", parsing_completed_at=now, **words)

    def split(self, texts: Sequence[str], *, steps: bool = False) -> list[SegmentBatch]:
        """Split the text into segments; return the batches to insert.

        Args:
            steps: use small batches, so that progress is visible.
        """
        row, dataset = self._load_rows()
        now = self.clock.now()
        chunks = self._chunk_texts(row, texts)
        first = self.store.segments.next_position(self.document_id)
        rows = [
            _build_segment(row, position, parent, now, dataset)
            for position, parent in enumerate(chunks, first)
        ]
        children = {
            segment.id: build_child_chunks(segment.id, parent.children, now)
            for segment, parent in zip(rows, chunks, strict=True)
        }
        size = min(_BATCH_SIZE, math.ceil(len(rows) / _SPLITTING_BATCHES)) if steps else _BATCH_SIZE
        return [
            SegmentBatch(batch, [child for segment in batch for child in children[segment.id]])
            for batch in _batches(rows, size)
        ]

    def _chunk_texts(self, row: DocumentRow, texts: Sequence[str]) -> list[ParentChunk]:
        if row.doc_form == DocForm.QA:
            # Questions need an LLM; without one there are no segments (measured).
            return []
        rule, splitter = get_process_rule(self.store, row), self.profile.splitter
        if row.doc_form == DocForm.HIERARCHICAL:
            return chunk_parents(texts, rule, splitter)
        return [
            ParentChunk(content, source=source)
            for content, source in chunk_with_sources(texts, rule, splitter)
        ]

    def insert_batch(self, segment_batch: SegmentBatch) -> None:
        """Insert a batch of segments, which are counted from now on."""
        with self.store.transaction():
            self._update()
            self.store.segments.add(segment_batch.rows)
            self.store.child_chunks.add(segment_batch.children)

    def start_indexing(self, segments: Sequence[SegmentRow]) -> None:
        """Set the status `indexing`, after all segments were inserted."""
        lengths = sum(len(segment.content) for segment in segments)
        words = {} if self.profile.counts_words_of_text else {"word_count": lengths}
        now = self.clock.now()
        self._update(indexing_status="indexing", splitting_completed_at=now, **words)

    def index(self, segments: Sequence[SegmentRow]) -> None:
        """Add the segments to the search index and set the status `completed`.

        Parent chunks of an economy dataset do not become searchable (§1.4).
        """
        row, dataset = self._load_rows()
        if dataset.is_high_quality:
            stub_models.require_embedding_model(dataset.embedding_provider, dataset.embedding_model)
            self.invoke(stub_models.EMBEDDING_MODEL)
        findable = dataset.is_high_quality or row.doc_form != DocForm.HIERARCHICAL
        for batch in _batches(segments, _BATCH_SIZE) if findable else ():
            keywords = [
                (segment.id, self._extract_keywords(segment, dataset, row.doc_form))
                for segment in batch
            ]
            with self.store.transaction():
                self._update()
                self.store.index_segments(self._filter_existing(batch))
                self.store.segments.mark_completed(keywords, self.clock.now())
        now = self.clock.now()
        self._update(
            indexing_status="completed",
            completed_at=now,
            indexing_latency=max(0.0, now - self.started),
            tokens=sum(segment.tokens for segment in segments),
            error=None,
            error_details=None,
        )

    def _load_rows(self) -> tuple[DocumentRow, DatasetRow]:
        row = self.store.documents.get_by_id(self.document_id)
        dataset = self.store.datasets.get(row.dataset_id) if row else None
        if row is None or dataset is None:
            raise RunAbortedError
        return row, dataset

    def _extract_keywords(
        self, segment: SegmentRow, dataset: DatasetRow, doc_form: str
    ) -> str | None:
        """Return the keywords of a chunk as JSON, or None if it has none.

        Parent chunks have none; chunks of high-quality datasets have none since 1.8 (measured).
        """
        everywhere = self.profile.quirks.keywords_everywhere and doc_form != DocForm.HIERARCHICAL
        if dataset.is_high_quality and not everywhere:
            return None
        return json.dumps(extract_keywords(segment.content))

    def _filter_existing(self, segments: Sequence[SegmentRow]) -> list[SegmentRow]:
        """Return the segments that no other run of the document has deleted."""
        existing_ids = self.store.segments.select_existing_ids([row.id for row in segments])
        return [row for row in segments if row.id in existing_ids]

    def _update(self, **changes: object) -> None:
        if self.is_killed():
            raise RunAbortedError
        changes["updated_at"] = self.clock.now()
        if not self.store.documents.update(self.document_id, **changes):
            raise RunAbortedError


def get_process_rule(store: Store, row: DocumentRow) -> ProcessRule:
    """Return the process rule of a document.

    Raises:
        ChunkError: the document has no rule.
    """
    rule = store.datasets.get_rule(row.process_rule_id)
    if rule is None:
        raise ChunkError("no process rule found")
    if rule.mode == "automatic":
        return ProcessRule.automatic()
    stored = {"mode": rule.mode, "rules": json.loads(rule.rules)}
    return codec.decode(ProcessRule, _drop_nulls(stored))


def build_child_chunks(segment_id: str, contents: Sequence[str], now: float) -> list[ChildChunkRow]:
    """Create the child chunks of a segment."""
    return [
        ChildChunkRow(
            id=str(uuid.uuid4()),
            segment_id=segment_id,
            position=position,
            content=content,
            type="automatic",
            created_at=now,
            updated_at=now,
        )
        for position, content in enumerate(contents, 1)
    ]


def _build_segment(
    document: DocumentRow, position: int, chunk: ParentChunk, now: float, dataset: DatasetRow
) -> SegmentRow:
    content = chunk.content
    # Hashed before leading symbols are stripped, unlike after an edit (measured).
    hashed = content if chunk.source is None else chunk.source
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=document.dataset_id,
        document_id=document.id,
        position=position,
        content=content,
        keywords=None,
        index_node_id=str(uuid.uuid4()),
        # Dify hashes the text with "None" appended (recording 752).
        index_node_hash=hashlib.sha256(f"{hashed}None".encode(errors="replace")).hexdigest(),
        status="indexing",
        created_at=now,
        indexing_at=now,
        # Enabled when it becomes searchable (recording 952).
        enabled=0,
        tokens=stub_models.count_tokens(content) if dataset.is_high_quality else 0,
    )


def _batches(segments: Sequence[SegmentRow], size: int) -> list[Sequence[SegmentRow]]:
    return [segments[start : start + size] for start in range(0, len(segments), max(1, size))]


def _drop_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _drop_nulls(item) for name, item in value.items() if item is not None}
    return value
