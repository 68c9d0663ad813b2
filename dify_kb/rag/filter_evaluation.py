"""Which documents a filter on metadata lets through (as the server filters its own)."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dify_kb.models import Condition, MetadataFilter


class FilterError(ValueError):
    """A filter compares by a word that is no operator."""


def matches_filter(
    metadata: Mapping[str, object],
    metadata_filter: MetadataFilter,
    *,
    strict_types: bool = False,
    parse_dates: bool = False,
) -> bool:
    """Tell whether a document with this metadata, by the names of its fields, may be found.

    A condition without a value is skipped, `empty` and `not empty` aside; if none is left, every
    document is let through. A field that the document does not have, or that is null, meets only
    `empty`, and `not in` a list without values. With `strict_types` no text equals a number, as on
    servers before 1.11 (recording 789). With `parse_dates` a text in the form of ISO 8601 is a time
    for `before` and `after`, in UTC unless it says otherwise; for the server itself it never is.

    Raises:
        FilterError: no such operator.
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
        raise FilterError(f"{str(condition.comparison_operator)!r} is no comparison operator")
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
    """Turn a date, or its ISO text, into seconds since the epoch; leave the rest as it is."""
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
    """Compare as texts with a text, as numbers with a number: "10" equals the number 10."""
    if isinstance(value, int | float):
        return _to_number(stored) == value
    return _to_text(stored) == _to_text(value)


def _to_options(value: object) -> list[str]:
    """Take the values of a list, or of a text with commas."""
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
        # What is no number is on no side of one.
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
"""How the value that is stored, never null, is compared with the one that is asked for. The three
spellings in ASCII are not the service API's, but the server's own filter knows them."""
