"""Reading the bodies of calls about chunks, in the order and the words of the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dify_kb.emulator.payload import Field, Payload, anything, flag, items, record, text
from dify_kb.emulator.refused import RefusedError, UncheckedError, invalid_param, not_found
from dify_kb.models import (
    UNSET,
    CreateSegments,
    DocForm,
    ListSegments,
    NewSegment,
    SegmentChanges,
    UpdateSegment,
)
from dify_kb.wire import codec

from .found import document_of, segment_of
from .paging import lenient, strict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.context import Context


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


def read_create(context: Context, raw: object) -> CreateSegments:
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


def read_list(context: Context, raw: Mapping[str, Any]) -> ListSegments:
    """Read which chunks are asked for."""
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


def read_update(context: Context, raw: object) -> UpdateSegment:
    """Read changes of a chunk, after a look at the chunk."""
    segment_of(context)
    if not context.profile.quirks.typed_segments:
        body: Any = raw
        return UpdateSegment(segment=codec.decode(SegmentChanges, _without_nulls(body["segment"])))
    return codec.decode(UpdateSegment, _UPDATE.validate(raw, context.profile))


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
