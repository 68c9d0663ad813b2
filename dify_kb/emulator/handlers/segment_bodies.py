"""Parse segment requests, with the order of checks and the messages of each server version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dify_kb.emulator.errors import (
    EmulatedError,
    UnvalidatedInputError,
    invalid_param_error,
    not_found_error,
)
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    accept_any,
    list_validator,
    object_validator,
    string_validator,
    validate_boolean,
)
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

from .common_fields import check_page_and_limit, parse_page_and_limit
from .lookup import require_document, require_segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.request_context import RequestContext


_CREATE = BodySchema(
    "SegmentCreatePayload", {"segments": BodyField(list_validator(accept_any), required=True)}
)

_UPDATE = BodySchema(
    "SegmentUpdatePayload",
    {
        "segment": BodyField(
            object_validator(
                {
                    "content": BodyField(string_validator()),
                    "answer": BodyField(string_validator()),
                    "keywords": BodyField(list_validator(string_validator())),
                    "enabled": BodyField(validate_boolean),
                    "regenerate_child_chunks": BodyField(validate_boolean),
                    "attachment_ids": BodyField(list_validator(string_validator())),
                    "summary": BodyField(string_validator()),
                }
            ),
            required=True,
        )
    },
)


def read_create(context: RequestContext, raw: object) -> CreateSegments:
    """Parse new segments after checking the document, in the server's order."""
    document = require_document(context)
    if document.indexing_status != "completed":
        raise not_found_error("Document is not completed.")
    if not document.enabled:
        raise not_found_error("Document is disabled.")
    is_qa = document.doc_form == DocForm.QA
    return CreateSegments(
        segments=[
            _read_new_segment(raw_segment, is_qa=is_qa)
            for raw_segment in _read_segments(context, raw)
        ]
    )


def _read_segments(context: RequestContext, raw: object) -> list[Any]:
    """Return the list of segments; errors have an envelope unique to this endpoint (measured)."""
    body = raw if isinstance(raw, dict) else {}
    quirks = context.profile.quirks
    if body.get("segments") is None and not quirks.bare_segment_errors:
        raise _build_bare_error("Segments is required")
    if not quirks.validates_segments:
        return [*body["segments"]]
    try:
        read: Any = _CREATE.validate_with_pydantic(body, context.profile)["segments"]
    except EmulatedError as refused:
        if quirks.bare_segment_errors:
            raise _build_bare_error(refused.message) from refused
        raise
    return [*read]


def _build_bare_error(message: str) -> EmulatedError:
    return EmulatedError(400, "invalid_param", message, {"error": message})


def _read_new_segment(raw_segment: Any, *, is_qa: bool) -> NewSegment:
    raw_fields: dict[str, Any] = raw_segment if isinstance(raw_segment, dict) else {}
    if is_qa and not raw_fields.get("answer"):
        raise invalid_param_error("Answer is required")
    if not raw_fields.get("content"):
        raise invalid_param_error("Content is empty")
    if not _are_strings([raw_fields["content"]]):
        raise UnvalidatedInputError(invalid_param_error("Content: Input should be a valid string"))
    if not raw_fields["content"].strip():
        raise invalid_param_error("Content is empty")
    # A string counts as the list of its characters (recording 542).
    words = raw_fields.get("keywords") or ()
    if not isinstance(words, str) and not (isinstance(words, list | tuple) and _are_strings(words)):
        raise UnvalidatedInputError(
            invalid_param_error("keywords: Input should be a list of strings")
        )
    return NewSegment(
        content=raw_fields["content"],
        answer=raw_fields["answer"] if is_qa else UNSET,
        keywords=[*words] if words else UNSET,
    )


def _are_strings(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def read_list(context: RequestContext, raw: Mapping[str, Any]) -> ListSegments:
    """Parse the query that lists segments."""
    quirks = context.profile.quirks
    require_document(context)
    page, limit = parse_page_and_limit(raw)
    if quirks.strict_segment_query:
        page, limit = check_page_and_limit("SegmentListQuery", page, limit, context.profile)
    status = raw.get("status", UNSET)
    return ListSegments(
        page=page,
        limit=limit,
        keyword=raw.get("keyword", UNSET),
        status=[status] if isinstance(status, str) else status,
    )


def read_update(context: RequestContext, raw: object) -> UpdateSegment:
    """Parse the changes of a segment after looking up the segment."""
    require_segment(context)
    if not context.profile.quirks.validates_segments:
        body: Any = raw
        return UpdateSegment(segment=codec.decode(SegmentChanges, _without_nulls(body["segment"])))
    return codec.decode(UpdateSegment, _UPDATE.validate_with_pydantic(raw, context.profile))


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
