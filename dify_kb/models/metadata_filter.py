"""Conditions on the metadata of documents, for searches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import field, frozen

from dify_kb.errors import ConfigError

from ._base import OpenEnum

FilterValue = str | int | float | Sequence[str] | None


class ComparisonOperator(OpenEnum):
    """What the server can compare by; `in` and `not in` since 1.11 (measured)."""

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
    """How conditions are joined."""

    AND = "and"
    OR = "or"


@frozen(kw_only=True)
class Condition:
    """One comparison. A condition with the value None is skipped by the server, but for `empty`."""

    name: str
    comparison_operator: ComparisonOperator = field(converter=ComparisonOperator)
    value: FilterValue = None


@frozen(kw_only=True)
class MetadataFilter:
    """Which documents a search may find; build one with `all_of` or `any_of`.

    A field that a document does not have matches nothing, `empty` aside (measured).
    """

    logical_operator: LogicalOperator = LogicalOperator.AND
    conditions: Sequence[Condition] = ()

    def validate(self) -> None:
        """Refuse an operator that the server does not have.

        Raises:
            ConfigError: naming the condition.
        """
        for condition in self.conditions:
            if not condition.comparison_operator.is_known:
                raise ConfigError(
                    f"The condition on {condition.name!r} compares by"
                    f" {str(condition.comparison_operator)!r}.",
                    hint=f"It can be {', '.join(ComparisonOperator)}.",
                )
            if (
                condition.value in (None, [], ())
                and condition.comparison_operator not in _VALUELESS_OPERATORS
            ):
                raise ConfigError(
                    f"The condition on {condition.name!r} has no value; the server passes over it.",
                    hint="Give it a value, or compare with empty() or not_empty().",
                )

    @classmethod
    def all_of(cls, *conditions: Condition) -> MetadataFilter:
        """Find documents that meet every condition.

        Raises:
            ConfigError: no condition was given.
        """
        return cls(conditions=_require_conditions(conditions))

    @classmethod
    def any_of(cls, *conditions: Condition) -> MetadataFilter:
        """Find documents that meet at least one condition.

        Raises:
            ConfigError: no condition was given.
        """
        return cls(logical_operator=LogicalOperator.OR, conditions=_require_conditions(conditions))


def _require_conditions(conditions: Sequence[Condition]) -> Sequence[Condition]:
    if not conditions:
        raise ConfigError("The filter has no condition.", hint='Write Field("year") >= 2024.')
    return conditions


@frozen(eq=False)
class Field:
    """A metadata field, to compare: `Field("year") >= 2024`, `Field("team").contains("infra")`.

    Numbers compare with numbers. A time is a number of seconds since the epoch.
    """

    name: str

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # a condition, as in SQLAlchemy
        """Equal to a text or a number."""
        return self._compare(ComparisonOperator.EQUAL, value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]  # likewise
        """Another text or number; a document without the field does not match."""
        return self._compare(ComparisonOperator.NOT_EQUAL, value)

    __hash__ = None  # type: ignore[assignment]  # what compares to a condition has no hash

    def __gt__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.GREATER, value)

    def __lt__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.LESS, value)

    def __ge__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.GREATER_EQUAL, value)

    def __le__(self, value: float) -> Condition:
        return self._compare_number(ComparisonOperator.LESS_EQUAL, value)

    def contains(self, text: str) -> Condition:
        """Hold `text`, case and all."""
        return self._compare_text(ComparisonOperator.CONTAINS, text)

    def not_contains(self, text: str) -> Condition:
        """Do not hold `text`."""
        return self._compare_text(ComparisonOperator.NOT_CONTAINS, text)

    def starts_with(self, text: str) -> Condition:
        """Begin with `text`."""
        return self._compare_text(ComparisonOperator.START_WITH, text)

    def ends_with(self, text: str) -> Condition:
        """End with `text`."""
        return self._compare_text(ComparisonOperator.END_WITH, text)

    def is_(self, value: str | float) -> Condition:
        """Equal to a text or a number."""
        return self._compare(ComparisonOperator.IS, value)

    def is_not(self, value: str | float) -> Condition:
        """Another text or number."""
        return self._compare(ComparisonOperator.IS_NOT, value)

    def empty(self) -> Condition:
        """Have no value; an empty text is one."""
        return Condition(name=self.name, comparison_operator=ComparisonOperator.EMPTY)

    def not_empty(self) -> Condition:
        """Have a value."""
        return Condition(name=self.name, comparison_operator=ComparisonOperator.NOT_EMPTY)

    def in_(self, values: Sequence[str]) -> Condition:
        """Be one of `values`; since 1.11 (1.8.1 finds everything instead, recording 801)."""
        return self._compare_list(ComparisonOperator.IN, values)

    def not_in(self, values: Sequence[str]) -> Condition:
        """Be none of `values`; since 1.11, see `in_`."""
        return self._compare_list(ComparisonOperator.NOT_IN, values)

    def before(self, time: float | datetime) -> Condition:
        """Be earlier than a time: seconds since the epoch, or a `datetime` with a time zone."""
        return self._compare_number(ComparisonOperator.BEFORE, self._to_timestamp(time))

    def after(self, time: float | datetime) -> Condition:
        """Be later than a time, as in `before`."""
        return self._compare_number(ComparisonOperator.AFTER, self._to_timestamp(time))

    def _to_timestamp(self, time: float | datetime) -> float:
        if not isinstance(time, datetime):
            return time
        if time.tzinfo is None:
            raise ConfigError(
                f"{self.name} is compared with {time!r}, a time of no time zone.",
                hint="Pass an aware datetime, such as datetime.now(UTC).",
            )
        return time.timestamp()

    def _compare_number(self, operator: ComparisonOperator, value: float) -> Condition:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"{self.name} {operator} {value!r}: the value is no number.",
                hint="Pass a number; a time in seconds since the epoch.",
            )
        return self._compare(operator, value)

    def _compare_list(self, operator: ComparisonOperator, values: Sequence[str]) -> Condition:
        if isinstance(values, str):
            raise ConfigError(
                f"{self.name} {operator} {values!r}: a single text.", hint="Pass a list of texts."
            )
        texts = [str(value) for value in values]
        return Condition(name=self.name, comparison_operator=operator, value=texts)

    def _compare_text(self, operator: ComparisonOperator, value: str) -> Condition:
        if not isinstance(value, str):
            raise ConfigError(
                f"{self.name} {operator} {value!r}: the value is no text.", hint="Pass a text."
            )
        return self._compare(operator, value)

    def _compare(self, operator: ComparisonOperator, value: object) -> Condition:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(
                f"{self.name} {operator} {value!r}: the value is neither text nor number.",
                hint="Pass one, or ask for no value by empty() or not_empty().",
            )
        return Condition(name=self.name, comparison_operator=operator, value=value)
