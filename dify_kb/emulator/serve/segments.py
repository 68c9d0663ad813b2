from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from dify_kb.corpus import keywords
from dify_kb.emulator import views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import Field, Payload, anything, flag, items, record, text
from dify_kb.emulator.refused import RefusedError, UncheckedError, invalid_param, not_found
from dify_kb.emulator.store import SegmentRow
from dify_kb.models import (
    UNSET,
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
from dify_kb.wire import catalog, codec

from .fields import bounds, page_of
from .found import document_of, segment_of
from .paging import lenient, strict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.store import DocumentRow

_CREATE = Payload("SegmentCreatePayload", {"segments": Field(items(anything), required=True)})

_UPDATE = Payload(
    "SegmentUpdatePayload",
    {
        "segment": Field(
            record(
                {
                    "content": Field(text()),
                    "answer": Field(text()),
                    "keywords": Field(items(text())),
                    "enabled": Field(flag),
                    "regenerate_child_chunks": Field(flag),
                    "attachment_ids": Field(items(text())),
                    "summary": Field(text()),
                }
            ),
            required=True,
        )
    },
)


def _read_create(context: Context, raw: object) -> CreateSegments:
    """Read new chunks, after a look at the document: the server checks in this order."""
    document = document_of(context)
    if document.indexing_status != "completed":
        raise not_found("Document is not completed.")
    if not document.enabled:
        raise not_found("Document is disabled.")
    asks = document.doc_form == DocForm.QA
    return CreateSegments(segments=[_new(item, asks=asks) for item in _sent(context, raw)])


def _sent(context: Context, raw: object) -> list[Any]:
    """Take the list, or refuse in an envelope that no other endpoint has (measured)."""
    body = raw if isinstance(raw, dict) else {}
    quirks = context.profile.quirks
    if body.get("segments") is None and not quirks.bare_segment_errors:
        raise _bare("Segments is required")
    if not quirks.typed_segments:
        return [*body["segments"]]
    try:
        read: Any = _CREATE.validate(body, context.profile)["segments"]
    except RefusedError as refused:
        if quirks.bare_segment_errors:
            raise _bare(refused.message) from refused
        raise
    return [*read]


def _bare(message: str) -> RefusedError:
    return RefusedError(400, "invalid_param", message, {"error": message})


def _new(item: Any, *, asks: bool) -> NewSegment:
    sent: dict[str, Any] = item if isinstance(item, dict) else {}
    if asks and not sent.get("answer"):
        raise invalid_param("Answer is required")
    if not sent.get("content"):
        raise invalid_param("Content is empty")
    if not _all_texts([sent["content"]]):
        raise UncheckedError(invalid_param("Content: Input should be a valid string"))
    if not sent["content"].strip():
        raise invalid_param("Content is empty")
    # A text counts as the list of its letters (recording 542).
    words = sent.get("keywords") or ()
    if not isinstance(words, str) and not (isinstance(words, list | tuple) and _all_texts(words)):
        raise UncheckedError(invalid_param("keywords: Input should be a list of strings"))
    return NewSegment(
        content=sent["content"],
        answer=sent["answer"] if asks else UNSET,
        keywords=[*words] if words else UNSET,
    )


def _all_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _read_list(context: Context, raw: Mapping[str, Any]) -> ListSegments:
    quirks = context.profile.quirks
    document_of(context)
    page, limit = lenient(raw)
    if quirks.strict_segment_query:
        page, limit = strict("SegmentListQuery", page, limit, context.profile)
    status = raw.get("status", UNSET)
    return ListSegments(
        page=page,
        limit=limit,
        keyword=raw.get("keyword", UNSET),
        status=[status] if isinstance(status, str) else status,
    )


def _read_update(context: Context, raw: object) -> UpdateSegment:
    segment_of(context)
    if not context.profile.quirks.typed_segments:
        body: Any = raw
        return UpdateSegment(segment=codec.decode(SegmentChanges, _without_nulls(body["segment"])))
    return codec.decode(UpdateSegment, _UPDATE.validate(raw, context.profile))


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


@serves(catalog.CREATE_SEGMENTS, _read_create)
def create(context: Context, body: CreateSegments) -> SegmentsCreated:
    """Append chunks, all of them or none; they are found at once (measured)."""
    store, document = context.store, document_of(context)
    with store.transaction():
        first = store.segments.next_position(document.id)
        rows = [
            _row(document, position, new, context.clock.now())
            for position, new in enumerate(body.segments, first)
        ]
        store.add_segments(rows)
        _count(context, document.id, sum(row.word_count for row in rows))
    return SegmentsCreated(
        data=[views.segment(store, row, document) for row in rows],
        doc_form=DocForm(document.doc_form),
    )


def _row(document: DocumentRow, position: int, new: NewSegment, now: float) -> SegmentRow:
    return SegmentRow(
        id=str(uuid.uuid4()),
        dataset_id=document.dataset_id,
        document_id=document.id,
        position=position,
        content=new.content,
        keywords=json.dumps([*(new.keywords or keywords(new.content))]),
        index_node_id=str(uuid.uuid4()),
        index_node_hash=_hash(new.content),
        status="completed",
        created_at=now,
        indexing_at=now,
        completed_at=now,
        answer=new.answer or None,
    )


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


@serves(catalog.LIST_SEGMENTS, _read_list)
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


@serves(catalog.UPDATE_SEGMENT, _read_update)
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
        return _changed(context, row, on | _new_keywords(row, changes))
    return _changed(
        context,
        row,
        on
        | {
            "content": content,
            "index_node_hash": _hash(content),
            "keywords": json.dumps([*(changes.keywords or keywords(content))]),
            "indexing_at": now,
            "completed_at": now,
            "edited": 1,
        },
    )


def _answered(context: Context, changes: SegmentChanges) -> Mapping[str, object]:
    """Set the answer of a question; one that is left out is cleared (recording 627)."""
    asks = document_of(context).doc_form == DocForm.QA
    return {"answer": changes.answer or None} if asks else {}


def _new_keywords(row: SegmentRow, changes: SegmentChanges) -> dict[str, object]:
    """Tell the keywords of a text that stays; enabling without any finds new ones (566)."""
    if changes.keywords:
        old = json.loads(row.keywords or "[]")
        changed = Counter(old) != Counter(changes.keywords)
        return {"keywords": json.dumps([*changes.keywords])} if changed else {}
    return {"keywords": json.dumps(keywords(row.content))} if changes.enabled else {}


def _changed(context: Context, old: SegmentRow, changes: Mapping[str, object]) -> SegmentAnswer:
    with context.store.transaction():
        row = context.store.change_segment(old.id, **changes)
        if row is None:
            raise not_found("Segment not found.")
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
