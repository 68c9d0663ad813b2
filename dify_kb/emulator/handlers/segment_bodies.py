"""Parse segment requests, with the order of checks and the messages of each server version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.errors import (
    EmulatedError,
    UnvalidatedInputError,
    invalid_param_error,
    not_found_error,
)
from dify_kb.emulator.request_context import require_document, require_segment
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    ValidationErrors,
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
    SegmentStatus,
    UpdateSegment,
)
from dify_kb.wire import codec

from .common_fields import check_page_and_limit, parse_page_and_limit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.emulator.request_context import RequestContext


_MAX_ATTACHMENTS: Final = 10
"""Maximum number of `attachment_ids` of a chunk (2234)."""

_CREATE = BodySchema(
    "SegmentCreatePayload", {"segments": BodyField(list_validator(accept_any), required=True)}
)


def _check_content(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    if isinstance(value, str) and value and not value.strip():
        problems.add(path, "Value error, Content is empty", "value_error", value)
    return string_validator(min_length=1)(value, path, problems)


_NEW_SEGMENTS = list_validator(
    object_validator(
        {
            "content": BodyField(_check_content, required=True),
            "answer": BodyField(string_validator()),
            "keywords": BodyField(list_validator(string_validator())),
            "attachment_ids": BodyField(list_validator(string_validator())),
        }
    ),
    min_length=1,
)

_CREATE_CHECKED = BodySchema(
    "SegmentCreatePayload", {"segments": BodyField(_NEW_SEGMENTS, required=True)}
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
    if quirks.bare_segment_errors:
        try:
            checked: Any = _CREATE_CHECKED.validate_with_pydantic(raw, context.profile)
        except EmulatedError as refused:
            raise _build_bare_error(refused.message) from refused
        return [*checked["segments"]]
    if body.get("segments") is None:
        raise _build_bare_error("Segments is required")
    if not quirks.validates_segments:
        return [*body["segments"]]
    read: Any = _CREATE.validate_with_pydantic(body, context.profile)["segments"]
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
        raise UnvalidatedInputError("the content is not a string")
    if not raw_fields["content"].strip():
        raise invalid_param_error("Content is empty")
    # A string counts as the list of its characters (recording 542).
    words = raw_fields.get("keywords") or ()
    if not isinstance(words, str) and not (isinstance(words, list | tuple) and _are_strings(words)):
        raise UnvalidatedInputError("the keywords are not a list of strings")
    _refuse_nul(raw_fields["content"], raw_fields.get("answer"))
    if len(raw_fields.get("attachment_ids") or ()) > _MAX_ATTACHMENTS:
        raise invalid_param_error(f"Exceeds maximum attachment limit of {_MAX_ATTACHMENTS}")
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
    if quirks.strict_segment_query and status and not _are_segment_statuses(status):
        raise UnvalidatedInputError(f"{status} is not a status of segments")
    return ListSegments(
        page=page,
        limit=limit,
        keyword=raw.get("keyword", UNSET),
        status=[status] if isinstance(status, str) else status,
    )


def _are_segment_statuses(status: str | Sequence[str]) -> bool:
    words = [status] if isinstance(status, str) else status
    return all(word in {*SegmentStatus} for word in words)


def read_update(context: RequestContext, raw: object) -> UpdateSegment:
    """Parse the changes of a segment after looking up the segment."""
    require_segment(context)
    if not context.profile.quirks.validates_segments:
        body: Any = raw
        update = UpdateSegment(
            segment=codec.decode(SegmentChanges, _without_nulls(body["segment"]))
        )
    else:
        update = codec.decode(UpdateSegment, _UPDATE.validate_with_pydantic(raw, context.profile))
    _refuse_nul(update.segment.content, update.segment.answer)
    return update


def _refuse_nul(*texts: object) -> None:
    if any("\0" in text for text in texts if isinstance(text, str)):
        raise UnvalidatedInputError("PostgreSQL stores no NUL in a text (1321)")


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
