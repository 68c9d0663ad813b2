"""Changes of many documents: selection, confirmation, a line for each result."""

from __future__ import annotations

import pytest
from cli_runner import (
    Cli,
    called_endpoints,
    create_dataset_with_documents,
    list_document_names,
    parse_error,
    parse_json_lines,
)

from dify_kb.cli import document_selection
from dify_kb.emulator import Emulator

NOBODY = "00000000-0000-4000-8000-000000000000"
WHERE = ["--dataset", "base"]


def test_documents_are_deleted_by_name_pattern(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(
        emulator, "draft-1.txt", "draft_2.txt", "Draft-3.txt", "final.txt"
    )

    code, out, err = cli("documents", "delete", *WHERE, "--name", "draft?[0-9]*", "--yes", "--json")

    assert code == 0
    assert {(row["type"], row["name"]) for row in parse_json_lines(out)} == {
        ("deleted", "draft-1.txt"),
        ("deleted", "draft_2.txt"),
    }
    assert err == "2 documents deleted.\n"
    assert list_document_names(emulator) == {"Draft-3.txt", "final.txt"}


def test_documents_are_selected_by_metadata(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "old.txt", "new.txt", "none.txt")
    cli("metadata", "create", *WHERE, "year", "--type", "number")
    cli("metadata", "create", *WHERE, "team")
    cli(
        "metadata",
        "assign",
        *WHERE,
        "old.txt",
        "--metadata",
        "year=2019",
        "--metadata",
        "team=infra",
    )
    cli(
        "metadata",
        "assign",
        *WHERE,
        "new.txt",
        "--metadata",
        "year=2024",
        "--metadata",
        "team=infra",
    )

    def chosen(*conditions: str) -> set[str]:
        options = [part for condition in conditions for part in ("--filter", condition)]
        _, out, _ = cli("documents", "delete", *WHERE, *options, "--dry-run", "--json")
        return {row["name"] for row in parse_json_lines(out)}

    assert chosen("year < 2020") == {"old.txt"}
    assert chosen("year = 2024") == {"new.txt"}
    assert chosen("team is infra", "year >= 2020") == {"new.txt"}
    assert chosen("team empty") == {"none.txt"}
    cli("metadata", "built-in", *WHERE, "enable")
    assert chosen("document_name end with d.txt") == {"old.txt"}


def test_documents_are_selected_by_date(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    cli("metadata", "create", *WHERE, "due", "--type", "time")
    cli("metadata", "assign", *WHERE, "a.txt", "--metadata", "due=2024-12-31")
    cli("metadata", "assign", *WHERE, "b.txt", "--metadata", "due=2026-12-31")

    code, _, _ = cli("documents", "delete", *WHERE, "--filter", "due before 2025-01-01")

    assert code == 0
    assert list_document_names(emulator) == {"b.txt"}


@pytest.mark.parametrize("command", [["search", "wombats"], ["documents", "delete", "--dry-run"]])
def test_condition_on_unknown_field_is_an_error(
    cli: Cli, emulator: Emulator, command: list[str]
) -> None:
    """The server would return an empty list, which looks like a valid result."""
    create_dataset_with_documents(emulator, "a.txt")
    cli("metadata", "create", *WHERE, "year", "--type", "number")

    code, _, err = cli(*command, *WHERE, "--filter", "yaer > 2020")

    assert code == 1
    assert parse_error(err)[0] == "Metadata field not found: 'yaer'."
    assert parse_error(err)[1].startswith("Did you mean 'year'?")


def test_documents_are_selected_by_status(cli: Cli, emulator: Emulator) -> None:
    """All conditions must match."""
    emulator.faults.indexing(["error no such model"], names="bad*", always=True)
    create_dataset_with_documents(emulator, "bad.txt", "worse.txt", "bad.md")

    code, _, _ = cli("documents", "delete", *WHERE, "--status", "error", "--name", "*.txt")

    assert code == 0
    assert list_document_names(emulator) == {"worse.txt", "bad.md"}


def test_a_dry_run_changes_nothing(cli: Cli, emulator: Emulator) -> None:
    ids = create_dataset_with_documents(emulator, "a.txt", "b.txt")
    before = len(emulator.history)

    code, out, err = cli("documents", "archive", *WHERE, "--all", "--dry-run", "--json")

    assert code == 0
    assert {row["id"] for row in parse_json_lines(out)} == set(ids.values())
    assert {row["type"] for row in parse_json_lines(out)} == {"would be archived"}
    assert err == "2 documents would be archived.\n"
    assert set(called_endpoints(emulator)[before:]) == {"datasets.list", "documents.list"}


def test_documents_are_disabled_enabled_and_archived(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt", "c.txt")

    assert cli("documents", "disable", *WHERE, "a.txt", "b.txt")[0] == 0
    assert list_document_names(emulator, "disabled") == {"a.txt", "b.txt"}
    assert cli("documents", "enable", *WHERE, "--status", "disabled")[0] == 0
    assert cli("documents", "archive", *WHERE, "--name", "c*")[0] == 0
    assert list_document_names(emulator, "archived") == {"c.txt"}
    assert cli("documents", "unarchive", *WHERE, "--all")[0] == 0
    assert list_document_names(emulator, "available") == {"a.txt", "b.txt", "c.txt"}


def test_refused_document_does_not_block_the_others(cli: Cli, emulator: Emulator) -> None:
    """The server changes all documents of a request or none."""
    emulator.faults.indexing(["error no such model"], names="bad*")
    good = [f"{number}.txt" for number in range(6)]
    create_dataset_with_documents(emulator, *good[:3], "bad.txt", *good[3:])

    code, out, err = cli("documents", "disable", *WHERE, "--all", "--json")

    assert code == 3
    told = {row["name"]: row for row in parse_json_lines(out)}
    assert told["bad.txt"]["type"] == "failed"
    assert "not completed" in told["bad.txt"]["error"]
    assert list_document_names(emulator, "disabled") == set(good)
    assert err == "6 documents disabled, 1 failed.\n"


def test_archived_documents_fail_and_others_are_deleted(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt", "c.txt")
    cli("documents", "archive", *WHERE, "b.txt")

    code, out, err = cli("documents", "delete", *WHERE, "--all", "--yes")

    assert code == 3
    assert out.count("Deleted") == 2
    assert "failed  b.txt" in err
    assert list_document_names(emulator) == {"b.txt"}
    code, _, err = cli("documents", "delete", *WHERE, "b.txt")
    assert (code, parse_error(err)[1]) == (1, "Unarchive the document first.")


def test_general_error_stops_and_prints_counts(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, *(f"{number}.txt" for number in range(9)))
    emulator.faults.plan("documents.delete", ["ok", *["401"] * 4])

    code, _, err = cli("documents", "delete", *WHERE, "--all", "--yes")

    assert code == 4
    assert "401" in parse_error(err)[0]
    assert f"{9 - len(list_document_names(emulator))} of 9 documents deleted." in err


def test_requests_in_flight_at_a_stop_are_counted(cli: Cli, emulator: Emulator) -> None:
    """The server deletes the document even if the client does not wait for the response."""
    create_dataset_with_documents(emulator, *(f"{number}.txt" for number in range(9)))
    emulator.faults.plan("documents.delete", ["stall 0.2", "stall 0.2", "401", *["ok"] * 9])

    code, out, err = cli("documents", "delete", *WHERE, "--all", "--yes", "--json")

    left = list_document_names(emulator)
    assert code == 4
    assert len([row for row in parse_json_lines(out) if row["type"] == "deleted"]) == 9 - len(left)
    assert f"{9 - len(left)} of 9 documents deleted." in err


def test_chunk_ids_are_validated_before_any_deletion(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    where = [*WHERE, "--document", "a.txt"]

    code, _, err = cli("segments", "delete", *where, NOBODY, "first", "--yes")

    assert code == 2
    assert parse_error(err)[0] == "Invalid chunk id: 'first'."
    assert "segments.delete" not in called_endpoints(emulator)


def test_refusal_of_a_single_document_is_an_error(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator)

    code, _, err = cli("documents", "delete", *WHERE, NOBODY)

    assert code == 1
    assert "returned 404" in parse_error(err)[0]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "No documents selected."),
        (["a.txt", "--all"], "Names and conditions cannot be combined."),
        (["--filter", "year ~ 3"], "Invalid condition 'year ~ 3' for --filter."),
    ],
)
def test_invalid_selection_is_an_error(
    cli: Cli, emulator: Emulator, arguments: list[str], what: str
) -> None:
    """A forgotten argument must not delete all documents."""
    code, _, err = cli("documents", "delete", *WHERE, *arguments, "--yes")

    assert code == 2
    assert parse_error(err)[0] == what
    assert emulator.history == []


@pytest.mark.parametrize(
    ("pattern", "part"),
    [("draft*", "draft"), ("*a*long one?", "long one"), ("[ab]c[de]fg", "fg"), ("a\\b", "a")],
)
def test_longest_literal_is_in_every_match(pattern: str, part: str) -> None:
    assert document_selection.longest_literal(pattern) == part


def test_longest_literal_of_wildcards_is_unset() -> None:
    assert not document_selection.longest_literal("*[ab]?")
