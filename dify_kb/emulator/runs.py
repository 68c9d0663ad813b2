"""Index one document, stage by stage; everything here holds a thread."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from dify_kb.corpus import ChunkError, Parent, chunk, extract, keywords, parents
from dify_kb.models import DocForm, ProcessRule
from dify_kb.wire import codec

from . import stand_ins
from .clock import Clock
from .profile import Profile
from .stand_ins import Invoke
from .store import ChildChunkRow, DatasetRow, DocumentRow, SegmentRow, Store

_SLICE: Final = 200
"""Segments written in one transaction, so that requests need not wait long for their turn."""

_STEPS: Final = 10
"""Steps in which the segments of a document are inserted where splitting takes time."""


class GoneError(Exception):
    """The document was deleted meanwhile, or the worker killed; the run ends silently."""


@frozen
class NewSegments:
    """Some segments that are to be inserted, with their children."""

    rows: Sequence[SegmentRow]
    children: Sequence[ChildChunkRow]


@frozen
class Run:
    """A run of one document. It deletes the segments that exist when it starts, and only those.

    So what an earlier run of the document inserts afterwards stays (measured, 1.14.2).
    """

    store: Store
    clock: Clock
    document_id: str
    started: float
    profile: Profile
    invoke: Invoke
    is_killed: Callable[[], bool] = lambda: False
    """Whether its worker was killed, after which the run must not write any more."""

    def parse(self) -> list[str]:
        """Read the text out of the file."""
        store = self.store
        with store.transaction():
            self._update(indexing_status="parsing", processing_started_at=self.started)
            store.drop_segments(self.document_id)
            row = store.documents.find(self.document_id)
            content = store.documents.content(self.document_id)
        if row is None or content is None:
            raise GoneError
        return extract(content, row.file_extension)

    def enter_splitting(self, texts: Sequence[str]) -> None:
        """Note that the text is read."""
        words = {"word_count": sum(map(len, texts))} if self.profile.counts_text else {}
        now = self.clock.now()
        self._update(indexing_status="splitting", parsing_completed_at=now, **words)

    def split(self, texts: Sequence[str], *, steps: bool = False) -> list[NewSegments]:
        """Cut the text into segments, in the portions in which they are inserted.

        Args:
            steps: insert them step by step, not as fast as possible.
        """
        row, dataset = self._found()
        now = self.clock.now()
        chunks = self._cut(row, texts)
        first = self.store.segments.next_position(self.document_id)
        rows = [
            _segment(row, position, one.content, now, dataset)
            for position, one in enumerate(chunks, first)
        ]
        children = {
            segment.id: children_of(segment.id, one.children, now)
            for segment, one in zip(rows, chunks, strict=True)
        }
        size = min(_SLICE, math.ceil(len(rows) / _STEPS)) if steps else _SLICE
        return [
            NewSegments(some, [child for segment in some for child in children[segment.id]])
            for some in _portions(rows, size)
        ]

    def _cut(self, row: DocumentRow, texts: Sequence[str]) -> list[Parent]:
        if row.doc_form == DocForm.QA:
            # Without a model that asks, there are no questions (measured).
            return []
        rule = rule_of(self.store, row)
        if row.doc_form == DocForm.HIERARCHICAL:
            return parents(texts, rule)
        return [Parent(content) for content in chunk(texts, rule)]

    def insert(self, portion: NewSegments) -> None:
        """Insert a portion of the segments; they count from now on."""
        with self.store.transaction():
            self._update()
            self.store.segments.add(portion.rows)
            self.store.child_chunks.add(portion.children)

    def enter_indexing(self, segments: Sequence[SegmentRow]) -> None:
        """Note that all segments are inserted."""
        lengths = sum(len(segment.content) for segment in segments)
        words = {} if self.profile.counts_text else {"word_count": lengths}
        now = self.clock.now()
        self._update(indexing_status="indexing", splitting_completed_at=now, **words)

    def index(self, segments: Sequence[SegmentRow]) -> None:
        """Make the chunks be found.

        Parents of an economy base stay as they are, although the document completes (§1.4).
        """
        row, dataset = self._found()
        if dataset.high_quality:
            stand_ins.require_embedding(dataset.embedding_provider, dataset.embedding_model)
            self.invoke(stand_ins.EMBEDDING)
        findable = dataset.high_quality or row.doc_form != DocForm.HIERARCHICAL
        for some in _portions(segments, _SLICE) if findable else ():
            words = [(one.id, self._keywords(one, dataset, row.doc_form)) for one in some]
            with self.store.transaction():
                self._update()
                self.store.find_by(self._left(some))
                self.store.segments.complete(words, self.clock.now())
        now = self.clock.now()
        self._update(
            indexing_status="completed",
            completed_at=now,
            indexing_latency=max(0.0, now - self.started),
            tokens=sum(segment.tokens for segment in segments),
            error=None,
        )

    def _found(self) -> tuple[DocumentRow, DatasetRow]:
        row = self.store.documents.find(self.document_id)
        dataset = self.store.datasets.get(row.dataset_id) if row else None
        if row is None or dataset is None:
            raise GoneError
        return row, dataset

    def _keywords(self, segment: SegmentRow, dataset: DatasetRow, doc_form: str) -> str | None:
        """Tell the keywords of a chunk; parents have none, nor since 1.8 have high-quality bases
        (measured).
        """
        everywhere = self.profile.quirks.keywords_everywhere and doc_form != DocForm.HIERARCHICAL
        if dataset.high_quality and not everywhere:
            return None
        return json.dumps(keywords(segment.content))

    def _left(self, segments: Sequence[SegmentRow]) -> list[SegmentRow]:
        """Leave out what another run of the document has deleted since."""
        there = self.store.segments.among([row.id for row in segments])
        return [row for row in segments if row.id in there]

    def _update(self, **changes: object) -> None:
        if self.is_killed():
            raise GoneError
        changes["updated_at"] = self.clock.now()
        if not self.store.documents.update(self.document_id, **changes):
            raise GoneError


def rule_of(store: Store, row: DocumentRow) -> ProcessRule:
    """Find the rule that a document is cut by.

    Raises:
        ChunkError: it has none.
    """
    rule = store.datasets.rule(row.process_rule_id)
    if rule is None:
        raise ChunkError("no process rule found")
    if rule.mode == "automatic":
        return ProcessRule.automatic()
    stored = {"mode": rule.mode, "rules": json.loads(rule.rules)}
    return codec.decode(ProcessRule, _without_nulls(stored))


def children_of(segment_id: str, contents: Sequence[str], now: float) -> list[ChildChunkRow]:
    """Make the children of a chunk."""
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


def _segment(
    of: DocumentRow, position: int, content: str, now: float, dataset: DatasetRow
) -> SegmentRow:
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=of.dataset_id,
        document_id=of.id,
        position=position,
        content=content,
        keywords=None,
        index_node_id=str(uuid.uuid4()),
        # Dify hashes the text with "None" at its end (recording 752).
        index_node_hash=hashlib.sha256(f"{content}None".encode(errors="replace")).hexdigest(),
        status="indexing",
        created_at=now,
        indexing_at=now,
        # Until it is found (recording 952).
        enabled=0,
        tokens=stand_ins.tokens(content) if dataset.high_quality else 0,
    )


def _portions(segments: Sequence[SegmentRow], size: int) -> list[Sequence[SegmentRow]]:
    return [segments[start : start + size] for start in range(0, len(segments), max(1, size))]


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value
