"""Build the response body for Dify from the records of a retriever."""

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
"""Records per result (times `top_k`) requested if the server has to filter them."""

MAX_CANDIDATES: Final = 100
"""Maximum of these records, unless `top_k` is higher."""


class InvalidRecordsError(Exception):
    """Raised if a retriever returned something other than valid records."""


def applies_filter(retriever: Retriever) -> bool:
    """Return whether a retriever applies the metadata condition itself."""
    return bool(getattr(retriever, "filters_metadata", False))


def widen_request(retriever: Retriever, query: RetrievalRequest) -> RetrievalRequest:
    """Increase `top_k` if the server will filter the records of the retriever."""
    if query.metadata_condition is None or applies_filter(retriever):
        return query
    return evolve(
        query, top_k=max(query.top_k, min(_CANDIDATES_PER_RESULT * query.top_k, MAX_CANDIDATES))
    )


def build_response(
    records: Iterable[RetrievalRecord], query: RetrievalRequest, *, is_filtered: bool
) -> bytes:
    """Filter, sort, truncate and serialize records; Dify does not do this (server source).

    Raises:
        InvalidRecordsError: `records` is not an iterable of records, or a field of a record has the
            wrong type.
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
    """Return strict UTF-8 JSON: no NaN, no unpaired surrogates, unknown types as strings."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_json_value)
    except ValueError:
        text = json.dumps(_replace_non_finite(value), ensure_ascii=False, default=_to_json_value)
    return text.encode(errors="replace")


def _to_list(records: Any) -> list[object]:
    try:
        return [*records]
    except TypeError as error:
        raise InvalidRecordsError(
            f"the retriever returned {type(records).__name__}, not records"
        ) from error


def _validate_record(record: object) -> RetrievalRecord:
    if not isinstance(record, RetrievalRecord):
        raise InvalidRecordsError(
            f"the retriever returned {type(record).__name__} among the records"
        )
    content: Any = record.content
    score: Any = record.score
    metadata: Any = record.metadata
    metadata = {} if metadata is None else metadata
    if not isinstance(content, str):
        raise InvalidRecordsError(f"a record's content is {type(content).__name__}, not a string")
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
    """Convert a value that JSON cannot represent."""
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
