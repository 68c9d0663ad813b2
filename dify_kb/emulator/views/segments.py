from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.models import ChildChunk, DocForm, Segment, SegmentStatus
from dify_kb.wire import codec

from .times import maybe, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import ChildChunkRow, DocumentRow, SegmentRow, Store


def segment(store: Store, row: SegmentRow, of: DocumentRow) -> Segment:
    """Show a chunk of a document."""
    return Segment(
        id=row.id,
        position=row.position,
        document_id=row.document_id,
        content=row.content,
        sign_content=row.content,
        answer=row.answer,
        word_count=row.word_count,
        tokens=row.tokens,
        keywords=json.loads(row.keywords) if row.keywords else None,
        index_node_id=row.index_node_id,
        index_node_hash=row.index_node_hash,
        hit_count=0,
        enabled=bool(row.enabled),
        disabled_at=maybe(row.disabled_at),
        disabled_by=store.account if row.disabled_at is not None else None,
        status=SegmentStatus(row.status),
        created_by=store.account,
        created_at=whole(row.created_at),
        updated_at=whole(row.updated_at or row.created_at),
        updated_by=store.account if row.edited else None,
        indexing_at=maybe(row.indexing_at),
        completed_at=maybe(row.completed_at),
        error=row.error,
        stopped_at=None,
        child_chunks=_children(store, row, of),
        attachments=[],
        summary=None,
    )


def child_chunk(row: ChildChunkRow) -> ChildChunk:
    """Show a child chunk."""
    return ChildChunk(
        id=row.id,
        segment_id=row.segment_id,
        content=row.content,
        position=row.position,
        word_count=len(row.content),
        type=row.type,
        created_at=whole(row.created_at),
        updated_at=whole(row.updated_at),
    )


def _children(store: Store, row: SegmentRow, of: DocumentRow) -> list[Mapping[str, object]]:
    """Show the child chunks, which only a paragraph of a hierarchical document names."""
    if of.doc_form != DocForm.HIERARCHICAL:
        return []
    rule = store.datasets.rule(of.process_rule_id)
    if rule is None or json.loads(rule.rules).get("parent_mode") == "full-doc":
        return []
    return [codec.fields(child_chunk(child)) for child in store.child_chunks.of(row.id)]
