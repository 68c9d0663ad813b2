"""Evaluate metadata filters on documents, as the server does for its own datasets."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dify_kb.models import Condition, MetadataFilter


class FilterError(ValueError):
    """Raised if a filter contains an unknown comparison operator."""


def matches_filter(
    metadata: Mapping[str, object],
    metadata_filter: MetadataFilter,
    *,
    strict_types: bool = False,
    parse_dates: bool = False,
) -> bool:
    """Return whether a document with this metadata (values by field name) matches the filter.

    Conditions without a value are skipped, except `empty` and `not empty`; a filter without
    remaining conditions matches every document. A missing or null field matches only `empty`, and
    `not in` with an empty list. With `strict_types` a text never equals a number, as on servers
    before 1.11 (recording 789). With `parse_dates`, `before` and `after` accept ISO 8601 texts, in
    UTC if they have no offset; the server itself does not.

    Raises:
        FilterError: a comparison operator is unknown.
    """
    results = [
        _matches_condition(metadata, condition, strict_types=strict_types, parse_dates=parse_dates)
        for condition in metadata_filter.conditions
        if _is_applicable(condition)
    ]
    if not results:
        return True
    return all(results) if metadata_filter.logical_operator == "and" else any(results)


def _is_applicable(condition: Condition) -> bool:
    if condition.comparison_operator not in _COMPARISONS:
        raise FilterError(f"Unknown comparison operator {str(condition.comparison_operator)!r}")
    return condition.value is not None or condition.comparison_operator in _OPERATORS_WITHOUT_VALUE


def _matches_condition(
    metadata: Mapping[str, object], condition: Condition, *, strict_types: bool, parse_dates: bool
) -> bool:
    stored, value, operator = (
        metadata.get(condition.name),
        condition.value,
        condition.comparison_operator,
    )
    if operator == "not in" and not _to_options(value):
        return True
    if stored is None:
        return operator == "empty"
    if strict_types and isinstance(value, str) and not isinstance(stored, str):
        if operator in _EQUAL_OPERATORS:
            return False
        if operator in _UNEQUAL_OPERATORS:
            return True
    if parse_dates and operator in _TIME_OPERATORS:
        return _COMPARISONS[operator](_to_timestamp(stored), _to_timestamp(value))
    return _COMPARISONS[operator](stored, value)


def _to_timestamp(value: object) -> object:
    """Convert a date or its ISO text to seconds since the epoch; return other values unchanged."""
    if not isinstance(value, str | date) or _to_number(value) is not None:
        return value
    try:
        time = datetime.fromisoformat(_to_text(value))
    except ValueError:
        return value
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()


def _to_text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _to_number(value: object) -> float | None:
    if isinstance(value, str | int | float):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return None


def _is_equal(stored: object, value: object) -> bool:
    """Compare as numbers if `value` is a number, else as texts: "10" equals the number 10."""
    if isinstance(value, int | float):
        return _to_number(stored) == value
    return _to_text(stored) == _to_text(value)


def _to_options(value: object) -> list[str]:
    """Return the values of a list or of a comma-separated text, as texts."""
    if isinstance(value, str):
        return [option.strip() for option in value.split(",") if option.strip()]
    if isinstance(value, list | tuple):
        return [_to_text(option) for option in value if option is not None]
    return [] if value is None else [_to_text(value)]


def _numeric_comparison(
    compare: Callable[[float, float], bool],
) -> Callable[[object, object], bool]:
    def test(stored: object, value: object) -> bool:
        left, right = _to_number(stored), _to_number(value)
        # A value that is not a number is neither less nor greater than a number.
        return left is not None and right is not None and compare(left, right)

    return test


_is_less = _numeric_comparison(lambda left, right: left < right)
_is_greater = _numeric_comparison(lambda left, right: left > right)
_is_at_most = _numeric_comparison(lambda left, right: left <= right)
_is_at_least = _numeric_comparison(lambda left, right: left >= right)

_EQUAL_OPERATORS: Final = frozenset({"is", "="})
_UNEQUAL_OPERATORS: Final = frozenset({"is not", "≠", "!="})
_TIME_OPERATORS: Final = frozenset({"before", "after"})
_OPERATORS_WITHOUT_VALUE: Final = frozenset({"empty", "not empty"})

_COMPARISONS: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "contains": lambda stored, value: _to_text(value) in _to_text(stored),
    "not contains": lambda stored, value: _to_text(value) not in _to_text(stored),
    "start with": lambda stored, value: _to_text(stored).startswith(_to_text(value)),
    "end with": lambda stored, value: _to_text(stored).endswith(_to_text(value)),
    "is": _is_equal,
    "=": _is_equal,
    "is not": lambda stored, value: not _is_equal(stored, value),
    "≠": lambda stored, value: not _is_equal(stored, value),
    "!=": lambda stored, value: not _is_equal(stored, value),
    "empty": lambda _stored, _value: False,
    "not empty": lambda _stored, _value: True,
    "in": lambda stored, value: _to_text(stored) in _to_options(value),
    "not in": lambda stored, value: _to_text(stored) not in _to_options(value),
    ">": _is_greater,
    "after": _is_greater,
    "<": _is_less,
    "before": _is_less,
    "≥": _is_at_least,
    ">=": _is_at_least,
    "≤": _is_at_most,
    "<=": _is_at_most,
}
"""Comparison of the stored value (never null) with the value of the condition, by operator. The
service API does not document the three ASCII spellings, but the server's filter accepts them."""
