"""Parse searches, with the checks and crashes of each server version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from dify_kb.emulator.errors import EmulatedError, invalid_param_error
from dify_kb.emulator.server_profile import ErrorStyle
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    ValidationErrors,
    Validator,
    accept_any,
    choice_validator,
    list_validator,
    object_validator,
    string_validator,
)
from dify_kb.models import (
    MAX_QUERY_LENGTH,
    ComparisonOperator,
    LogicalOperator,
    Retrieve,
    Weights,
)
from dify_kb.wire import codec
from dify_kb.wire.codec import DecodeError

from .common_fields import RETRIEVAL_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dify_kb.emulator.request_context import RequestContext
    from dify_kb.emulator.server_profile import ServerProfile

_PAYLOAD_FIELDS = {
    "query": BodyField(string_validator(max_length=MAX_QUERY_LENGTH), required=True),
    "attachment_ids": BodyField(list_validator(string_validator())),
}

_TYPED_PAYLOAD = BodySchema(
    "HitTestingPayload", {"retrieval_model": BodyField(RETRIEVAL_MODEL)} | _PAYLOAD_FIELDS
)

_UNTYPED_PAYLOAD = BodySchema(
    "HitTestingPayload", {"retrieval_model": BodyField(accept_any)} | _PAYLOAD_FIELDS
)

_REQUIRED_SETTINGS: Final = (
    "score_threshold_enabled",
    "reranking_enable",
    "search_method",
    "top_k",
)

_LIST_OPERATORS: Final = frozenset({ComparisonOperator.IN, ComparisonOperator.NOT_IN})

_VALUE_TYPES: Final = (
    ("str", "string", "string_type"),
    ("list[str]", "list", "list_type"),
    ("int", "integer", "int_type"),
    ("float", "number", "float_type"),
)


def _check_condition_value(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a value as pydantic does for a union: a problem for each of its types (1912, 1934)."""
    items = value if isinstance(value, list) else None
    if isinstance(value, str | int | float) or (
        items is not None and all(isinstance(item, str) for item in items)
    ):
        return value
    for type_name, description, error_type in _VALUE_TYPES:
        if items is not None and error_type == "list_type":
            list_validator(string_validator())(items, (*path, type_name), problems)
        else:
            text = f"Input should be a valid {description}"
            problems.add((*path, type_name), text, error_type, value)
    return value


def _build_filter_payload(operators: Iterable[ComparisonOperator]) -> BodySchema:
    condition: Validator = object_validator(
        {
            "name": BodyField(string_validator(), required=True),
            "comparison_operator": BodyField(choice_validator([*operators]), required=True),
            "value": BodyField(_check_condition_value),
        }
    )
    return BodySchema(
        "MetadataFilteringCondition",
        {
            "logical_operator": BodyField(choice_validator([*LogicalOperator])),
            "conditions": BodyField(list_validator(condition)),
        },
    )


_FILTER: Final = _build_filter_payload(ComparisonOperator)

_FILTER_BEFORE_1_8: Final = _build_filter_payload(
    [word for word in ComparisonOperator if word not in _LIST_OPERATORS]
)


def read_retrieve(context: RequestContext, raw: object) -> Retrieve:
    """Parse a search; every version checks its filter with pydantic (recording 800)."""
    fields = _read_fields(context.profile, raw)
    context.notes.has_attachments = bool(fields.pop("attachment_ids", None))
    model = fields.get("retrieval_model") or {}
    if not model:
        fields.pop("retrieval_model", None)
    filter_conditions = model.get("metadata_filtering_conditions")
    if filter_conditions is not None:
        quirks = context.profile.quirks
        payload = _FILTER if quirks.has_in_operator else _FILTER_BEFORE_1_8
        read = _validate_filter(context.profile, payload, filter_conditions)
        if "conditions" not in filter_conditions or filter_conditions["conditions"] is None:
            message = "'NoneType' object is not iterable"
            raise EmulatedError(500, "internal_server_error", message)
        if quirks.ignores_in_operator:
            read["conditions"] = [
                condition
                for condition in read["conditions"] or ()
                if condition["comparison_operator"] not in _LIST_OPERATORS
            ]
        if any(isinstance(condition.get("value"), bool) for condition in read["conditions"]):
            message = "(psycopg2.errors.UndefinedFunction) operator does not exist: text = boolean"
            raise EmulatedError(500, "internal_server_error", message)
        model["metadata_filtering_conditions"] = read
    return codec.decode(Retrieve, fields)


def _validate_filter(profile: ServerProfile, payload: BodySchema, raw: object) -> dict[str, Any]:
    """Validate a filter, since 1.13 as a part of the whole body (800)."""
    if not profile.quirks.validates_search:
        return payload.validate_with_pydantic(raw, profile)
    problems = ValidationErrors(profile)
    path = ("retrieval_model", "metadata_filtering_conditions")
    read: Any = object_validator(payload.fields)(raw, path, problems)
    if problems.messages:
        raise problems.to_error(_TYPED_PAYLOAD.title)
    return cast("dict[str, Any]", read)


def _read_fields(profile: ServerProfile, raw: object) -> dict[str, Any]:
    quirks = profile.quirks
    if quirks.validates_search:
        return _TYPED_PAYLOAD.validate(raw, profile)
    if profile.error_style is ErrorStyle.PYDANTIC:
        fields: dict[str, Any] = _UNTYPED_PAYLOAD.validate(raw, profile)
    else:
        fields = {**raw} if isinstance(raw, dict) else {}
        fields["query"] = _check_query_before_1_11(fields.get("query"))
    if fields.get("retrieval_model"):
        _check_settings(fields["retrieval_model"])
        fields["retrieval_model"] |= _empty_invalid_weights(fields["retrieval_model"])
    names = ("query", "retrieval_model", "attachment_ids")
    return {name: fields[name] for name in names if name in fields}


def _empty_invalid_weights(model: dict[str, Any]) -> dict[str, Any]:
    """Return empty weights in place of malformed ones, which fail later, if at all."""
    if not model.get("weights"):
        return {"weights": None}
    try:
        codec.decode(Weights, model["weights"])
    except DecodeError:
        return {"weights": {}}
    return {}


def _check_query_before_1_11(query: object) -> str:
    """Check a query as servers before 1.11 do; numbers are accepted (recordings 763 to 767)."""
    query_text = "" if query is None else str(query)
    if not 1 <= len(query_text) <= MAX_QUERY_LENGTH:
        raise invalid_param_error(
            f"Query is required and cannot exceed {MAX_QUERY_LENGTH} characters"
        )
    return query_text


def _check_settings(model: dict[str, Any]) -> None:
    """Fail on invalid settings like servers that do not validate them (measured)."""
    for name in _REQUIRED_SETTINGS:
        if name not in model:
            raise EmulatedError(500, "internal_server_error", repr(name))
    if not isinstance(model["top_k"], int):
        message = "slice indices must be integers or None or have an __index__ method"
        raise invalid_param_error(message)
