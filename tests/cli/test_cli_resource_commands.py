"""Commands of all resources: list, show, create, update, delete and others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import (
    Cli,
    Shell,
    create_dataset_with_documents,
    list_document_names,
    model_field_names,
    parse_error,
    parse_json_lines,
)

from dify_kb.emulator import Emulator
from dify_kb.models import (
    Dataset,
    Document,
    DocumentDetail,
    MetadataField,
    Tag,
)

NOBODY = "00000000-0000-4000-8000-000000000000"
MEMBER = "11111111-1111-4111-8111-111111111111"

NOUNS = {
    "datasets": ["list", "show", "create", "update", "delete"],
    "documents": [
        *("list", "show", "create", "update", "rename", "delete"),
        *("enable", "disable", "archive", "unarchive"),
    ],
    "segments": ["list", "show", "create", "update", "delete", "enable", "disable"],
    "child-chunks": ["list", "show", "create", "update", "delete"],
    "metadata": ["list", "show", "create", "update", "delete", "assign", "built-in"],
    "tags": ["list", "show", "create", "update", "delete", "bind", "unbind"],
    "models": ["list", "show"],
}


@pytest.mark.parametrize(
    "command",
    [["stats"], *([noun] for noun in NOUNS), *([n, verb] for n in NOUNS for verb in NOUNS[n])],
    ids=" ".join,
)
def test_help_reads_well_at_80_columns(cli: Cli, command: list[str]) -> None:
    code, out, _ = cli(*command, "--help")

    assert code == 0
    assert out.startswith(f"Usage: dify-kb {' '.join(command)}")
    assert max(map(len, out.splitlines())) <= 80
    assert len(command) > 1 or not any(line.endswith("...") for line in out.splitlines()[1:])


def test_dataset_create_show_update_delete(cli: Cli) -> None:
    assert cli("datasets", "create", "one", "--technique", "economy", "--member", MEMBER)[0] == 0
    assert cli("datasets", "update", "one", "--name", "two", "--description", "new")[0] == 0

    _, out, _ = cli("datasets", "show", "two", "--json")

    (row,) = parse_json_lines(out)
    assert row["type"] == "dataset"
    assert row.keys() - {"type"} >= model_field_names(Dataset)
    assert (row["description"], row["permission"]) == ("new", "partial_members")
    assert cli("datasets", "delete", row["id"])[0] == 0
    assert cli("datasets", "list", "--json")[1] == ""


def test_deleting_a_dataset_with_documents_requires_confirmation(
    cli: Cli, emulator: Emulator
) -> None:
    """Deleting a dataset deletes its documents too."""
    create_dataset_with_documents(emulator, "a.txt")

    code, _, err = cli("datasets", "delete", "base")

    assert code == 2
    assert (
        parse_error(err)[0] == "Cannot ask to confirm the deletion of 1 dataset with 1 document:"
        " standard input is not a terminal."
    )
    assert cli("datasets", "delete", "base", "--yes")[0] == 0


def test_document_is_renamed(cli: Cli, emulator: Emulator) -> None:
    ids = create_dataset_with_documents(emulator, "a.txt", "b.txt")

    code, out, _ = cli("documents", "rename", "a.txt", "c.txt", "-d", "base", "--wait", "--json")

    assert code == 0
    (row,) = parse_json_lines(out)
    assert (row["id"], row["name"], row["indexing_status"]) == (ids["a.txt"], "c.txt", "completed")
    code, out, _ = cli("documents", "rename", ids["b.txt"], "d.txt", "-d", "base")
    assert code == 0
    assert "d.txt" in out
    assert list_document_names(emulator) == {"c.txt", "d.txt"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope.txt", "c.txt"], 1, "nope.txt"),
        (["a.txt", ""], 2, "name"),
        (["a.txt", "x" * 201], 2, "200"),
    ],
    ids=["unknown document", "empty name", "long name"],
)
def test_document_is_not_renamed(
    cli: Cli, emulator: Emulator, arguments: list[str], code: int, message: str
) -> None:
    create_dataset_with_documents(emulator, "a.txt")

    found, _, err = cli("documents", "rename", *arguments, "-d", "base")

    assert found == code
    assert message in err
    assert list_document_names(emulator) == {"a.txt"}


def test_dataset_created_without_members_exits_3(cli: Cli, emulator: Emulator) -> None:
    emulator.faults.plan("datasets.update", ["400"])

    code, out, err = cli("datasets", "create", "one", "--member", MEMBER, "--json")

    assert (code, parse_json_lines(out)[0]["exit"]) == (3, 3)
    assert "was created without its members" in parse_error(err)[0]


def test_datasets_are_deleted_by_a_pattern(cli: Cli) -> None:
    for name in ("test-1", "test-2", "kept"):
        cli("datasets", "create", name)

    assert cli("datasets", "delete", "--name", "test-*", "--dry-run")[2].startswith("2 datasets")
    assert cli("datasets", "delete", "--name", "test-*", "--yes")[0] == 0
    assert [row["name"] for row in parse_json_lines(cli("datasets", "list", "--json")[1])] == [
        "kept"
    ]
    assert parse_error(cli("datasets", "delete")[2])[0] == "No dataset selected."


def test_document_create_show_update_delete(cli: Cli, emulator: Emulator, tmp_path: Path) -> None:
    create_dataset_with_documents(emulator)
    file = tmp_path / "a.txt"
    file.write_text("Wombats dig.")

    code, out, _ = cli("documents", "create", "--dataset", "base", str(file), "--wait", "--json")
    (made,) = parse_json_lines(out)

    assert code == 0
    assert made["indexing_status"] == "completed"
    assert made.keys() >= model_field_names(Document)
    cli("documents", "update", "--dataset", "base", "a.txt", "--text", "Bats fly.", "--wait")
    _, out, _ = cli("documents", "show", "--dataset", "base", "a.txt", "--json")
    (shown,) = parse_json_lines(out)
    assert shown.keys() >= model_field_names(DocumentDetail)
    assert (shown["id"], shown["segment_count"]) == (made["id"], 1)
    _, out, _ = cli("segments", "list", "--dataset", "base", "--document", "a.txt", "--json")
    assert [row["content"] for row in parse_json_lines(out)] == ["Bats fly."]
    assert cli("documents", "delete", "--dataset", "base", "a.txt")[0] == 0


def test_wait_fails_for_a_document_that_search_cannot_find(cli: Cli, emulator: Emulator) -> None:
    """No search finds such a document, even if its status is `completed`."""
    emulator.faults.indexing(["error no such model"], names="bad.txt")
    create_dataset_with_documents(emulator)
    create = ["documents", "create", "--dataset", "base", "--wait"]

    code, out, err = cli(*create, "--name", "bad.txt", "--text", "x", "--json")
    assert (
        code,
        parse_json_lines(out)[0]["indexing_status"],
        parse_json_lines(out)[1]["exit"],
    ) == (1, "error", 1)
    assert parse_error(err)[0] == "Indexing of 'bad.txt' failed: no such model"
    code, out, err = cli(*create, "--name", "empty.txt", "--text", " ")
    assert (code, "completed" in out) == (1, True)
    assert parse_error(err)[0] == "'empty.txt': completed, but nothing was indexed."


def test_times_are_shown_as_dates(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    cli("metadata", "create", "--dataset", "base", "due", "--type", "time")
    cli("metadata", "create", "--dataset", "base", "seen", "--type", "time")
    cli("metadata", "create", "--dataset", "base", "year", "--type", "number")
    sets = [
        "--metadata",
        "due=2024-12-31T12:00",
        "--metadata",
        "seen=1e30",
        "--metadata",
        "year=2024",
    ]
    cli("metadata", "assign", "--dataset", "base", "a.txt", *sets)

    _, out, _ = cli("documents", "show", "--dataset", "base", "a.txt")

    assert "due=2024-12-31 " in out
    assert "seen=1e+30, year=2024," in out, "no date, and a number without commas"
    assert re.search(r"upload_date=20\d\d-\d\d-\d\d ", out), "which the server tells as a text"


def test_table_lines_have_no_trailing_spaces(cli: Cli) -> None:
    cli("datasets", "create", "one")

    _, out, _ = cli("datasets", "show", "one")

    assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_document_requires_a_name_and_one_source(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator)
    create = ["documents", "create", "--dataset", "base"]

    assert parse_error(cli(*create, "--text", "x")[2]) == (
        "No name for the document.",
        "Pass --name.",
    )
    assert "No content" in parse_error(cli(*create)[2])[0]
    assert "cannot be combined" in parse_error(cli(*create, "a.txt", "--text", "x")[2])[0]


def test_field_create_show_update_delete(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    where = ["--dataset", "base"]

    code, out, _ = cli("metadata", "create", *where, "year", "--type", "number", "--json")
    (made,) = parse_json_lines(out)

    assert code == 0
    assert made.keys() == model_field_names(MetadataField)
    assert made["type"] == "number", "the model's own type"
    assert cli("metadata", "update", *where, "year", "jahr")[0] == 0
    assert cli("metadata", "assign", *where, "a.txt", "--metadata", "jahr=2024")[0] == 0
    _, out, _ = cli("metadata", "show", *where, made["id"], "--json")
    assert (parse_json_lines(out)[0]["name"], parse_json_lines(out)[0]["count"]) == ("jahr", 1)
    assert cli("metadata", "built-in", *where, "enable")[0] == 0
    _, out, err = cli("metadata", "list", *where)
    assert "jahr" in out
    assert "Built-in fields are enabled." in err
    assert "uploader" in cli("metadata", "list", *where, "--built-in")[1]
    assert cli("metadata", "delete", *where, "jahr")[0] == 0


def test_tag_create_show_update_delete(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator)

    code, out, _ = cli("tags", "create", "infra", "--json")
    (made,) = parse_json_lines(out)

    assert code == 0
    assert made.keys() == model_field_names(Tag)
    assert cli("tags", "bind", "--dataset", "base", "infra")[0] == 0
    assert cli("tags", "update", made["id"], "ops")[0] == 0
    _, out, _ = cli("tags", "show", "ops", "--json")
    assert parse_json_lines(out)[0]["binding_count"] == 1
    assert "ops" in cli("tags", "list", "--dataset", "base")[1]
    assert "base" in cli("datasets", "list", "--tag", "ops")[1]
    assert cli("tags", "unbind", "--dataset", "base", "ops")[0] == 0
    assert cli("datasets", "list", "--tag", "ops", "--json")[1] == ""
    assert cli("tags", "delete", "ops")[0] == 0
    assert cli("tags", "list", "--json")[1] == ""


def test_unbind_by_name_without_a_list_of_all_tags(shell: Shell, tmp_path: Path) -> None:
    """Dify 1.12.1 refuses to list all tags, but lists those of a dataset."""
    with Emulator(tmp_path / "e.db") as server:
        cli = shell(server)
        create_dataset_with_documents(server)
        cli("tags", "create", "infra")
        cli("tags", "bind", "--dataset", "base", "infra")
    with Emulator(tmp_path / "e.db", version="1.12.1") as server:
        cli = shell(server)

        assert cli("tags", "unbind", "--dataset", "base", "infra")[0] == 0
        assert cli("tags", "list", "--dataset", "base", "--json")[1] == ""
        code, _, err = cli("tags", "unbind", "--dataset", "base", "infra")

    assert code == 1
    assert parse_error(err)[0] == "Tag not found: 'infra'."


def test_models_list_and_unknown_model(cli: Cli) -> None:
    assert cli("models", "list")[0] == 0

    code, _, err = cli("models", "show", "nope")

    assert code == 1
    assert parse_error(err)[0] == "Model not found: 'nope'."


def test_nothing_to_change_is_an_error(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]

    assert "Nothing to change" in parse_error(cli("datasets", "update", "base")[2])[0]
    assert "Nothing to change" in parse_error(cli("segments", "update", *where, NOBODY)[2])[0]
    assert "No chunks to append" in parse_error(cli("segments", "create", *where)[2])[0]
