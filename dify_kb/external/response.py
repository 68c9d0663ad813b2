"""From what a retriever found to what Dify is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from .retriever import RetrievalRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .retriever import RetrievalRequest, Retriever

_CANDIDATES_PER_RESULT: Final = 10
"""Times top_k that a retriever which cannot filter is asked for, where there is a filter."""

MAX_CANDIDATES: Final = 100
"""Of these at most, unless top_k itself is more."""


class InvalidRecordsError(Exception):
    """A retriever did not give records."""


def applies_filter(retriever: Retriever) -> bool:
    """Tell whether a retriever applies the metadata condition."""
    return bool(getattr(retriever, "filters_metadata", False))


def widen_request(retriever: Retriever, query: RetrievalRequest) -> RetrievalRequest:
    """Ask for more than is wanted where some of it will be filtered out."""
    if query.metadata_condition is None or applies_filter(retriever):
        return query
    return evolve(
        query, top_k=max(query.top_k, min(_CANDIDATES_PER_RESULT * query.top_k, MAX_CANDIDATES))
    )


def build_response(
    records: Iterable[RetrievalRecord], query: RetrievalRequest, *, is_filtered: bool
) -> bytes:
    """Filter, sort, cut and write; Dify does none of it for an external base (server source).

    Raises:
        InvalidRecordsError: this is no iterable of records, or one has no text or number where one
            is needed.
    """
    validated = [_validate_record(record) for record in _to_list(records)]
    selected = [
        record
        for record in validated
        if record.score >= query.score_threshold and (is_filtered or query.matches(record.metadata))
    ]
    selected.sort(key=lambda record: -record.score)
    serialized = [_serialize_record(record) for record in selected[: query.top_k]]
    return dump_json({"records": serialized})


def dump_json(value: Mapping[str, object]) -> bytes:
    """Write JSON that every reader takes: what it has no word for as text, no half characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_json_value)
    except ValueError:
        text = json.dumps(_replace_non_finite(value), ensure_ascii=False, default=_to_json_value)
    return text.encode(errors="replace")


def _to_list(records: Any) -> list[object]:
    try:
        return [*records]
    except TypeError as error:
        raise InvalidRecordsError(f"it returned {type(records).__name__}, not records") from error


def _validate_record(record: object) -> RetrievalRecord:
    if not isinstance(record, RetrievalRecord):
        raise InvalidRecordsError(f"it returned {type(record).__name__} among the records")
    content: Any = record.content
    score: Any = record.score
    metadata: Any = record.metadata
    metadata = {} if metadata is None else metadata
    if not isinstance(content, str):
        raise InvalidRecordsError(f"a record's content is {type(content).__name__}, not a text")
    if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
        raise InvalidRecordsError(f"a record's score is {score!r}, not a number")
    if not isinstance(metadata, Mapping):
        raise InvalidRecordsError(
            f"a record's metadata is {type(metadata).__name__}, not a mapping"
        )
    return evolve(record, metadata=metadata)


def _serialize_record(record: RetrievalRecord) -> dict[str, object]:
    return {
        "content": record.content,
        "score": min(1.0, max(0.0, float(record.score))),
        "title": record.title,
        "metadata": {str(name): value for name, value in record.metadata.items()},
    }


def _to_json_value(value: object) -> object:
    """Write what JSON has no word for."""
    if isinstance(value, date):
        return value.isoformat()
    return [*value] if isinstance(value, set | frozenset | tuple) else str(value)


def _replace_non_finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(name): _replace_non_finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_replace_non_finite(item) for item in value]
        case _:
            return value
