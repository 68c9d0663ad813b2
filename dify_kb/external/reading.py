"""From the bytes of a request to a `RetrievalRequest`; what is wrong is told in one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dify_kb.models import ComparisonOperator, Condition, LogicalOperator, MetadataFilter

from .contract import RetrievalRequest
from .refused import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_TOP_K: Final = 4
"""Where Dify sends null: the dataset has no settings stored."""

_ALSO: Final[Mapping[str, str]] = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}
"""Spellings in ASCII, which Dify's own filter knows as well."""

_SHOWN: Final = 60
"""Characters of a wrong value that are told."""


def read_request(body: bytes, content_type: str, *, max_top_k: int) -> RetrievalRequest:
    """Read what Dify asks (core/rag/datasource and services/external_knowledge_service.py @1.12.1).

    Raises:
        RefusedError: 400 or 415, what is wrong with it.
    """
    if not body.strip():
        # Dify's probe when the API is registered: anything but 404, 403, 429 and 5xx is well.
        raise RefusedError(400, "The body is empty; a retrieval is a JSON object.")
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise RefusedError(415, "The Content-Type must be application/json.")
    fields = _object(_parsed(body), "The body")
    setting = _object(_needed(fields, "retrieval_setting"), "retrieval_setting")
    return RetrievalRequest(
        knowledge_id=_text(_needed(fields, "knowledge_id"), "knowledge_id"),
        query=_text(_needed(fields, "query"), "query"),
        top_k=min(_top_k(setting.get("top_k")), max_top_k),
        score_threshold=_threshold(setting.get("score_threshold")),
        metadata_condition=_condition(fields.get("metadata_condition")),
    )


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "The body is not JSON.") from error


def _needed(fields: Mapping[str, Any], name: str) -> object:
    if name not in fields:
        raise RefusedError(400, f"{name} is missing.")
    return fields[name]


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError(400, f"{name} is {_shown(value)}, not an object.")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RefusedError(400, f"{name} is {_shown(value)}, not a text.")
    # Half a surrogate pair, which JSON can hold, is no text for anything behind us.
    return value.encode(errors="replace").decode()


def _top_k(value: object) -> int:
    if value is None:
        return DEFAULT_TOP_K
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        what = f"retrieval_setting.top_k is {_shown(value)}, not a number from 1."
        raise RefusedError(400, what)
    return value


def _threshold(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        what = f"retrieval_setting.score_threshold is {_shown(value)}, not a number from 0 to 1."
        raise RefusedError(400, what)
    return float(value)


def _condition(value: object) -> MetadataFilter | None:
    if value is None:
        return None
    fields = _object(value, "metadata_condition")
    conditions = fields.get("conditions")
    if not conditions:
        return None
    if not isinstance(conditions, list):
        what = f"metadata_condition.conditions is {_shown(conditions)}, not a list."
        raise RefusedError(400, what)
    return MetadataFilter(
        logical_operator=_joined(fields),
        conditions=[one for entry in conditions for one in _conditions(entry)],
    )


def _joined(fields: Mapping[str, Any]) -> LogicalOperator:
    """Take `and` where nothing is said, and `or` where null is (Dify's own filter)."""
    value = fields.get("logical_operator", "and")
    if value not in {"and", "or", None}:
        what = f"metadata_condition.logical_operator is {_shown(value)}; it can be and, or."
        raise RefusedError(400, what)
    return LogicalOperator(value or "or")


def _conditions(entry: object) -> Iterator[Condition]:
    """Read one condition; one for each name where a list of names is sent (the API's page)."""
    fields = _object(entry, "A condition")
    name = _needed(fields, "name")
    operator = _operator(_needed(fields, "comparison_operator"))
    value = _value(fields.get("value"))
    for one in name if isinstance(name, list) else [name]:
        yield Condition(
            name=_text(one, "The name of a condition"), comparison_operator=operator, value=value
        )


def _operator(value: object) -> ComparisonOperator:
    given = _text(value, "comparison_operator")
    operator = ComparisonOperator(_ALSO.get(given, given))
    if not operator.known:
        what = f"comparison_operator is {_shown(given)}; it can be {', '.join(ComparisonOperator)}."
        raise RefusedError(400, what)
    return operator


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [one if isinstance(one, str) else json.dumps(one) for one in value]
    if isinstance(value, bool | dict):
        what = f"The value of a condition is {_shown(value)}; it can be text, number, list, null."
        raise RefusedError(400, what)
    return value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
