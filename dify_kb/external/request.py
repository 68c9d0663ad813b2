"""Parse and validate the body of a retrieval request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dify_kb.models import ComparisonOperator, Condition, LogicalOperator, MetadataFilter

from .retriever import RetrievalRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


INVALID_AUTHORIZATION: Final = 1001
"""Error code: the Authorization header is not `Bearer <api-key>`."""

INVALID_API_KEY: Final = 1002
"""Error code: the API key is unknown."""

UNKNOWN_KNOWLEDGE_ID: Final = 2001
"""Error code: the knowledge base does not exist."""

DEFAULT_TOP_K: Final = 4
"""Used if Dify sends null because the dataset has no stored settings."""

_OPERATOR_ALIASES: Final[Mapping[str, str]] = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}
"""ASCII spellings, which Dify's own filter accepts too."""

_MAX_SHOWN_CHARACTERS: Final = 60
"""Characters of an invalid value that are shown in messages."""


class RequestRejectedError(Exception):
    """Raised for an invalid request; sent as `{"error_code", "error_msg"}`.

    Dify shows the message to users unchanged. `code` is one of Dify's three error codes (External
    Knowledge API page), else the status.
    """

    def __init__(self, status: int, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = status if code is None else code


def parse_request(body: bytes, content_type: str, *, max_top_k: int) -> RetrievalRequest:
    """Parse the body of a retrieval request.

    Sources: core/rag/datasource and services/external_knowledge_service.py @1.12.1.

    Raises:
        RequestRejectedError: 400 or 415 with the reason.
    """
    if not body.strip():
        # Dify probes with an empty body on registration and accepts all but 404, 403, 429 and 5xx.
        raise RequestRejectedError(400, "The body is empty; expected a JSON object.")
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise RequestRejectedError(415, "The Content-Type must be application/json.")
    fields = _require_object(_parse_json(body), "The body")
    setting = _require_object(_require_key(fields, "retrieval_setting"), "retrieval_setting")
    return RetrievalRequest(
        knowledge_id=_require_text(_require_key(fields, "knowledge_id"), "knowledge_id"),
        query=_require_text(_require_key(fields, "query"), "query"),
        top_k=min(_parse_top_k(setting.get("top_k")), max_top_k),
        score_threshold=_parse_threshold(setting.get("score_threshold")),
        metadata_condition=_parse_metadata_condition(fields.get("metadata_condition")),
    )


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRejectedError(400, "The body is not valid JSON.") from error


def _require_key(fields: Mapping[str, Any], name: str) -> object:
    if name not in fields:
        raise RequestRejectedError(400, f"{name} is missing.")
    return fields[name]


def _require_object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestRejectedError(400, f"{name} is {_format_value(value)}, not an object.")
    return value


def _require_text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RequestRejectedError(400, f"{name} is {_format_value(value)}, not a string.")
    # JSON may contain an unpaired surrogate, which retrievers cannot encode.
    return value.encode(errors="replace").decode()


def _parse_top_k(value: object) -> int:
    if value is None:
        return DEFAULT_TOP_K
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        message = f"retrieval_setting.top_k is {_format_value(value)}, not a positive integer."
        raise RequestRejectedError(400, message)
    return value


def _parse_threshold(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        message = (
            f"retrieval_setting.score_threshold is {_format_value(value)},"
            " not a number from 0 to 1."
        )
        raise RequestRejectedError(400, message)
    return float(value)


def _parse_metadata_condition(value: object) -> MetadataFilter | None:
    if value is None:
        return None
    fields = _require_object(value, "metadata_condition")
    conditions = fields.get("conditions")
    if not conditions:
        return None
    if not isinstance(conditions, list):
        message = f"metadata_condition.conditions is {_format_value(conditions)}, not a list."
        raise RequestRejectedError(400, message)
    return MetadataFilter(
        logical_operator=_parse_logical_operator(fields),
        conditions=[condition for entry in conditions for condition in _parse_conditions(entry)],
    )


def _parse_logical_operator(fields: Mapping[str, Any]) -> LogicalOperator:
    """Return the logical operator: `and` if missing, `or` if null (as in Dify's own filter)."""
    value = fields.get("logical_operator", "and")
    if value not in {"and", "or", None}:
        message = (
            f"metadata_condition.logical_operator is {_format_value(value)}; expected and, or."
        )
        raise RequestRejectedError(400, message)
    return LogicalOperator(value or "or")


def _parse_conditions(entry: object) -> Iterator[Condition]:
    """Yield the condition, or one per name if `name` is a list (External Knowledge API page)."""
    fields = _require_object(entry, "A condition")
    name = _require_key(fields, "name")
    operator = _parse_operator(_require_key(fields, "comparison_operator"))
    value = _parse_value(fields.get("value"))
    for field_name in name if isinstance(name, list) else [name]:
        yield Condition(
            name=_require_text(field_name, "The name of a condition"),
            comparison_operator=operator,
            value=value,
        )


def _parse_operator(value: object) -> ComparisonOperator:
    symbol = _require_text(value, "comparison_operator")
    operator = ComparisonOperator(_OPERATOR_ALIASES.get(symbol, symbol))
    if not operator.is_known:
        operators = ", ".join(ComparisonOperator)
        message = f"comparison_operator is {_format_value(symbol)}; expected {operators}."
        raise RequestRejectedError(400, message)
    return operator


def _parse_value(value: Any) -> Any:
    if isinstance(value, list):
        return [item if isinstance(item, str) else json.dumps(item) for item in value]
    if isinstance(value, bool | dict):
        message = (
            f"The value of a condition is {_format_value(value)};"
            " expected a string, a number, a list or null."
        )
        raise RequestRejectedError(400, message)
    return value


def _format_value(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"
