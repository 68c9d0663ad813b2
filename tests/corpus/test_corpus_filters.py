from __future__ import annotations

import pytest

from dify_kb.corpus import FilterError, meets
from dify_kb.models import ComparisonOperator, Condition, LogicalOperator, MetadataFilter

STORED: dict[str, object] = {
    "town": "paris",
    "rank": 10,
    "share": 1.5,
    "year": "2024",
    "nothing": None,
    "blank": "",
}


def met(name: str, operator: str, value: object = None) -> bool:
    condition = Condition(
        name=name,
        comparison_operator=ComparisonOperator(operator),
        value=value,  # type: ignore[arg-type]  # what a request may hold
    )
    return meets(STORED, MetadataFilter(conditions=[condition]))


@pytest.mark.parametrize(
    ("operator", "meeting", "missing"),
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
def test_texts_are_compared_with_their_case(
    operator: str, meeting: object, missing: object
) -> None:
    assert met("town", operator, meeting)
    assert not met("town", operator, missing)


@pytest.mark.parametrize("less", ["<", "before"])
@pytest.mark.parametrize("more", [">", "after"])
def test_numbers_are_compared_as_numbers(less: str, more: str) -> None:
    assert met("rank", less, 11)
    assert met("rank", more, 9)
    assert met("rank", more, "9")
    assert not met("rank", less, 10)
    assert not met("rank", more, 10)


@pytest.mark.parametrize(("least", "most"), [("≥", "≤"), (">=", "<=")])
def test_bounds_belong_to_their_side(least: str, most: str) -> None:
    assert met("rank", least, 10)
    assert met("rank", most, 10)
    assert not met("rank", least, 10.5)
    assert not met("rank", most, 9)


def test_a_number_and_its_text_are_equal() -> None:
    """As 1.12.1 answers (recording 789); 1.8.1 and 1.4.3 find nothing."""
    assert met("rank", "=", "10")
    assert met("rank", "=", 10.0)
    assert met("year", "is", 2024)
    assert met("share", "contains", ".5")
    assert met("rank", "in", "10, 20")
    assert not met("rank", "≠", 10)
    assert not met("rank", "!=", "10")


def test_on_old_servers_a_text_equals_no_number() -> None:
    def old(operator: str, value: str | int) -> bool:
        condition = Condition(
            name="rank", comparison_operator=ComparisonOperator(operator), value=value
        )
        return meets(STORED, MetadataFilter(conditions=[condition]), texts_apart=True)

    assert not old("=", "10")
    assert old("is not", "10")
    assert old("=", 10)
    assert old(">", "9")


def test_what_is_no_number_is_on_no_side_of_one() -> None:
    assert not met("town", ">", 1)
    assert not met("town", "≤", 1)
    assert not met("rank", ">", "much")
    assert met("town", "≠", 1)


@pytest.mark.parametrize("name", ["unknown", "nothing"])
@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("contains", "a"), ("not contains", "a"), ("start with", "a"), ("end with", "a"),
        ("is", "a"), ("is not", "a"), ("=", 1), ("≠", 1), ("in", ["a"]), ("not in", ["a"]),
        (">", 1), ("<", 1), ("≥", 1), ("≤", 1), ("before", 1), ("after", 1), ("not empty", None),
    ],
)  # fmt: skip
def test_a_field_without_a_value_meets_nothing(name: str, operator: str, value: object) -> None:
    assert not met(name, operator, value)


def test_only_a_field_without_a_value_is_empty() -> None:
    assert met("unknown", "empty")
    assert met("nothing", "empty")
    assert not met("blank", "empty")
    assert met("blank", "not empty")


def test_nothing_is_in_an_empty_list_and_all_is_outside_of_it() -> None:
    assert not met("town", "in", [])
    assert not met("town", "in", " , ")
    assert met("unknown", "not in", [])


def conditions(*pairs: tuple[str, str | None]) -> list[Condition]:
    return [
        Condition(name=name, comparison_operator=ComparisonOperator.IS, value=value)
        for name, value in pairs
    ]


def test_and_wants_all_of_them_and_or_one() -> None:
    both = conditions(("town", "paris"), ("rank", "11"))

    assert not meets(STORED, MetadataFilter(conditions=both))
    assert meets(STORED, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=both))


def test_a_condition_without_a_value_is_skipped() -> None:
    """Also in an or, where it would let everything through."""
    either = conditions(("town", None), ("town", "tokyo"))

    assert not meets(STORED, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=either))
    assert meets(STORED, MetadataFilter(conditions=conditions(("town", None))))
    assert meets(STORED, MetadataFilter(logical_operator=LogicalOperator.OR, conditions=[]))


def test_an_unknown_operator_is_refused_whatever_its_value() -> None:
    with pytest.raises(FilterError, match="'like' is no comparison operator"):
        met("town", "like", None)
