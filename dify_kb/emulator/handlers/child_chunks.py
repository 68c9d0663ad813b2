"""Request handlers for child chunks."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

import attrs

from dify_kb.emulator import serializers, stub_models
from dify_kb.emulator.errors import invalid_param_error, not_found_error
from dify_kb.emulator.request_context import (
    RequestContext,
    handles,
    ignore_body,
    require_document,
    require_segment,
)
from dify_kb.emulator.store import ChildChunkRow
from dify_kb.emulator.validation import BodyField, BodySchema, string_validator, validate_integer
from dify_kb.models import (
    UNSET,
    ChildChunk,
    ChildChunkResponse,
    ListChildChunks,
    Page,
    WriteChildChunk,
)
from dify_kb.wire import catalog, codec

from .common_fields import check_page_and_limit, compute_page_bounds, parse_page_and_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import SegmentRow

_CREATE = BodySchema(
    "ChildChunkCreatePayload", {"content": BodyField(string_validator(), required=True)}
)
_UPDATE = BodySchema(
    "ChildChunkUpdatePayload", {"content": BodyField(string_validator(), required=True)}
)
_LIST = BodySchema(
    "ChildChunkListQuery",
    {
        "page": BodyField(validate_integer),
        "limit": BodyField(validate_integer),
        "keyword": BodyField(string_validator()),
    },
)

_MAX_LIMIT = 100


def _read_create(context: RequestContext, raw: object) -> WriteChildChunk:
    require_segment(context)
    return codec.decode(WriteChildChunk, _CREATE.validate(raw, context.profile))


def _read_update(context: RequestContext, raw: object) -> WriteChildChunk:
    if context.profile.quirks.loses_child_chunks:
        raise not_found_error("Segment not found.")
    _require_segment(context)
    return codec.decode(WriteChildChunk, _UPDATE.validate(raw, context.profile))


def _read_list(context: RequestContext, raw: Mapping[str, Any]) -> ListChildChunks:
    require_segment(context)
    if not context.profile.quirks.strict_child_chunk_query:
        return codec.decode(ListChildChunks, _LIST.validate(raw, context.profile))
    page, limit = check_page_and_limit(
        "ChildChunkListQuery", *parse_page_and_limit(raw), context.profile
    )
    return ListChildChunks(page=page, limit=limit, keyword=raw.get("keyword", UNSET))


@handles(catalog.CREATE_CHILD_CHUNK, _read_create)
def create(context: RequestContext, body: WriteChildChunk) -> ChildChunkResponse:
    """Append a child chunk; any form of document is accepted (measured)."""
    store, segment, now = context.store, require_segment(context), context.clock.now()
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
    return ChildChunkResponse(data=serializers.serialize_child_chunk(row))


@handles(catalog.LIST_CHILD_CHUNKS, _read_list)
def list_(context: RequestContext, query: ListChildChunks) -> Page[ChildChunk]:
    """List child chunks in order of position; the response shows the capped limit (measured).

    The list is empty if the chunk belongs to another document (2056).
    """
    segment, limit = require_segment(context), min(query.limit, _MAX_LIMIT)
    offset, size = compute_page_bounds(query.page, limit)
    rows, total = context.store.child_chunks.list_page(
        segment.id, query.keyword or "", offset, size
    )
    if segment.document_id != require_document(context).id:
        rows, total = [], 0
    return Page(
        data=[serializers.serialize_child_chunk(row) for row in rows],
        limit=limit,
        total=total,
        page=query.page,
        extra={"total_pages": math.ceil(total / size)},
    )


@handles(catalog.UPDATE_CHILD_CHUNK, _read_update)
def update(context: RequestContext, body: WriteChildChunk) -> ChildChunkResponse:
    """Replace the content of a child chunk."""
    child_chunk, now = _require_child_chunk(context), context.clock.now()
    context.store.update_child(child_chunk, content=body.content, type="customized", updated_at=now)
    row = attrs.evolve(child_chunk, content=body.content, type="customized", updated_at=now)
    return ChildChunkResponse(data=serializers.serialize_child_chunk(row))


@handles(catalog.DELETE_CHILD_CHUNK, ignore_body)
def delete(context: RequestContext, _: None) -> None:
    """Delete a child chunk."""
    quirks = context.profile.quirks
    if quirks.loses_child_chunks:
        raise not_found_error("Document not found.")
    _require_segment(context)
    row = _require_child_chunk(context)
    if quirks.child_chunk_needs_model and not context.has_models:
        raise invalid_param_error(stub_models.no_default_model_message(context.profile))
    context.store.delete_child(row)


def _require_segment(context: RequestContext) -> SegmentRow:
    """Return the segment of the path, to update or delete a child chunk.

    Since 1.11 the document of the path must match, too (server source).
    """
    segment = require_segment(context)
    is_path_checked = context.profile.quirks.child_chunk_in_segment
    if is_path_checked and segment.document_id != require_document(context).id:
        raise not_found_error("Document not found.")
    return segment


def _require_child_chunk(context: RequestContext) -> ChildChunkRow:
    row = context.store.child_chunks.get(context.path_parameters["child_chunk_id"])
    is_path_checked = context.profile.quirks.child_chunk_in_segment
    if row is None or (is_path_checked and row.segment_id != context.path_parameters["segment_id"]):
        raise not_found_error("Child chunk not found.")
    return row


HANDLERS = (create, list_, update, delete)
