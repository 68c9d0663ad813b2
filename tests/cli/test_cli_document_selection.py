from __future__ import annotations

import pytest

from dify_kb import ConfigError
from dify_kb.cli.document_selection import parse_conditions


@pytest.mark.parametrize(
    ("text", "name", "operator", "value"),
    [
        ("year >= 2024", "year", "≥", 2024),
        ("year>=2024", "year", "≥", 2024),
        ("year != 2.5", "year", "≠", 2.5),
        ("team = infra", "team", "=", "infra"),
        ("team contains infra ops", "team", "contains", "infra ops"),
        ("team not contains x", "team", "not contains", "x"),
        ("my field is not 7", "my field", "is not", "7"),
        ("team in a, b", "team", "in", ["a", "b"]),
        ("team not in a", "team", "not in", ["a"]),
        ("team empty", "team", "empty", None),
        ("day before 1700000000", "day", "before", 1700000000),
        ("day before 2024-12-31", "day", "before", 1735603200.0),
        ("day >= 2024-12-31T01:00+01:00", "day", "≥", 1735603200.0),
        ("day = 2024-12-31", "day", "=", "2024-12-31"),
        ("island is big", "island", "is", "big"),
    ],
)
def test_conditions_are_parsed(text: str, name: str, operator: str, value: object) -> None:
    found = parse_conditions([text])

    assert found is not None
    (condition,) = found.conditions
    assert (condition.name, condition.comparison_operator, condition.value) == (
        name,
        operator,
        value,
    )


@pytest.mark.parametrize("text", ["", "year", "year ~ 2", ">= 2", "day after noon", "year > x"])
def test_invalid_condition_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--filter"):
        parse_conditions([text])


def test_empty_conditions_give_no_filter() -> None:
    assert parse_conditions([]) is None
