"""`metadata assign`: conversion of values to the types of their fields."""

from __future__ import annotations

import pytest
from cli_runner import (
    Cli,
    called_endpoints,
    create_dataset_with_documents,
    parse_error,
    parse_json_lines,
)

from dify_kb.emulator import Emulator

NOBODY = "00000000-0000-4000-8000-000000000000"
WHERE = ["--dataset", "base"]


def test_values_are_converted_to_the_field_type(cli: Cli, emulator: Emulator) -> None:
    """The server stores a text in a number field, and no filter matches it."""
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    for name, kind in (("year", "number"), ("seen", "time"), ("team", "string")):
        cli("metadata", "create", *WHERE, name, "--type", kind)

    sets = ["--metadata", "year=2024", "--metadata", "seen=2024-12-31", "--metadata", "team=7"]
    code, out, err = cli("metadata", "assign", *WHERE, "--name", "*.txt", *sets)

    assert (code, err) == (0, "Metadata set on 2 documents.\n")
    assert len(out.splitlines()) == 2
    _, out, _ = cli("documents", "show", *WHERE, "a.txt", "--json")
    values = {entry["name"]: entry["value"] for entry in parse_json_lines(out)[0]["doc_metadata"]}
    assert (values["year"], values["seen"], values["team"]) == (2024, 1735603200.0, "7")


@pytest.mark.parametrize(
    ("given", "code", "what"),
    [
        ("year=soon", 2, "Invalid value for metadata field 'year' of type number: 'soon'."),
        ("seen=soon", 2, "Invalid value for metadata field 'seen' of type time: 'soon'."),
        ("year", 2, "Invalid pair 'year' for --metadata."),
        ("yaer=2024", 1, "Metadata field not found: 'yaer'."),
    ],
)
def test_values_of_a_wrong_type_are_errors(
    cli: Cli, emulator: Emulator, given: str, code: int, what: str
) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    cli("metadata", "create", *WHERE, "year", "--type", "number")
    cli("metadata", "create", *WHERE, "seen", "--type", "time")

    met, _, err = cli("metadata", "assign", *WHERE, "--all", "--metadata", given)

    assert (met, parse_error(err)[0]) == (code, what)
    assert "metadata.assign" not in called_endpoints(emulator)


def test_documents_without_assigned_values_are_reported(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    cli("metadata", "create", *WHERE, "year", "--type", "number")

    code, out, _ = cli(
        "metadata", "assign", *WHERE, "a.txt", NOBODY, "--metadata", "year=1", "--json"
    )

    assert code == 3
    assert [row["type"] for row in parse_json_lines(out)] == ["updated", "failed"]
