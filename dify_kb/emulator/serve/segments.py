from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from dify_kb.corpus import ChunkError, children, keywords
from dify_kb.emulator import stand_ins, views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.refused import invalid_param, not_found
from dify_kb.emulator.runs import children_of, rule_of
from dify_kb.emulator.stand_ins import ModelError
from dify_kb.emulator.store import SegmentRow
from dify_kb.models import (
    CreateSegments,
    DocForm,
    ListSegments,
    NewSegment,
    Page,
    Segment,
    SegmentAnswer,
    SegmentChanges,
    SegmentsCreated,
    UpdateSegment,
)
from dify_kb.wire import catalog

from .fields import bounds, page_of
from .found import document_of, segment_of
from .segment_bodies import read_create, read_list, read_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import ChildChunkRow, DocumentRow


@serves(catalog.CREATE_SEGMENTS, read_create)
def create(context: Context, body: CreateSegments) -> SegmentsCreated:
    """Append chunks, all of them or none; they are found at once (measured)."""
    store, document = context.store, document_of(context)
    with store.transaction():
        first = store.segments.next_position(document.id)
        rows = [
            _row(context, document, position, new)
            for position, new in enumerate(body.segments, first)
        ]
        children = [child for row in rows if row.enabled for child in _cut(context, document, row)]
        store.add_segments(rows, children)
        _count(context, document.id, sum(row.word_count for row in rows))
    return SegmentsCreated(
        data=[views.segment(store, row, document) for row in rows],
        doc_form=DocForm(document.doc_form),
    )


def _row(context: Context, document: DocumentRow, position: int, new: NewSegment) -> SegmentRow:
    """Make a chunk; one that cannot be indexed is made all the same, with the error in it (953)."""
    now, error = context.clock.now(), _error(context, document)
    found = [*(new.keywords or ())] if new.keywords else _keywords(context, new.content)
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=document.dataset_id,
        document_id=document.id,
        position=position,
        content=new.content,
        keywords=json.dumps(found),
        index_node_id=str(uuid.uuid4()),
        index_node_hash=_hash(new.content),
        status="error" if error else "completed",
        created_at=now,
        indexing_at=now,
        completed_at=now,
        answer=new.answer or None,
        enabled=0 if error else 1,
        disabled_at=now if error else None,
        tokens=_tokens(context, new.content),
        error=error,
    )


def _keywords(context: Context, content: str) -> list[str]:
    """Tell the keywords of a new text; a high-quality base finds none itself (recording 953)."""
    return keywords(content) if _has_keywords(context) else []


def _has_keywords(context: Context) -> bool:
    """Tell whether chunks are looked through for keywords: in an economy base, and up to 1.4 in
    every other, but for parents (measured).
    """
    everywhere = context.profile.quirks.keywords_everywhere
    parents = document_of(context).doc_form == DocForm.HIERARCHICAL
    return not context.dataset.high_quality or (everywhere and not parents)


def _tokens(context: Context, content: str) -> int:
    return stand_ins.tokens(content) if context.dataset.high_quality else 0


def _error(context: Context, document: DocumentRow) -> str | None:
    """Tell why a chunk of this document cannot be indexed, in the server's words."""
    dataset = context.dataset
    if not dataset.high_quality:
        if document.doc_form == DocForm.HIERARCHICAL:
            return "The knowledge base index technique is not high quality!"
        return None
    try:
        stand_ins.require_embedding(dataset.embedding_provider, dataset.embedding_model)
        context.invoke(stand_ins.EMBEDDING)
    except ModelError as error:
        return str(error)
    return None


def _cut(context: Context, document: DocumentRow, row: SegmentRow) -> list[ChildChunkRow]:
    """Cut a chunk into children by the rule of its document; without one there are none."""
    if document.doc_form != DocForm.HIERARCHICAL:
        return []
    try:
        contents = children(row.content, rule_of(context.store, document))
    except ChunkError:
        return []
    return children_of(row.id, contents, context.clock.now())


def _hash(content: str) -> str:
    # Dify hashes the text with "None" at its end (recording 752).
    return hashlib.sha256(f"{content}None".encode(errors="replace")).hexdigest()


def _count(context: Context, document_id: str, more: int) -> None:
    """Keep the words of a document in step with its chunks."""
    row = context.store.documents.find(document_id)
    if row is not None:
        words = max(0, (row.word_count or 0) + more)
        now = context.clock.now()
        context.store.documents.update(document_id, word_count=words, updated_at=now)


@serves(catalog.LIST_SEGMENTS, read_list)
def list_(context: Context, query: ListSegments) -> Page[Segment]:
    """List chunks in their order."""
    store, document = context.store, document_of(context)
    offset, size = bounds(query.page, query.limit)
    rows, total = store.segments.page(
        document.id, query.keyword or "", query.status or (), offset, size
    )
    shown = [views.segment(store, row, document) for row in rows]
    page = page_of(shown, total, query.page, query.limit)
    return attrs.evolve(page, extra={"doc_form": document.doc_form})


@serves(catalog.GET_SEGMENT, nothing)
def get(context: Context, _: None) -> SegmentAnswer:
    """Show a chunk."""
    return _answer(context, segment_of(context))


@serves(catalog.UPDATE_SEGMENT, read_update)
def update(context: Context, body: UpdateSegment) -> SegmentAnswer:
    """Change a chunk; whoever disables one changes nothing else of it (server source)."""
    row, changes, now = segment_of(context), body.segment, context.clock.now()
    if row.enabled and changes.enabled is False:
        off = {"enabled": 0, "disabled_at": now, "updated_at": now}
        return _changed(context, row, off)
    if not row.enabled and not changes.enabled:
        raise invalid_param("Can't update disabled segment")
    on = {"enabled": 1, "disabled_at": None, "updated_at": now, **_answered(context, changes)}
    content = changes.content or row.content
    if content == row.content:
        on |= _new_keywords(context, row, changes)
    else:
        on |= _new_content(context, content, changes)
    error = _error(context, document_of(context)) if _indexes(context, changes, on) else None
    if error:
        on |= {"enabled": 0, "disabled_at": now, "status": "error", "error": error}
    return _changed(context, row, on, cut=bool(changes.regenerate_child_chunks) and not error)


def _indexes(context: Context, changes: SegmentChanges, on: Mapping[str, object]) -> bool:
    """Tell whether a change asks for the index: of a parent, only when its children are to go."""
    if document_of(context).doc_form == DocForm.HIERARCHICAL:
        return bool(changes.regenerate_child_chunks)
    return "content" in on or "keywords" in on or bool(changes.enabled)


def _new_content(context: Context, content: str, changes: SegmentChanges) -> dict[str, object]:
    """Tell what comes with another text; a high-quality base keeps its keywords (recording 915)."""
    now = context.clock.now()
    new: dict[str, object] = {
        "content": content,
        "index_node_hash": _hash(content),
        "indexing_at": now,
        "completed_at": now,
        "edited": 1,
        "tokens": _tokens(context, content),
    }
    if not _has_keywords(context):
        return new
    return new | {"keywords": json.dumps([*(changes.keywords or keywords(content))])}


def _answered(context: Context, changes: SegmentChanges) -> Mapping[str, object]:
    """Set the answer of a question; one that is left out is cleared (recording 627)."""
    asks = document_of(context).doc_form == DocForm.QA
    return {"answer": changes.answer or None} if asks else {}


def _new_keywords(context: Context, row: SegmentRow, changes: SegmentChanges) -> dict[str, object]:
    """Tell the keywords of a text that stays; enabling without any finds new ones (566)."""
    if changes.keywords:
        old = json.loads(row.keywords or "[]")
        changed = Counter(old) != Counter(changes.keywords)
        return {"keywords": json.dumps([*changes.keywords])} if changed else {}
    found = _keywords(context, row.content) if changes.enabled else []
    return {"keywords": json.dumps(found)} if found else {}


def _changed(
    context: Context, old: SegmentRow, changes: Mapping[str, object], *, cut: bool = False
) -> SegmentAnswer:
    """Write changes of a chunk, and `cut` it into other children."""
    with context.store.transaction():
        row = context.store.change_segment(old.id, **changes)
        if row is None:
            raise not_found("Segment not found.")
        document = document_of(context)
        if cut and document.doc_form == DocForm.HIERARCHICAL:
            context.store.put_children(row, _cut(context, document, row))
        if row.word_count != old.word_count:
            _count(context, row.document_id, row.word_count - old.word_count)
    return _answer(context, row)


def _answer(context: Context, row: SegmentRow) -> SegmentAnswer:
    document = document_of(context)
    return SegmentAnswer(
        data=views.segment(context.store, row, document), doc_form=DocForm(document.doc_form)
    )


@serves(catalog.DELETE_SEGMENT, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a chunk; the positions of the others stay (recording 583)."""
    row = segment_of(context)
    with context.store.transaction():
        context.store.delete_segment(row.id)
        _count(context, row.document_id, -row.word_count)


HANDLERS = (create, list_, get, update, delete)
