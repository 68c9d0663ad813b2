"""Search filters on the metadata of documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NoReturn, TypeGuard

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError

from ._base import OpenEnum

FilterValue = str | int | float | Sequence[str] | None


class ComparisonOperator(OpenEnum):
    """The comparison operators of conditions; `in` and `not in` since 1.11 (measured)."""

    CONTAINS = "contains"
    NOT_CONTAINS = "not contains"
    START_WITH = "start with"
    END_WITH = "end with"
    IS = "is"
    IS_NOT = "is not"
    EMPTY = "empty"
    NOT_EMPTY = "not empty"
    IN = "in"
    NOT_IN = "not in"
    EQUAL = "="
    NOT_EQUAL = "≠"
    GREATER = ">"
    LESS = "<"
    GREATER_EQUAL = "≥"
    LESS_EQUAL = "≤"
    BEFORE = "before"
    AFTER = "after"


_VALUELESS_OPERATORS = frozenset({ComparisonOperator.EMPTY, ComparisonOperator.NOT_EMPTY})


class LogicalOperator(OpenEnum):
    """The operator that combines conditions."""

    AND = "and"
    OR = "or"


def _parse_operator(value: ComparisonOperator | str) -> ComparisonOperator:
    """Return an operator written as text. An unknown `ComparisonOperator` is kept.

    Raises:
        ConfigError: the text is not an operator.
    """
    operator = ComparisonOperator(value)
    if not (operator.is_known or isinstance(value, ComparisonOperator)):
        raise ConfigError(
            f"Unknown comparison_operator {value!r}.",
            hint=f"Use one of {', '.join(ComparisonOperator)}.",
        )
    return operator


@check_constructor
@frozen(kw_only=True)
class Condition:
    """A comparison with a field. The server ignores conditions without a value, except `empty`.

    `a & b` and `a | b` combine conditions into a `MetadataFilter`.
    """

    name: str
    comparison_operator: ComparisonOperator = field(converter=_parse_operator)
    value: FilterValue = None

    def __and__(self, other: Condition | MetadataFilter) -> MetadataFilter:
        return MetadataFilter.from_condition(self) & other

    def __or__(self, other: Condition | MetadataFilter) -> MetadataFilter:
        return MetadataFilter.from_condition(self) | other

    def __bool__(self) -> NoReturn:
        """Refuse `a and b` and `1 < a < 2`, which would silently drop a condition.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"A condition on {self.name!r} is not true or false: combine with & or |.")


@check_constructor
@frozen(kw_only=True)
class MetadataFilter:
    """A filter of the documents that a search may find; create it with `all_of` or `any_of`.

    Documents without a field do not match conditions on it, except `empty` (measured).
    """

    logical_operator: LogicalOperator = LogicalOperator.AND
    conditions: Sequence[Condition] = ()

    def __and__(self, other: Condition | MetadataFilter) -> MetadataFilter:
        return self._combine(LogicalOperator.AND, other)

    def __or__(self, other: Condition | MetadataFilter) -> MetadataFilter:
        return self._combine(LogicalOperator.OR, other)

    def validate(self) -> None:
        """Check that the server supports the operators and that values are present.

        Raises:
            ConfigError: a condition is invalid; the message names it.
        """
        for condition in self.conditions:
            if not condition.comparison_operator.is_known:
                raise ConfigError(
                    f"Unknown operator {str(condition.comparison_operator)!r} in the condition on"
                    f" {condition.name!r}.",
                    hint=f"Use one of {', '.join(ComparisonOperator)}.",
                )
            if (
                condition.value in (None, [], ())
                and condition.comparison_operator not in _VALUELESS_OPERATORS
            ):
                raise ConfigError(
                    f"The condition on {condition.name!r} has no value; the server would ignore"
                    " it.",
                    hint="Pass a value, or use empty() or not_empty().",
                )

    @classmethod
    def from_condition(cls, condition: Condition | MetadataFilter) -> MetadataFilter:
        """Return a filter with one condition; a filter is returned as it is.

        Raises:
            TypeError: the argument is neither.
        """
        return condition if isinstance(condition, MetadataFilter) else cls.all_of(condition)

    def _combine(
        self, operator: LogicalOperator, other: Condition | MetadataFilter
    ) -> MetadataFilter:
        if not isinstance(other, Condition | MetadataFilter):
            return NotImplemented
        parts = (self, MetadataFilter.from_condition(other))
        if any(len(part.conditions) > 1 and part.logical_operator != operator for part in parts):
            raise ConfigError(
                "Conditions cannot be combined with both & and |.",
                hint="Use one of them: the server has no nested conditions.",
            )
        conditions = tuple(condition for part in parts for condition in part.conditions)
        return MetadataFilter(logical_operator=operator, conditions=conditions)

    @classmethod
    def all_of(cls, *conditions: Condition) -> MetadataFilter:
        """Return a filter for documents that meet all conditions.

        Raises:
            ConfigError: there is no condition.
            TypeError: an argument is not a condition.
        """
        return cls(conditions=_require_conditions(conditions))

    @classmethod
    def any_of(cls, *conditions: Condition) -> MetadataFilter:
        """Return a filter for documents that meet at least one condition.

        Raises:
            ConfigError: there is no condition.
            TypeError: an argument is not a condition.
        """
        return cls(logical_operator=LogicalOperator.OR, conditions=_require_conditions(conditions))


def _is_comparable(value: object) -> TypeGuard[str | float]:
    """Return whether a value is a string or a finite number."""
    if isinstance(value, str):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require_conditions(conditions: Sequence[Condition]) -> Sequence[Condition]:
    if not conditions:
        raise ConfigError(
            "The filter has no condition.", hint='Pass a condition such as Field("year") >= 2024.'
        )
    for index, condition in enumerate(conditions):
        if not isinstance(condition, Condition):
            raise TypeError(
                f'conditions[{index}] must be a Condition such as Field("year") >= 2024, not'
                f" {condition!r}."
            )
    return conditions


@check_constructor
@frozen(eq=False)
class Field:
    """A metadata field whose comparisons return conditions for `MetadataFilter`.

    Examples: `Field("year") >= 2024`, `Field("team").contains("infra")`. Combined, comparisons need
    parentheses: `(Field("year") >= 2024) & (Field("team") == "infra")`. A time is a number of
    seconds since the epoch.
    """

    name: str

    def __and__(self, _: object) -> NoReturn:
        """Refuse a field without comparison, and a comparison without parentheses.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"Field({self.name!r}) is not a condition. Compare it, in parentheses:"
            f" (Field({self.name!r}) == 1) & (…)."
        )

    __or__ = __rand__ = __ror__ = __and__

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # a condition, as in SQLAlchemy
        """Match documents whose value equals a string or number."""
        return self._compare(ComparisonOperator.EQUAL, value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]  # likewise
        """Match documents with another value; documents without the field do not match."""
        return self._compare(ComparisonOperator.NOT_EQUAL, value)

    __hash__ = None  # type: ignore[assignment]  # __eq__ returns a condition

    def __gt__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.GREATER, value)

    def __lt__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.LESS, value)

    def __ge__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.GREATER_EQUAL, value)

    def __le__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.LESS_EQUAL, value)

    def contains(self, text: str) -> Condition:
        """Match documents whose value contains `text`, case-sensitive."""
        return self._compare_text(ComparisonOperator.CONTAINS, text)

    def not_contains(self, text: str) -> Condition:
        """Match documents whose value does not contain `text`."""
        return self._compare_text(ComparisonOperator.NOT_CONTAINS, text)

    def starts_with(self, text: str) -> Condition:
        """Match documents whose value starts with `text`."""
        return self._compare_text(ComparisonOperator.START_WITH, text)

    def ends_with(self, text: str) -> Condition:
        """Match documents whose value ends with `text`."""
        return self._compare_text(ComparisonOperator.END_WITH, text)

    def is_(self, value: str | float) -> Condition:
        """Match documents whose value equals a string or number."""
        return self._compare(ComparisonOperator.IS, value)

    def is_not(self, value: str | float) -> Condition:
        """Match documents with another value."""
        return self._compare(ComparisonOperator.IS_NOT, value)

    def empty(self) -> Condition:
        """Match documents without a value; an empty string is a value."""
        return Condition(name=self.name, comparison_operator=ComparisonOperator.EMPTY)

    def not_empty(self) -> Condition:
        """Match documents with a value."""
        return Condition(name=self.name, comparison_operator=ComparisonOperator.NOT_EMPTY)

    def in_(self, values: Sequence[str]) -> Condition:
        """Match documents whose value is in `values`.

        Requires 1.11; 1.8.1 returns all documents instead (recording 801).
        """
        return self._compare_list(ComparisonOperator.IN, values)

    def not_in(self, values: Sequence[str]) -> Condition:
        """Match documents whose value is not in `values`. Requires 1.11; see `in_`."""
        return self._compare_list(ComparisonOperator.NOT_IN, values)

    def before(self, time: float | datetime) -> Condition:
        """Match documents whose time is earlier than `time`.

        Args:
            time: seconds since the epoch, or a `datetime` with a time zone.
        """
        return self._compare_number(ComparisonOperator.BEFORE, self._to_timestamp(time))

    def after(self, time: float | datetime) -> Condition:
        """Match documents whose time is later than `time`; see `before`."""
        return self._compare_number(ComparisonOperator.AFTER, self._to_timestamp(time))

    def _to_timestamp(self, time: float | datetime) -> float:
        if not isinstance(time, datetime):
            return time
        if time.tzinfo is None:
            raise ConfigError(
                f"Invalid time for {self.name!r}: {time!r} has no time zone.",
                hint="Pass an aware datetime, such as datetime.now(UTC).",
            )
        return time.timestamp()

    def _compare_number(self, operator: ComparisonOperator, value: float) -> Condition:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"Invalid condition {self.name} {operator} {value!r}: the value is not a number.",
                hint="Pass a number; for a time, seconds since the epoch.",
            )
        return self._compare(operator, value)

    def _compare_list(self, operator: ComparisonOperator, values: object) -> Condition:
        if not isinstance(values, Sequence | AbstractSet) or isinstance(values, str | bytes):
            raise ConfigError(
                f"Invalid condition {self.name} {operator} {values!r}: the value is not a list.",
                hint=f"Pass [{values!r}].",
            )
        for value in values:
            if not _is_comparable(value):
                raise ConfigError(
                    f"Invalid condition {self.name} {operator} {values!r}: the value {value!r} is"
                    " neither a string nor a number.",
                    hint="Remove it, or use empty() or not_empty() for None.",
                )
        texts = [str(value) for value in values]
        return Condition(name=self.name, comparison_operator=operator, value=texts)

    def _compare_text(self, operator: ComparisonOperator, value: str) -> Condition:
        if not isinstance(value, str):
            raise ConfigError(
                f"Invalid condition {self.name} {operator} {value!r}: the value is not a string.",
                hint="Pass a string.",
            )
        return self._compare(operator, value)

    def _compare(self, operator: ComparisonOperator, value: object) -> Condition:
        if not _is_comparable(value):
            raise ConfigError(
                f"Invalid condition {self.name} {operator} {value!r}: the value is neither a string"
                " nor a finite number.",
                hint="Pass a string or a number, or use empty() or not_empty().",
            )
        return Condition(name=self.name, comparison_operator=operator, value=value)
