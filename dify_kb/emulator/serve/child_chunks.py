from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

import attrs

from dify_kb.emulator import chosen, views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import Field, Payload, integer, text
from dify_kb.emulator.refused import invalid_param, not_found
from dify_kb.emulator.store import ChildChunkRow
from dify_kb.models import (
    UNSET,
    ChildChunk,
    ChildChunkAnswer,
    ListChildChunks,
    Page,
    WriteChildChunk,
)
from dify_kb.wire import catalog, codec

from .fields import bounds
from .found import document_of, segment_of
from .paging import lenient, strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import SegmentRow

_CREATE = Payload("ChildChunkCreatePayload", {"content": Field(text(), required=True)})
_UPDATE = Payload("ChildChunkUpdatePayload", {"content": Field(text(), required=True)})
_LIST = Payload(
    "ChildChunkListQuery",
    {"page": Field(integer), "limit": Field(integer), "keyword": Field(text())},
)

_LARGEST_PAGE = 100


def _read_create(context: Context, raw: object) -> WriteChildChunk:
    _segment(context)
    return codec.decode(WriteChildChunk, _CREATE.read(raw, context.profile))


def _read_update(context: Context, raw: object) -> WriteChildChunk:
    if context.profile.quirks.loses_child_chunks:
        raise not_found("Segment not found.")
    _segment(context)
    return codec.decode(WriteChildChunk, _UPDATE.read(raw, context.profile))


def _read_list(context: Context, raw: Mapping[str, Any]) -> ListChildChunks:
    _segment(context)
    if not context.profile.quirks.strict_child_chunk_query:
        return codec.decode(ListChildChunks, _LIST.read(raw, context.profile))
    page, limit = strict("ChildChunkListQuery", *lenient(raw), context.profile)
    return ListChildChunks(page=page, limit=limit, keyword=raw.get("keyword", UNSET))


@serves(catalog.CREATE_CHILD_CHUNK, _read_create)
def create(context: Context, body: WriteChildChunk) -> ChildChunkAnswer:
    """Append a child chunk, whatever the form of its document (measured)."""
    store, segment, now = context.store, _segment(context), context.clock.now()
    with store.transaction():
        row = ChildChunkRow(
            id=str(uuid.uuid4()),
            segment_id=segment.id,
            position=store.child_chunks.next_position(segment.id),
            content=body.content,
            type="customized",
            created_at=now,
            updated_at=now,
        )
        store.add_child(segment, row)
    return ChildChunkAnswer(data=views.child_chunk(row))


@serves(catalog.LIST_CHILD_CHUNKS, _read_list)
def list_(context: Context, query: ListChildChunks) -> Page[ChildChunk]:
    """List child chunks in their order; the limit is echoed as it was taken (measured)."""
    limit = min(query.limit, _LARGEST_PAGE)
    offset, size = bounds(query.page, limit)
    rows, total = context.store.child_chunks.page(
        _segment(context).id, query.keyword or "", offset, size
    )
    return Page(
        data=[views.child_chunk(row) for row in rows],
        limit=limit,
        total=total,
        page=query.page,
        extra={"total_pages": math.ceil(total / size)},
    )


@serves(catalog.UPDATE_CHILD_CHUNK, _read_update)
def update(context: Context, body: WriteChildChunk) -> ChildChunkAnswer:
    """Change the text of a child chunk."""
    old, now = _child_chunk(context), context.clock.now()
    context.store.change_child(old, content=body.content, type="customized", updated_at=now)
    row = attrs.evolve(old, content=body.content, type="customized", updated_at=now)
    return ChildChunkAnswer(data=views.child_chunk(row))


@serves(catalog.DELETE_CHILD_CHUNK, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a child chunk."""
    quirks = context.profile.quirks
    if quirks.loses_child_chunks:
        raise not_found("Document not found.")
    _segment(context)
    row = _child_chunk(context)
    if quirks.child_chunk_needs_model and not context.models:
        raise invalid_param(chosen.no_model(context.profile))
    context.store.delete_child(row)


def _segment(context: Context) -> SegmentRow:
    """Find the chunk; here the document counts since 1.11, in these words (recording 1025)."""
    segment = segment_of(context)
    strict_path = context.profile.quirks.child_chunk_in_segment
    if strict_path and segment.document_id != document_of(context).id:
        raise not_found("Document not found.")
    return segment


def _child_chunk(context: Context) -> ChildChunkRow:
    row = context.store.child_chunks.get(context.slots["child_chunk_id"])
    strict_path = context.profile.quirks.child_chunk_in_segment
    if row is None or (strict_path and row.segment_id != context.slots["segment_id"]):
        raise not_found("Child chunk not found.")
    return row


HANDLERS = (create, list_, update, delete)
