from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dify_kb import ConfigError, MetadataField, MetadataType


def make_field(kind: str) -> MetadataField:
    return MetadataField(id="an id", name="a field", type=MetadataType(kind))


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("string", "infra", "infra"),
        ("number", 7, 7),
        ("number", 7.5, 7.5),
        ("time", 1_700_000_000, 1_700_000_000),
        ("time", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), 1_700_000_000.0),
        ("number", "2024", 2024),
        ("number", " -7.5e3 ", -7500.0),
        ("time", "1700000000", 1_700_000_000),
        ("time", "2023-11-14T22:13:20", 1_700_000_000.0),
        ("time", "2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("time", "20231114", 1_699_920_000.0),
        ("string", "2024", "2024"),
        ("number", None, None),
        ("a type of the future", 7, 7),
    ],
)
def test_make_value_returns_values_of_the_field_type(
    kind: str, given: object, stored: object
) -> None:
    value = make_field(kind).make_value(given)  # type: ignore[arg-type]  # a column of the table

    assert (value.id, value.name, value.value) == ("an id", "a field", stored)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("number", "soon"),
        ("number", ""),
        ("number", "inf"),
        ("number", "1" + "0" * 400),
        ("time", "2024-13-01"),
        ("time", datetime(2024, 1, 1)),  # noqa: DTZ001 -- without a time zone
        ("string", 7),
        ("number", True),
        ("string", False),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_field_s_name(kind: str, given: object) -> None:
    """The server silently stores the value, and no filter ever matches it (measured)."""
    with pytest.raises(ConfigError, match=f"metadata field 'a field' of type {kind}"):
        make_field(kind).make_value(given)  # type: ignore[arg-type]  # wrong on purpose
