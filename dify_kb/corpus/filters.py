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


def meets(
    metadata: Mapping[str, object],
    wanted: MetadataFilter,
    *,
    texts_apart: bool = False,
    dates: bool = False,
) -> bool:
    """Tell whether a document with this metadata, by the names of its fields, may be found.

    A condition without a value is skipped, `empty` and `not empty` aside; if none is left, every
    document is let through. A field that the document does not have, or that is null, meets only
    `empty`, and `not in` a list without values. With `texts_apart` no text equals a number, as on
    servers before 1.11 (recording 789). With `dates` a text in the form of ISO 8601 is a time for
    `before` and `after`, in UTC unless it says otherwise; for the server itself it never is.

    Raises:
        FilterError: no such operator.
    """
    met = [
        _meets(metadata, condition, texts_apart=texts_apart, dates=dates)
        for condition in wanted.conditions
        if _counts(condition)
    ]
    if not met:
        return True
    return all(met) if wanted.logical_operator == "and" else any(met)


def _counts(condition: Condition) -> bool:
    if condition.comparison_operator not in _TESTS:
        raise FilterError(f"{str(condition.comparison_operator)!r} is no comparison operator")
    return condition.value is not None or condition.comparison_operator in _WITHOUT_VALUE


def _meets(
    metadata: Mapping[str, object], condition: Condition, *, texts_apart: bool, dates: bool
) -> bool:
    stored, value, compared_by = (
        metadata.get(condition.name),
        condition.value,
        condition.comparison_operator,
    )
    if compared_by == "not in" and not _options(value):
        return True
    if stored is None:
        return compared_by == "empty"
    if texts_apart and isinstance(value, str) and not isinstance(stored, str):
        if compared_by in _SAME:
            return False
        if compared_by in _OTHER:
            return True
    if dates and compared_by in _TIMES:
        return _TESTS[compared_by](_time(stored), _time(value))
    return _TESTS[compared_by](stored, value)


def _time(value: object) -> object:
    """Turn a date, or its ISO text, into seconds since the epoch; leave the rest as it is."""
    if not isinstance(value, str | date) or _number(value) is not None:
        return value
    try:
        time = datetime.fromisoformat(_text(value))
    except ValueError:
        return value
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()


def _text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(value: object) -> float | None:
    if isinstance(value, str | int | float):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return None


def _equal(stored: object, value: object) -> bool:
    """Compare as texts with a text, as numbers with a number: "10" equals the number 10."""
    if isinstance(value, int | float):
        return _number(stored) == value
    return _text(stored) == _text(value)


def _options(value: object) -> list[str]:
    """Take the values of a list, or of a text with commas."""
    if isinstance(value, str):
        return [option.strip() for option in value.split(",") if option.strip()]
    if isinstance(value, list | tuple):
        return [_text(option) for option in value if option is not None]
    return [] if value is None else [_text(value)]


def _numbers(compare: Callable[[float, float], bool]) -> Callable[[object, object], bool]:
    def test(stored: object, value: object) -> bool:
        left, right = _number(stored), _number(value)
        # What is no number is on no side of one.
        return left is not None and right is not None and compare(left, right)

    return test


_less = _numbers(lambda left, right: left < right)
_greater = _numbers(lambda left, right: left > right)
_at_most = _numbers(lambda left, right: left <= right)
_at_least = _numbers(lambda left, right: left >= right)

_SAME: Final = frozenset({"is", "="})
_OTHER: Final = frozenset({"is not", "≠", "!="})
_TIMES: Final = frozenset({"before", "after"})
_WITHOUT_VALUE: Final = frozenset({"empty", "not empty"})

_TESTS: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "contains": lambda stored, value: _text(value) in _text(stored),
    "not contains": lambda stored, value: _text(value) not in _text(stored),
    "start with": lambda stored, value: _text(stored).startswith(_text(value)),
    "end with": lambda stored, value: _text(stored).endswith(_text(value)),
    "is": _equal,
    "=": _equal,
    "is not": lambda stored, value: not _equal(stored, value),
    "≠": lambda stored, value: not _equal(stored, value),
    "!=": lambda stored, value: not _equal(stored, value),
    "empty": lambda _stored, _value: False,
    "not empty": lambda _stored, _value: True,
    "in": lambda stored, value: _text(stored) in _options(value),
    "not in": lambda stored, value: _text(stored) not in _options(value),
    ">": _greater,
    "after": _greater,
    "<": _less,
    "before": _less,
    "≥": _at_least,
    ">=": _at_least,
    "≤": _at_most,
    "<=": _at_most,
}
"""How the value that is stored, never null, is compared with the one that is asked for. The three
spellings in ASCII are not the service API's, but the server's own filter knows them."""
