"""Conditions of --filter: parsed, checked against the types of fields, evaluated as servers do."""

from __future__ import annotations

import itertools
import json

import pytest
from cli_runner import Cli, create_dataset_with_documents, parse_error, parse_json_lines

from dify_kb import ConfigError
from dify_kb.cli.document_selection import _resolve_condition, parse_conditions
from dify_kb.emulator import Emulator
from dify_kb.models import MetadataField, MetadataType

TYPES = {"year": "number", "team": "string", "my field": "string", "day": "time"}
WHERE = ("--dataset", "base")


def make_field(name: str) -> MetadataField:
    return MetadataField(id="f", name=name, type=MetadataType(TYPES.get(name, "string")))


@pytest.mark.parametrize(
    ("text", "name", "operator", "value"),
    [
        ("year >= 2024", "year", "≥", 2024),
        ("year>=2024", "year", "≥", 2024),
        ("year != 2.5", "year", "≠", 2.5),
        ("year is not 2024", "year", "is not", 2024),
        ("year contains 20", "year", "contains", "20"),
        ("year in 2024, 2025.0", "year", "in", ["2024", "2025"]),
        ("team = infra", "team", "=", "infra"),
        ("team = 2024", "team", "=", "2024"),
        ('team = "infra"', "team", "=", "infra"),
        ("team = 'infra ops'", "team", "=", "infra ops"),
        ("team = it's", "team", "=", "it's"),
        ('team = ""', "team", "=", ""),
        ("team contains infra ops", "team", "contains", "infra ops"),
        ("team not  contains x", "team", "not contains", "x"),
        ("team starts with x", "team", "start with", "x"),
        ("'my field' is not 7", "my field", "is not", "7"),
        ("my field is not 7", "my field", "is not", "7"),
        ("team in a, b", "team", "in", ["a", "b"]),
        ('team in "a, b", c', "team", "in", ["a, b", "c"]),
        ("team not in a", "team", "not in", ["a"]),
        ("team empty", "team", "empty", None),
        ("team is empty", "team", "empty", None),
        ("team is not empty", "team", "not empty", None),
        ('team is "empty"', "team", "is", "empty"),
        ('team = "null"', "team", "=", "null"),
        ("team = sales and support", "team", "=", "sales and support"),
        ('team = "x and year > 3"', "team", "=", "x and year > 3"),
        ("day before 1700000000", "day", "before", 1700000000),
        ("day before 2024-12-31", "day", "before", 1735603200.0),
        ("day >= 2024-12-31T01:00+01:00", "day", "≥", 1735603200.0),
        ("day = 2024-12-31", "day", "=", 1735603200.0),
        ("island is big", "island", "is", "big"),
    ],
)
def test_conditions_are_parsed(text: str, name: str, operator: str, value: object) -> None:
    (parsed,) = parse_conditions([text])
    condition = _resolve_condition(parsed, make_field(parsed.name))

    assert condition.name == name
    assert condition.comparison_operator == operator
    assert condition.value == value
    assert type(condition.value) is type(value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "Pass FIELD OPERATOR VALUE. Operators: "),
        ("year", "Pass FIELD OPERATOR VALUE. Operators: "),
        (">= 2", "Pass FIELD OPERATOR VALUE. Operators: "),
        ("team like infra", "Pass FIELD OPERATOR VALUE. Operators: "),
        ("year => 2024", "Unknown operator '=>'. Operators: "),
        ("year =< 2024", "Unknown operator '=<'. Operators: "),
        ("year <> 2024", "Unknown operator '<>'. Operators: "),
        ("year ~ 2", "Unknown operator '~'. Operators: "),
        ("team =", "Pass a value, or use the operator 'empty'."),
        ("team contains", "Pass a value, or use the operator 'empty'."),
        ("team contains ''", "Pass a value, or use the operator 'empty'."),
        ("team in a,,b", "Pass a value, or use the operator 'empty'."),
        ("team = null", "Quote the text: \"null\", or use the operator 'empty'."),
        ("year = None", "Quote the text: \"None\", or use the operator 'empty'."),
        ('team = "infra', 'Close the quote: "…".'),
        ("team empty x", "Operator 'empty' takes no value."),
        ("team = x and year > 3", "Pass a --filter for each condition: all must match."),
        ("year > 3 or team is x", "Pass a --filter for each condition: all must match."),
    ],
)
def test_invalid_condition_is_an_error(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="--filter") as raised:
        parse_conditions([text])

    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("team > 3", "Operator '>' does not apply to field 'team' of type string."),
        ("team before 2024-01-01", "Operator 'before' does not apply to field 'team'"),
        ("year after 2024", "Operator 'after' does not apply to field 'year' of type number."),
        ("day contains 24", "Operator 'contains' does not apply to field 'day' of type time."),
        ("year > x", "'year' of type number: 'x'"),
        ("year = infra", "'year' of type number: 'infra'"),
        ("year in 1, x", "'year' of type number: 'x'"),
        ("day after noon", "'day' of type time: 'noon'"),
        ("day after 2024", "Invalid time '2024' for field 'day'."),
    ],
)
def test_operators_and_values_must_fit_the_type_of_the_field(text: str, message: str) -> None:
    """The server answers 500, or finds nothing, which looks like a valid result."""
    (parsed,) = parse_conditions([text])

    with pytest.raises(ConfigError) as raised:
        _resolve_condition(parsed, make_field(parsed.name))

    assert message in raised.value.summary


@pytest.fixture
def documents(cli: Cli, emulator: Emulator) -> None:
    """Create documents with different metadata, one without any."""
    create_dataset_with_documents(emulator, "a.txt", "b.txt", "c.txt", "none.txt")
    for name, type_ in TYPES.items():
        cli("metadata", "create", *WHERE, name, "--type", type_)
    values = {
        "a.txt": ("year=2024", "team=infra", "day=2024-12-31"),
        "b.txt": ("year=2019.5", "team=infra ops", "day=2020-01-01"),
        "c.txt": ("team=2024",),
    }
    for name, pairs in values.items():
        options = itertools.chain.from_iterable(("--metadata", pair) for pair in pairs)
        assert cli("metadata", "assign", *WHERE, name, *options)[0] == 0


CONDITIONS = [
    *(f"year {each} 2024" for each in ("=", "!=", ">", "<", ">=", "<=", "is", "is not")),
    *(f"year {each} 20" for each in ("contains", "not contains", "starts with", "ends with")),
    *(f"team {each} infra" for each in ("=", "!=", "is", "is not", "contains", "not contains")),
    *(f"team {each} 2024" for each in ("=", "is", "start with", "in", "not in")),
    *(f"{field} {each}" for field in TYPES for each in ("empty", "not empty")),
    "year in 2024, 2019.5",
    "year not in 2024",
    *(f"day {each} 2024-12-31" for each in ("=", "before", "after", ">=", "<=", "≠")),
]


@pytest.mark.usefixtures("documents")
def test_search_and_delete_select_the_same_documents(cli: Cli) -> None:
    for condition in CONDITIONS:
        options = [*WHERE, "--filter", condition, "--json"]
        code, out, _ = cli("search", "wombats", "--top-k", "9", *options)
        found = {row["segment"]["document"]["name"] for row in parse_json_lines(out)}
        deleted, out, _ = cli("documents", "delete", *options, "--dry-run")
        listed = {row["name"] for row in parse_json_lines(out)}

        assert (code, deleted) == (0, 0), condition
        assert found == listed, condition
        if "empty" not in condition:
            assert "none.txt" not in found, condition


@pytest.mark.usefixtures("documents")
@pytest.mark.parametrize(
    "command", [["search", "wombats"], ["documents", "delete", "--yes"], ["documents", "list"]]
)
def test_disabled_built_in_fields_are_told(cli: Cli, command: list[str]) -> None:
    """They match only while they are enabled, in searches and in lists alike."""
    options = [*WHERE, "--filter", "document_name is a.txt"]
    assert cli("metadata", "built-in", *WHERE, "disable")[0] == 0

    code, _, err = cli(*command, *options)

    assert code == 1
    assert parse_error(err)[0].startswith("The built-in field 'document_name' is disabled")
    assert "metadata built-in --dataset base enable" in parse_error(err)[1]
    assert cli("metadata", "built-in", *WHERE, "enable")[0] == 0
    code, out, _ = cli(*command, *options, "--json")
    assert code == 0
    assert "a.txt" in json.dumps(parse_json_lines(out))


def test_no_conditions_give_no_filter() -> None:
    assert parse_conditions([]) == []
