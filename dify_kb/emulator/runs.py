"""One document's way through the stages; everything here holds a thread."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.corpus import ChunkError, chunk, extract, keywords
from dify_kb.models import ProcessRule
from dify_kb.wire import codec

from .clock import Clock
from .store import SegmentRow, Store

if TYPE_CHECKING:
    from collections.abc import Sequence


_SLICE: Final = 200
"""Segments written in one transaction, so that requests need not wait long for their turn."""


class GoneError(Exception):
    """The document was deleted meanwhile; its run ends silently (server source)."""


@frozen
class Run:
    """A run of one document. It deletes the chunks that are there when it starts."""

    store: Store
    clock: Clock
    document_id: str
    started: float
    counts_text: bool
    """Whether words are counted before the text is cut."""

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
        words = {"word_count": sum(map(len, texts))} if self.counts_text else {}
        now = self.clock.now()
        self._update(indexing_status="splitting", parsing_completed_at=now, **words)

    def split(self, texts: Sequence[str]) -> list[str]:
        """Cut the text into chunks."""
        row = self.store.documents.find(self.document_id)
        if row is None:
            raise GoneError
        if row.doc_form == "qa_model":
            # Without a model that asks, there are no questions (measured).
            return []
        rule = self.store.datasets.rule(row.process_rule_id)
        if rule is None:
            raise ChunkError("no process rule found")
        if rule.mode == "automatic":
            return chunk(texts, ProcessRule.automatic())
        stored = {"mode": rule.mode, "rules": json.loads(rule.rules)}
        return chunk(texts, codec.decode(ProcessRule, _without_nulls(stored)))

    def save(self, chunks: Sequence[str]) -> list[SegmentRow]:
        """Store the chunks; they count from now on."""
        row = self.store.documents.find(self.document_id)
        if row is None:
            raise GoneError
        now = self.clock.now()
        with self.store.transaction():
            first = self.store.segments.next_position(self.document_id)
        segments = [
            _segment(row.dataset_id, row.id, position, content, now)
            for position, content in enumerate(chunks, first)
        ]
        words = {} if self.counts_text else {"word_count": sum(map(len, chunks))}
        self._update(indexing_status="indexing", splitting_completed_at=now, **words)
        for some in _slices(segments):
            with self.store.transaction():
                self._update()
                self.store.segments.add(some)
        return segments

    def index(self, segments: Sequence[SegmentRow]) -> None:
        """Make the chunks be found."""
        for some in _slices(segments):
            words = [(row.id, json.dumps(keywords(row.content))) for row in some]
            with self.store.transaction():
                self._update()
                left = self._left(some)
                self.store.index.add(
                    [(row.id, row.dataset_id, row.document_id, row.content) for row in left]
                )
                self.store.segments.complete(words, self.clock.now())
        now = self.clock.now()
        self._update(
            indexing_status="completed",
            completed_at=now,
            indexing_latency=max(0.0, now - self.started),
            tokens=0,
            error=None,
        )

    def _left(self, segments: Sequence[SegmentRow]) -> list[SegmentRow]:
        """Leave out what another run of the document has deleted since."""
        there = self.store.segments.among([row.id for row in segments])
        return [row for row in segments if row.id in there]

    def _update(self, **changes: object) -> None:
        changes["updated_at"] = self.clock.now()
        if not self.store.documents.update(self.document_id, **changes):
            raise GoneError


def _segment(
    dataset_id: str, document_id: str, position: int, content: str, now: float
) -> SegmentRow:
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=dataset_id,
        document_id=document_id,
        position=position,
        content=content,
        keywords=None,
        index_node_id=str(uuid.uuid4()),
        # Dify hashes the text with "None" at its end (recording 752).
        index_node_hash=hashlib.sha256(f"{content}None".encode(errors="replace")).hexdigest(),
        status="indexing",
        created_at=now,
        indexing_at=now,
    )


def _slices(segments: Sequence[SegmentRow]) -> list[Sequence[SegmentRow]]:
    return [segments[start : start + _SLICE] for start in range(0, len(segments), _SLICE)]


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value
