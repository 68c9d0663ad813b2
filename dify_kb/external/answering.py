"""From what a retriever found to what Dify is sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from .contract import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .contract import RetrievalRequest, Retriever

_MORE: Final = 10
"""Times top_k that a retriever which cannot filter is asked for, where there is a filter."""

MAX_CANDIDATES: Final = 100
"""Of these at most, unless top_k itself is more."""


class BadRecordsError(Exception):
    """A retriever did not give records."""


def filters_itself(retriever: Retriever) -> bool:
    """Tell whether a retriever applies the metadata condition."""
    return bool(getattr(retriever, "filters_metadata", False))


def asked_of(retriever: Retriever, query: RetrievalRequest) -> RetrievalRequest:
    """Ask for more than is wanted where some of it will be filtered out."""
    if query.metadata_condition is None or filters_itself(retriever):
        return query
    return evolve(query, top_k=max(query.top_k, min(_MORE * query.top_k, MAX_CANDIDATES)))


def answered(found: Iterable[Record], query: RetrievalRequest, *, filtered: bool) -> bytes:
    """Filter, sort, cut and write; Dify does none of it for an external base (server source).

    Raises:
        BadRecordsError: this is no iterable of records, or one has no text or number where one
            is needed.
    """
    records = [_checked(record) for record in _iterated(found)]
    kept = [
        record
        for record in records
        if record.score >= query.score_threshold and (filtered or query.allows(record.metadata))
    ]
    kept.sort(key=lambda record: -record.score)
    shown = [_shown(record) for record in kept[: query.top_k]]
    return dumped({"records": shown})


def dumped(value: Mapping[str, object]) -> bytes:
    """Write JSON that every reader takes: what it has no word for as text, no half characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=_plain)
    return text.encode(errors="replace")


def _iterated(found: Any) -> list[object]:
    try:
        return [*found]
    except TypeError as error:
        raise BadRecordsError(f"it returned {type(found).__name__}, not records") from error


def _checked(record: object) -> Record:
    if not isinstance(record, Record):
        raise BadRecordsError(f"it returned {type(record).__name__} among the records")
    content: Any = record.content
    score: Any = record.score
    metadata: Any = record.metadata
    metadata = {} if metadata is None else metadata
    if not isinstance(content, str):
        raise BadRecordsError(f"a record's content is {type(content).__name__}, not a text")
    if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
        raise BadRecordsError(f"a record's score is {score!r}, not a number")
    if not isinstance(metadata, Mapping):
        raise BadRecordsError(f"a record's metadata is {type(metadata).__name__}, not a mapping")
    return evolve(record, metadata=metadata)


def _shown(record: Record) -> dict[str, object]:
    return {
        "content": record.content,
        "score": min(1.0, max(0.0, float(record.score))),
        "title": record.title,
        "metadata": {str(name): value for name, value in record.metadata.items()},
    }


def _plain(value: object) -> object:
    """Write what JSON has no word for."""
    if isinstance(value, date):
        return value.isoformat()
    return [*value] if isinstance(value, set | frozenset | tuple) else str(value)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(name): _finite(one) for name, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case _:
            return value
