"""Lists: --sort and --limit, and the same selection as of the commands that change documents."""

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


@pytest.fixture
def documents(emulator: Emulator) -> dict[str, str]:
    """Create documents; return their ids by name."""
    return create_dataset_with_documents(emulator, "b.txt", "A.txt", "c.md")


def list_names(cli: Cli, *options: str) -> list[str]:
    code, out, _ = cli("--json", "documents", "list", "-d", "base", *options)
    assert code == 0
    return [row["name"] for row in parse_json_lines(out)]


def test_rows_are_sorted_by_a_column_in_both_directions(
    cli: Cli, documents: dict[str, str]
) -> None:
    assert list_names(cli, "--sort", "name") == ["A.txt", "b.txt", "c.md"]
    assert list_names(cli, "--sort=-name", "--limit", "2") == ["c.md", "b.txt"]
    assert set(list_names(cli)) == {*documents}


def test_rows_without_a_value_come_last(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "x", name="Zoo")
    cli("datasets", "create", "new")  # without a technique

    for sort in ("technique", "-technique"):
        _, out, _ = cli("--json", "datasets", "list", "--sort", sort)
        assert [row["name"] for row in parse_json_lines(out)] == ["Zoo", "new"]


def test_a_limit_without_a_sort_stops_the_requests(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, *(f"{n}.txt" for n in range(101)))
    requests = len(called_endpoints(emulator))

    assert len(list_names(cli, "--limit", "3")) == 3
    assert called_endpoints(emulator)[requests:] == ["datasets.list", "documents.list"]


@pytest.mark.usefixtures("documents")
def test_an_unknown_column_is_an_error(cli: Cli) -> None:
    code, _, err = cli("documents", "list", "-d", "base", "--sort", "size")

    assert code == 2
    assert parse_error(err) == (
        "Unknown column 'size' for --sort.",
        "Choose one of: name, status, characters, error, id.",
    )


def test_documents_are_listed_as_they_are_deleted(cli: Cli, documents: dict[str, str]) -> None:
    cli("metadata", "create", "-d", "base", "year", "--type", "number")
    cli("metadata", "assign", "-d", "base", "b.txt", "--metadata", "year:=2024")

    for options in (
        ["--name", "*.txt"],
        ["--filter", "year >= 2024"],
        ["--all"],
        ["--status", "available"],
        ["b.txt", documents["c.md"]],
    ):
        _, out, _ = cli("--json", "documents", "delete", "-d", "base", *options, "--dry-run")
        assert {row["name"] or "c.md" for row in parse_json_lines(out)} == {
            *list_names(cli, *options)
        }


@pytest.mark.usefixtures("documents")
def test_names_and_conditions_cannot_be_combined(cli: Cli) -> None:
    code, _, err = cli("documents", "list", "-d", "base", "b.txt", "--name", "*")

    assert (code, parse_error(err)[0]) == (2, "Names and conditions cannot be combined.")


def test_an_id_of_another_dataset_is_an_error(cli: Cli, documents: dict[str, str]) -> None:
    cli("datasets", "create", "other")

    code, _, err = cli("documents", "list", "-d", "other", documents["b.txt"])

    assert code == 1
    assert parse_error(err)[0] == f"Document not found: {documents['b.txt']}."


def test_datasets_are_listed_by_a_glob(cli: Cli) -> None:
    for name in ("hr-2023", "hr-2024", "it-2024"):
        cli("datasets", "create", name)

    _, out, _ = cli("--json", "datasets", "list", "--name", "hr-*", "--sort", "name")

    assert [row["name"] for row in parse_json_lines(out)] == ["hr-2023", "hr-2024"]


def test_metadata_of_a_load_is_converted_like_that_of_assign(cli: Cli, docs: object) -> None:
    cli("datasets", "create", "d", "--technique", "economy")
    cli("metadata", "create", "-d", "d", "year", "--type", "number")

    assert cli("load", str(docs), "-d", "d", "--metadata", "year=2024")[0] == 0
    assert cli("load", str(docs), "-d", "d", "--metadata", "year=soon")[0] == 2
    assert list_count(cli, "year = 2024") == 2


def list_count(cli: Cli, condition: str) -> int:
    _, out, _ = cli("--json", "documents", "list", "-d", "d", "--filter", condition)
    return len(parse_json_lines(out))
