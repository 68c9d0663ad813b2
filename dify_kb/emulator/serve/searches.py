"""Reading what to search for, in the order and the words of the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dify_kb.emulator.payload import Check, Field, Payload, anything, items, record, text, words
from dify_kb.emulator.profile import Wording
from dify_kb.emulator.refused import RefusedError, invalid_param
from dify_kb.models import MAX_QUERY, ComparisonOperator, LogicalOperator, Retrieve, Weights
from dify_kb.wire import codec
from dify_kb.wire.codec import DecodeError

from .fields import RETRIEVAL_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dify_kb.emulator.context import Context
    from dify_kb.emulator.profile import Profile

_QUERY = Field(text(most=MAX_QUERY), required=True)

_TYPED = Payload("HitTestingPayload", {"query": _QUERY, "retrieval_model": Field(RETRIEVAL_MODEL)})
_LOOSE = Payload("HitTestingPayload", {"query": _QUERY, "retrieval_model": Field(anything)})

_NEEDED: Final = ("score_threshold_enabled", "reranking_enable", "search_method", "top_k")

_LISTED: Final = frozenset({ComparisonOperator.IN, ComparisonOperator.NOT_IN})


def _filter(operators: Iterable[ComparisonOperator]) -> Payload:
    condition: Check = record(
        {
            "name": Field(text(), required=True),
            "comparison_operator": Field(words([*operators]), required=True),
            "value": Field(anything),
        }
    )
    return Payload(
        "MetadataFilteringCondition",
        {
            "logical_operator": Field(words([*LogicalOperator])),
            "conditions": Field(items(condition)),
        },
    )


_FILTER: Final = _filter(ComparisonOperator)
_FILTER_BEFORE_1_8: Final = _filter([word for word in ComparisonOperator if word not in _LISTED])


def read_search(context: Context, raw: object) -> Retrieve:
    """Read a search; every version checks its filter with pydantic (recording 800)."""
    fields = _fields(context.profile, raw)
    model = fields.get("retrieval_model") or {}
    if not model:
        fields.pop("retrieval_model", None)
    conditions = model.get("metadata_filtering_conditions")
    if conditions:
        quirks = context.profile.quirks
        payload = _FILTER if quirks.in_operator else _FILTER_BEFORE_1_8
        read: dict[str, Any] = {"conditions": []}
        read |= payload.validate(conditions, context.profile)
        if quirks.passes_over_in:
            read["conditions"] = [
                condition
                for condition in read["conditions"] or ()
                if condition["comparison_operator"] not in _LISTED
            ]
        model["metadata_filtering_conditions"] = read
    return codec.decode(Retrieve, fields)


def _fields(profile: Profile, raw: object) -> dict[str, Any]:
    quirks = profile.quirks
    if quirks.typed_search:
        return _TYPED.read(raw, profile)
    if profile.wording is Wording.PYDANTIC:
        fields: dict[str, Any] = _LOOSE.read(raw, profile)
    else:
        fields = {**raw} if isinstance(raw, dict) else {}
        fields["query"] = _plain_query(fields.get("query"))
    if fields.get("retrieval_model"):
        _require(fields["retrieval_model"])
        fields["retrieval_model"] |= _weights(fields["retrieval_model"])
    return {name: fields[name] for name in ("query", "retrieval_model") if name in fields}


def _weights(model: dict[str, Any]) -> dict[str, Any]:
    """Take weights of another shape than theirs for empty ones: they fail later, if at all."""
    if not model.get("weights"):
        return {"weights": None}
    try:
        codec.decode(Weights, model["weights"])
    except DecodeError:
        return {"weights": {}}
    return {}


def _plain_query(query: object) -> str:
    """Read a query as servers before 1.11 do, a number too (recordings 763 to 767)."""
    asked = "" if query is None else str(query)
    if not 1 <= len(asked) <= MAX_QUERY:
        raise invalid_param(f"Query is required and cannot exceed {MAX_QUERY} characters")
    return asked


def _require(model: dict[str, Any]) -> None:
    """Fail on settings as a server does that takes them as they come (measured)."""
    for name in _NEEDED:
        if name not in model:
            raise RefusedError(500, "internal_server_error", repr(name))
    if not isinstance(model["top_k"], int):
        message = "slice indices must be integers or None or have an __index__ method"
        raise invalid_param(message)
