"""Request handlers for segments."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from dify_kb.emulator import serializers, stub_models
from dify_kb.emulator.errors import invalid_param_error, not_found_error
from dify_kb.emulator.indexing_run import build_child_chunks, get_process_rule
from dify_kb.emulator.request_context import (
    RequestContext,
    handles,
    ignore_body,
    require_document,
    require_segment,
)
from dify_kb.emulator.store import SegmentRow
from dify_kb.emulator.stub_models import ModelError
from dify_kb.models import (
    CreatedSegments,
    CreateSegments,
    DocForm,
    ListSegments,
    NewSegment,
    Page,
    Segment,
    SegmentChanges,
    SegmentResponse,
    UpdateSegment,
)
from dify_kb.rag import ChunkError, chunk_children, extract_keywords
from dify_kb.wire import catalog

from .common_fields import build_page, compute_page_bounds
from .segment_bodies import read_create, read_list, read_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import ChildChunkRow, DocumentRow


@handles(catalog.CREATE_SEGMENTS, read_create)
def create(context: RequestContext, body: CreateSegments) -> CreatedSegments:
    """Append segments, all or none; they are searchable immediately (measured)."""
    store, document = context.store, require_document(context)
    with store.transaction():
        first_position = store.segments.next_position(document.id)
        rows = [
            _build_row(context, document, position, new_segment)
            for position, new_segment in enumerate(body.segments, first_position)
        ]
        children = [
            child
            for row in rows
            if row.enabled
            for child in _split_into_children(context, document, row)
        ]
        store.add_segments(rows, children)
        _add_word_count(context, document.id, sum(row.word_count for row in rows))
    return CreatedSegments(
        data=[serializers.serialize_segment(store, row) for row in rows],
        doc_form=DocForm(document.doc_form),
    )


def _build_row(
    context: RequestContext, document: DocumentRow, position: int, new_segment: NewSegment
) -> SegmentRow:
    """Build a segment; if it cannot be indexed, it is stored with the error (recording 953)."""
    now, error = context.clock.now(), _find_indexing_error(context, document)
    segment_keywords = (
        [*(new_segment.keywords or ())]
        if new_segment.keywords
        else _extract_keywords(context, new_segment.content)
    )
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=document.dataset_id,
        document_id=document.id,
        position=position,
        content=new_segment.content,
        keywords=json.dumps(segment_keywords),
        index_node_id=str(uuid.uuid4()),
        index_node_hash=_hash_content(new_segment.content),
        status="error" if error else "completed",
        created_at=now,
        indexing_at=now,
        completed_at=now,
        answer=new_segment.answer or None,
        enabled=0 if error else 1,
        disabled_at=now if error else None,
        tokens=_count_tokens(context, new_segment.content),
        error=error,
    )


def _extract_keywords(context: RequestContext, content: str) -> list[str]:
    """Return the keywords of a new text; empty where none are extracted (recording 953)."""
    return extract_keywords(content) if _uses_keywords(context) else []


def _uses_keywords(context: RequestContext) -> bool:
    """Return whether keywords are extracted from segments.

    They are in economy datasets and, up to 1.4, in all datasets, except from parents (measured).
    """
    everywhere = context.profile.quirks.keywords_everywhere
    parents = require_document(context).doc_form == DocForm.HIERARCHICAL
    return not context.dataset.is_high_quality or (everywhere and not parents)


def _count_tokens(context: RequestContext, content: str) -> int:
    return stub_models.count_tokens(content) if context.dataset.is_high_quality else 0


def _find_indexing_error(context: RequestContext, document: DocumentRow) -> str | None:
    """Return the server's error message if this document's segments cannot be indexed."""
    dataset = context.dataset
    if not dataset.is_high_quality:
        if document.doc_form == DocForm.HIERARCHICAL:
            return "The knowledge base index technique is not high quality!"
        return None
    try:
        stub_models.require_embedding_model(dataset.embedding_provider, dataset.embedding_model)
        context.invoke_model(stub_models.EMBEDDING_MODEL)
    except ModelError as error:
        return str(error)
    return None


def _split_into_children(
    context: RequestContext, document: DocumentRow, row: SegmentRow
) -> list[ChildChunkRow]:
    """Split a segment into child chunks by its document's rule; empty without such a rule."""
    if document.doc_form != DocForm.HIERARCHICAL:
        return []
    try:
        rule = get_process_rule(context.store, document)
        contents = chunk_children(row.content, rule, context.profile.splitter)
    except ChunkError:
        return []
    return build_child_chunks(row.id, contents, context.clock.now())


def _hash_content(content: str) -> str:
    # Dify hashes the text with "None" at its end (recording 752).
    return hashlib.sha256(f"{content}None".encode(errors="replace")).hexdigest()


def _add_word_count(context: RequestContext, document_id: str, added_words: int) -> None:
    """Add to the word count of a document, which does not drop below 0."""
    row = context.store.documents.get_by_id(document_id)
    if row is not None:
        new_word_count = max(0, (row.word_count or 0) + added_words)
        changes: dict[str, object] = {"word_count": new_word_count}
        if context.profile.quirks.touches_document:
            changes["updated_at"] = context.clock.now()
        context.store.documents.update(document_id, **changes)


@handles(catalog.LIST_SEGMENTS, read_list)
def list_(context: RequestContext, query: ListSegments) -> Page[Segment]:
    """List segments in order of position."""
    store, document = context.store, require_document(context)
    offset, size = compute_page_bounds(query.page, query.limit)
    rows, total = store.segments.list_page(
        document.id, query.keyword or "", query.status or (), offset, size
    )
    items = [serializers.serialize_segment(store, row) for row in rows]
    page = build_page(items, total, query.page, query.limit)
    return attrs.evolve(page, extra={"doc_form": document.doc_form})


@handles(catalog.GET_SEGMENT, ignore_body)
def get(context: RequestContext, _: None) -> SegmentResponse:
    """Return a segment."""
    return _build_response(context, require_segment(context))


@handles(catalog.UPDATE_SEGMENT, read_update)
def update(context: RequestContext, body: UpdateSegment) -> SegmentResponse:
    """Update a segment; a request that disables it changes nothing else (server source)."""
    row, changes, now = require_segment(context), body.segment, context.clock.now()
    locked_until = (row.disabled_at or 0) + context.settings.segment_lock
    if not row.enabled and not row.error and now < locked_until:
        raise invalid_param_error("Segment is indexing, please try again later")
    if row.enabled and changes.enabled is False:
        disabled_columns = {"enabled": 0, "disabled_at": now, "updated_at": now}
        return _update_segment(context, row, disabled_columns)
    if not row.enabled and not changes.enabled:
        raise invalid_param_error("Can't update disabled segment")
    columns = {
        "enabled": 1,
        "disabled_at": None,
        "updated_at": now,
        **_collect_answer_change(context, changes),
    }
    if changes.summary and context.dataset.has_summaries:
        columns["summary"] = changes.summary
    content = changes.content or row.content
    if content != row.content and _needs_answer(context, changes):
        failed = {"answer": None, "enabled": 0, "disabled_at": now, "status": "error"}
        failed["error"] = 'can only concatenate str (not "NoneType") to str'
        return _update_segment(context, row, failed)
    if content == row.content:
        columns |= _collect_keyword_change(context, row, changes)
    else:
        columns |= _collect_content_changes(context, content, changes)
    error = (
        _find_indexing_error(context, require_document(context))
        if _needs_indexing(context, changes, columns)
        else None
    )
    if error:
        columns |= {"enabled": 0, "disabled_at": now, "status": "error", "error": error}
    return _update_segment(
        context, row, columns, split_children=bool(changes.regenerate_child_chunks) and not error
    )


def _needs_answer(context: RequestContext, changes: SegmentChanges) -> bool:
    """Return whether the server counts the tokens of an answer that is missing (2008)."""
    is_qa = require_document(context).doc_form == DocForm.QA
    is_counted = context.dataset.is_high_quality and context.profile.quirks.fails_without_answer
    return is_qa and is_counted and not changes.answer


def _needs_indexing(
    context: RequestContext, changes: SegmentChanges, columns: Mapping[str, object]
) -> bool:
    """Return whether a change requires indexing; for parents, only to regenerate children."""
    if require_document(context).doc_form == DocForm.HIERARCHICAL:
        return bool(changes.regenerate_child_chunks)
    return "content" in columns or "keywords" in columns or bool(changes.enabled)


def _collect_content_changes(
    context: RequestContext, content: str, changes: SegmentChanges
) -> dict[str, object]:
    """Return the columns that change with the content.

    In high-quality datasets the keywords stay (recording 915).
    """
    now = context.clock.now()
    columns: dict[str, object] = {
        "content": content,
        "index_node_hash": _hash_content(content),
        "indexing_at": now,
        "completed_at": now,
        "edited": 1,
        "tokens": _count_tokens(context, content),
    }
    if not _uses_keywords(context):
        return columns
    return columns | {"keywords": json.dumps([*(changes.keywords or extract_keywords(content))])}


def _collect_answer_change(
    context: RequestContext, changes: SegmentChanges
) -> Mapping[str, object]:
    """Return the answer of a Q&A segment; a missing answer clears it (recording 627)."""
    is_qa = require_document(context).doc_form == DocForm.QA
    return {"answer": changes.answer or None} if is_qa else {}


def _collect_keyword_change(
    context: RequestContext, row: SegmentRow, changes: SegmentChanges
) -> dict[str, object]:
    """Return the keywords of unchanged content.

    Enabling a segment without sending keywords extracts new ones (recording 566).
    """
    if changes.keywords:
        previous = json.loads(row.keywords or "[]")
        changed = Counter(previous) != Counter(changes.keywords)
        return {"keywords": json.dumps([*changes.keywords])} if changed else {}
    segment_keywords = _extract_keywords(context, row.content) if changes.enabled else []
    return {"keywords": json.dumps(segment_keywords)} if segment_keywords else {}


def _update_segment(
    context: RequestContext,
    previous: SegmentRow,
    changes: Mapping[str, object],
    *,
    split_children: bool = False,
) -> SegmentResponse:
    """Write changes of a segment; `split_children` replaces its child chunks, too."""
    with context.store.transaction():
        row = context.store.update_segment(previous.id, **changes)
        if row is None:
            raise not_found_error("Segment not found.")
        document = require_document(context)
        if split_children and document.doc_form == DocForm.HIERARCHICAL:
            context.store.replace_children(row, _split_into_children(context, document, row))
        if row.word_count != previous.word_count:
            _add_word_count(context, row.document_id, row.word_count - previous.word_count)
    return _build_response(context, row)


def _build_response(context: RequestContext, row: SegmentRow) -> SegmentResponse:
    document = require_document(context)
    return SegmentResponse(
        data=serializers.serialize_segment(context.store, row),
        doc_form=DocForm(document.doc_form),
    )


@handles(catalog.DELETE_SEGMENT, ignore_body)
def delete(context: RequestContext, _: None) -> None:
    """Delete a segment; the other segments keep their positions (recording 583)."""
    row = require_segment(context)
    with context.store.transaction():
        context.store.delete_segment(row.id)
        _add_word_count(context, row.document_id, -row.word_count)


HANDLERS = (create, list_, get, update, delete)
