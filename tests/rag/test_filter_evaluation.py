from __future__ import annotations

import pytest

from dify_kb.models import ComparisonOperator, Condition, LogicalOperator, MetadataFilter
from dify_kb.rag import FilterError, matches_filter

METADATA: dict[str, object] = {
    "town": "paris",
    "rank": 10,
    "share": 1.5,
    "year": "2024",
    "nothing": None,
    "blank": "",
}


def matches(name: str, operator: str, value: object = None) -> bool:
    condition = Condition(
        name=name,
        comparison_operator=ComparisonOperator(operator),
        value=value,  # type: ignore[arg-type]  # a request may contain any value
    )
    return matches_filter(METADATA, MetadataFilter(conditions=[condition]))


@pytest.mark.parametrize(
    ("operator", "matching", "other"),
    [
        ("contains", "ari", "Ari"),
        ("not contains", "Ari", "ari"),
        ("start with", "pa", "ris"),
        ("end with", "ris", "pa"),
        ("is", "paris", "Paris"),
        ("=", "paris", "par"),
        ("is not", "tokyo", "paris"),
        ("≠", "tokyo", "paris"),
        ("in", ["tokyo", "paris"], ["tokyo"]),
        ("in", " tokyo , paris,", "tokyo,"),
        ("not in", ["tokyo"], ["tokyo", "paris"]),
        ("not in", "tokyo", "tokyo, paris"),
        ("not in", [], ["paris"]),
    ],
)
def test_text_comparison_is_case_sensitive(operator: str, matching: object, other: object) -> None:
    assert matches("town", operator, matching)
    assert not matches("town", operator, other)


@pytest.mark.parametrize("less", ["<", "before"])
@pytest.mark.parametrize("more", [">", "after"])
def test_numbers_are_compared_as_numbers(less: str, more: str) -> None:
    assert matches("rank", less, 11)
    assert matches("rank", more, 9)
    assert matches("rank", more, "9")
    assert not matches("rank", less, 10)
    assert not matches("rank", more, 10)


@pytest.mark.parametrize(("at_least", "at_most"), [("≥", "≤"), (">=", "<=")])
def test_inclusive_operators_match_the_bound_itself(at_least: str, at_most: str) -> None:
    assert matches("rank", at_least, 10)
    assert matches("rank", at_most, 10)
    assert not matches("rank", at_least, 10.5)
    assert not matches("rank", at_most, 9)


def test_number_equals_its_text() -> None:
    """As on 1.12.1 (recording 789); 1.8.1 and 1.4.3 find nothing."""
    assert matches("rank", "=", "10")
    assert matches("rank", "=", 10.0)
    assert matches("year", "is", 2024)
    assert matches("share", "contains", ".5")
    assert matches("rank", "in", "10, 20")
    assert not matches("rank", "≠", 10)
    assert not matches("rank", "!=", "10")


def test_on_old_servers_a_text_never_equals_a_number() -> None:
    def matches_strictly(operator: str, value: str | int) -> bool:
        condition = Condition(
            name="rank", comparison_operator=ComparisonOperator(operator), value=value
        )
        return matches_filter(METADATA, MetadataFilter(conditions=[condition]), strict_types=True)

    assert not matches_strictly("=", "10")
    assert matches_strictly("is not", "10")
    assert matches_strictly("=", 10)
    assert matches_strictly(">", "9")


def test_value_that_is_not_a_number_is_neither_less_nor_greater() -> None:
    assert not matches("town", ">", 1)
    assert not matches("town", "≤", 1)
    assert not matches("rank", ">", "much")
    assert matches("town", "≠", 1)


@pytest.mark.parametrize("name", ["unknown", "nothing"])
@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("contains", "a"), ("not contains", "a"), ("start with", "a"), ("end with", "a"),
        ("is", "a"), ("is not", "a"), ("=", 1), ("≠", 1), ("in", ["a"]), ("not in", ["a"]),
        (">", 1), ("<", 1), ("≥", 1), ("≤", 1), ("before", 1), ("after", 1), ("not empty", None),
    ],
)  # fmt: skip
def test_missing_field_matches_no_condition(name: str, operator: str, value: object) -> None:
    assert not matches(name, operator, value)


def test_only_a_missing_field_is_empty() -> None:
    assert matches("unknown", "empty")
    assert matches("nothing", "empty")
    assert not matches("blank", "empty")
    assert matches("blank", "not empty")


def test_in_and_not_in_with_an_empty_list() -> None:
    assert not matches("town", "in", [])
    assert not matches("town", "in", " , ")
    assert matches("unknown", "not in", [])


def conditions(*pairs: tuple[str, str | None]) -> list[Condition]:
    return [
        Condition(name=name, comparison_operator=ComparisonOperator.IS, value=value)
        for name, value in pairs
    ]


def test_and_requires_all_conditions_and_or_requires_one() -> None:
    two_conditions = conditions(("town", "paris"), ("rank", "11"))

    assert not matches_filter(METADATA, MetadataFilter(conditions=two_conditions))
    assert matches_filter(
        METADATA, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=two_conditions)
    )


def test_condition_without_a_value_is_skipped() -> None:
    """Also with `or`, where it would match every document."""
    two_conditions = conditions(("town", None), ("town", "tokyo"))

    assert not matches_filter(
        METADATA, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=two_conditions)
    )
    assert matches_filter(METADATA, MetadataFilter(conditions=conditions(("town", None))))
    assert matches_filter(
        METADATA, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=[])
    )


def test_unknown_operator_is_an_error_for_any_value() -> None:
    with pytest.raises(FilterError, match="Unknown comparison operator 'like'"):
        matches("town", "like", None)
