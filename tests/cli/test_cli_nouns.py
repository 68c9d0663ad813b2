"""Every resource from the shell: list, show, create, update, delete, switch, assign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from cli_calls import Cli, Shell, asked, base, lines, two_lines

from dify_kb import Client
from dify_kb.emulator import Emulator
from dify_kb.models import (
    ChildChunk,
    Dataset,
    Document,
    DocumentDetail,
    MetadataField,
    Segment,
    Tag,
)

NOBODY = "00000000-0000-4000-8000-000000000000"
MEMBER = "11111111-1111-4111-8111-111111111111"

NOUNS = {
    "datasets": ["list", "show", "create", "update", "delete"],
    "documents": [
        *("list", "show", "create", "update", "delete"),
        *("enable", "disable", "archive", "unarchive"),
    ],
    "segments": ["list", "show", "create", "update", "delete", "enable", "disable"],
    "child-chunks": ["list", "show", "create", "update", "delete"],
    "metadata": ["list", "show", "create", "update", "delete", "assign", "built-in"],
    "tags": ["list", "show", "create", "update", "delete", "bind", "unbind"],
    "models": ["list", "show"],
}


def keys(model: Any) -> set[str]:
    """What a program finds in a line: the fields of the model."""
    return {field.name for field in attrs.fields(model)} - {"extra"}


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


def test_a_dataset_s_life(cli: Cli) -> None:
    assert cli("datasets", "create", "one", "--technique", "economy", "--member", MEMBER)[0] == 0
    assert cli("datasets", "update", "one", "--name", "two", "--description", "new")[0] == 0

    _, out, _ = cli("datasets", "show", "two", "--json")

    (row,) = lines(out)
    assert row["type"] == "dataset"
    assert row.keys() - {"type"} >= keys(Dataset)
    assert (row["description"], row["permission"]) == ("new", "partial_members")
    assert cli("datasets", "delete", row["id"])[0] == 0
    assert cli("datasets", "list", "--json")[1] == ""


def test_a_dataset_with_documents_is_not_deleted_unasked(cli: Cli, emulator: Emulator) -> None:
    """Its documents are more than one thing."""
    base(emulator, "a.txt")

    code, _, err = cli("datasets", "delete", "base")

    assert code == 2
    assert two_lines(err)[0] == "1 dataset with 1 document would be deleted; nothing was."
    assert cli("datasets", "delete", "base", "--yes")[0] == 0


def test_a_dataset_without_its_members_is_told(cli: Cli, emulator: Emulator) -> None:
    emulator.faults.plan("datasets.update", ["400"])

    code, out, err = cli("datasets", "create", "one", "--member", MEMBER, "--json")

    assert (code, lines(out)[0]["exit"]) == (3, 3)
    assert "was made, but its members were not set" in two_lines(err)[0]


def test_datasets_are_deleted_by_a_pattern(cli: Cli) -> None:
    for name in ("test-1", "test-2", "kept"):
        cli("datasets", "create", name)

    assert cli("datasets", "delete", "--name", "test-*", "--dry-run")[2].startswith("2 datasets")
    assert cli("datasets", "delete", "--name", "test-*", "--yes")[0] == 0
    assert [row["name"] for row in lines(cli("datasets", "list", "--json")[1])] == ["kept"]
    assert two_lines(cli("datasets", "delete")[2])[0] == "No dataset is named."


def test_a_document_s_life(cli: Cli, emulator: Emulator, tmp_path: Path) -> None:
    base(emulator)
    file = tmp_path / "a.txt"
    file.write_text("Wombats dig.")

    code, out, _ = cli("documents", "create", "--dataset", "base", str(file), "--wait", "--json")
    (made,) = lines(out)

    assert code == 0
    assert made["indexing_status"] == "completed"
    assert made.keys() >= keys(Document)
    cli("documents", "update", "--dataset", "base", "a.txt", "--text", "Bats fly.", "--wait")
    _, out, _ = cli("documents", "show", "--dataset", "base", "a.txt", "--json")
    (shown,) = lines(out)
    assert shown.keys() >= keys(DocumentDetail)
    assert (shown["id"], shown["segment_count"]) == (made["id"], 1)
    _, out, _ = cli("segments", "list", "--dataset", "base", "--document", "a.txt", "--json")
    assert [row["content"] for row in lines(out)] == ["Bats fly."]
    assert cli("documents", "delete", "--dataset", "base", "a.txt")[0] == 0


def test_a_document_that_is_not_found_is_an_error_to_who_waits(
    cli: Cli, emulator: Emulator
) -> None:
    """It is there, and `completed` or not, no search finds it."""
    emulator.faults.indexing(["error no such model"], names="bad.txt")
    base(emulator)
    create = ["documents", "create", "--dataset", "base", "--wait"]

    code, out, err = cli(*create, "--name", "bad.txt", "--text", "x", "--json")
    assert (code, lines(out)[0]["indexing_status"], lines(out)[1]["exit"]) == (1, "error", 1)
    assert two_lines(err)[0] == "'bad.txt' was not indexed: no such model"
    code, out, err = cli(*create, "--name", "empty.txt", "--text", " ")
    assert (code, "completed" in out) == (1, True)
    assert two_lines(err)[0] == "'empty.txt' is completed, but nothing was indexed."


def test_times_are_shown_as_dates(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    cli("metadata", "create", "--dataset", "base", "due", "--type", "time")
    cli("metadata", "assign", "--dataset", "base", "a.txt", "--set", "due=2024-12-31T12:00")

    _, out, _ = cli("documents", "show", "--dataset", "base", "a.txt")

    assert "due=2024-12-31 " in out


def test_lines_of_a_table_end_with_their_last_letter(cli: Cli) -> None:
    cli("datasets", "create", "one")

    _, out, _ = cli("datasets", "show", "one")

    assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_a_text_needs_a_name_and_one_source(cli: Cli, emulator: Emulator) -> None:
    base(emulator)
    create = ["documents", "create", "--dataset", "base"]

    assert two_lines(cli(*create, "--text", "x")[2]) == ("The text has no name.", "Pass --name.")
    assert "nothing to send" in two_lines(cli(*create)[2])[0]
    assert "Both" in two_lines(cli(*create, "a.txt", "--text", "x")[2])[0]


def test_a_segment_s_life(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]

    code, out, _ = cli("segments", "create", *where, "two", "three", "--keyword", "bat", "--json")
    made = lines(out)

    assert code == 0
    assert [row["content"] for row in made] == ["two", "three"]
    assert made[0].keys() >= keys(Segment)
    two, three = (row["id"] for row in made)
    assert cli("segments", "update", *where, two, "--content", "zwei")[0] == 0
    assert cli("segments", "disable", *where, two, three)[0] == 0
    _, out, _ = cli("segments", "show", *where, two, "--json")
    assert (lines(out)[0]["content"], lines(out)[0]["enabled"]) == ("zwei", False)
    assert cli("segments", "enable", *where, two)[0] == 0
    assert cli("segments", "delete", *where, two, three)[0] == 2
    assert cli("segments", "delete", *where, two, three, "--yes")[0] == 0
    _, out, _ = cli("segments", "list", *where)
    assert [line.split()[0] for line in out.splitlines()] == ["#", "1"]


def test_segments_are_copied_as_they_are_listed(
    cli: Cli, emulator: Emulator, tmp_path: Path
) -> None:
    base(emulator, "a.txt", "b.txt")
    where = ["--dataset", "base", "--document"]
    cli("segments", "create", *where, "a.txt", *(f"chunk {number}" for number in range(120)))
    file = tmp_path / "chunks.jsonl"
    file.write_text(cli("segments", "list", *where, "a.txt", "--json")[1] + json.dumps("last"))

    code, out, _ = cli("segments", "create", *where, "b.txt", "--from", str(file))

    assert (code, out) == (0, "Appended 122 chunks.\n")
    _, out, _ = cli("segments", "list", *where, "b.txt", "--json")
    copied = [row["content"] for row in lines(out)][1:]
    assert copied == ["Wombats dig.", *(f"chunk {number}" for number in range(120)), "last"]


def test_segments_that_were_made_before_a_failure_are_told(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    emulator.faults.plan("segments.create", ["ok", "400"])
    texts = [f"chunk {number}" for number in range(60)]

    code, out, err = cli("segments", "create", "--dataset", "base", "--document", "a.txt", *texts)

    assert (code, out) == (3, "Appended 50 chunks.\n")
    assert "50 of 60 chunks were made" in two_lines(err)[0]


@pytest.mark.parametrize("line", ["{", "7", '{"text": "x"}'])
def test_a_line_that_is_no_chunk_is_told(
    cli: Cli, emulator: Emulator, tmp_path: Path, line: str
) -> None:
    base(emulator, "a.txt")
    file = tmp_path / "chunks.jsonl"
    file.write_text(f'"good"\n{line}\n')
    where = ["--dataset", "base", "--document", "a.txt"]

    code, _, err = cli("segments", "create", *where, "--from", str(file))

    assert code == 2
    assert two_lines(err)[0] == f"Line 2 of --from is no chunk: {line!r}."
    assert "segments.create" not in asked(emulator)


def test_a_child_chunk_s_life(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]
    _, out, _ = cli("segments", "list", *where, "--json")
    where += ["--segment", lines(out)[0]["id"]]

    code, out, _ = cli("child-chunks", "create", *where, "small", "--json")
    (made,) = lines(out)

    assert code == 0
    assert made.keys() >= keys(ChildChunk)
    assert made["type"] == "customized", "the model's own type"
    assert cli("child-chunks", "update", *where, made["id"], "smaller")[0] == 0
    _, out, _ = cli("child-chunks", "show", *where, made["id"])
    assert "smaller" in out
    assert cli("child-chunks", "delete", *where, made["id"])[0] == 0
    assert cli("child-chunks", "list", *where, "--json")[1] == ""
    assert "no child chunk" in two_lines(cli("child-chunks", "show", *where, NOBODY)[2])[0]


def test_a_field_s_life(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    where = ["--dataset", "base"]

    code, out, _ = cli("metadata", "create", *where, "year", "--type", "number", "--json")
    (made,) = lines(out)

    assert code == 0
    assert made.keys() == keys(MetadataField)
    assert made["type"] == "number", "the model's own type"
    assert cli("metadata", "update", *where, "year", "jahr")[0] == 0
    assert cli("metadata", "assign", *where, "a.txt", "--set", "jahr=2024")[0] == 0
    _, out, _ = cli("metadata", "show", *where, made["id"], "--json")
    assert (lines(out)[0]["name"], lines(out)[0]["count"]) == ("jahr", 1)
    assert cli("metadata", "built-in", *where, "enable")[0] == 0
    _, out, err = cli("metadata", "list", *where)
    assert "jahr" in out
    assert "Built-in fields are shown." in err
    assert "uploader" in cli("metadata", "list", *where, "--built-in")[1]
    assert cli("metadata", "delete", *where, "jahr")[0] == 0


def test_a_tag_s_life(cli: Cli, emulator: Emulator) -> None:
    base(emulator)

    code, out, _ = cli("tags", "create", "infra", "--json")
    (made,) = lines(out)

    assert code == 0
    assert made.keys() == keys(Tag)
    assert cli("tags", "bind", "--dataset", "base", "infra")[0] == 0
    assert cli("tags", "update", made["id"], "ops")[0] == 0
    _, out, _ = cli("tags", "show", "ops", "--json")
    assert lines(out)[0]["binding_count"] == 1
    assert "ops" in cli("tags", "list", "--dataset", "base")[1]
    assert "base" in cli("datasets", "list", "--tag", "ops")[1]
    assert cli("tags", "unbind", "--dataset", "base", "ops")[0] == 0
    assert cli("datasets", "list", "--tag", "ops", "--json")[1] == ""
    assert cli("tags", "delete", "ops")[0] == 0
    assert cli("tags", "list", "--json")[1] == ""


def test_a_tag_is_taken_off_by_its_name_where_tags_cannot_be_listed(
    shell: Shell, tmp_path: Path
) -> None:
    """1.12.1 refuses its own list of tags, but tells those of a dataset."""
    with Emulator(tmp_path / "e.db") as server:
        cli = shell(server)
        base(server)
        cli("tags", "create", "infra")
        cli("tags", "bind", "--dataset", "base", "infra")
    with Emulator(tmp_path / "e.db", version="1.12.1") as server:
        cli = shell(server)

        assert cli("tags", "unbind", "--dataset", "base", "infra")[0] == 0
        assert cli("tags", "list", "--dataset", "base", "--json")[1] == ""
        code, _, err = cli("tags", "unbind", "--dataset", "base", "infra")

    assert code == 1
    assert two_lines(err)[0] == "No tag is called 'infra'."


def test_models_are_listed_and_those_unknown_are_told(cli: Cli) -> None:
    assert cli("models", "list")[0] == 0

    code, _, err = cli("models", "show", "nope")

    assert code == 1
    assert two_lines(err)[0] == "No model is called 'nope'."


@pytest.mark.parametrize(
    ("arguments", "what", "following"),
    [
        (["datasets", "show", "Bse"], "No dataset is called 'Bse'.", "Did you mean 'base'?"),
        (
            ["documents", "show", "--dataset", "base", "raedme.txt"],
            "No document is called 'raedme.txt'.",
            "Did you mean 'readme.txt'?",
        ),
        (
            ["metadata", "delete", "--dataset", "base", "yaer"],
            "No metadata field is called 'yaer'.",
            "Did you mean 'year'?",
        ),
        (["tags", "delete", "infar"], "No tag is called 'infar'.", "Did you mean 'infra'?"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(
    cli: Cli, emulator: Emulator, arguments: list[str], what: str, following: str
) -> None:
    base(emulator, "readme.txt")
    cli("metadata", "create", "--dataset", "base", "year")
    cli("tags", "create", "infra")

    code, _, err = cli(*arguments)

    assert code == 1
    assert two_lines(err)[0] == what
    assert two_lines(err)[1].startswith(following)


def test_an_ambiguous_name_gets_the_ids_to_choose_from(cli: Cli, emulator: Emulator) -> None:
    """A disabled document is not replaced by one of its name: then there are two."""
    first = base(emulator, "a.txt")["a.txt"]
    where = ["--dataset", "base"]
    cli("documents", "disable", *where, "a.txt")
    _, out, _ = cli("documents", "create", *where, "--name", "a.txt", "--text", "x", "--json")

    code, _, err = cli("documents", "delete", *where, "a.txt")

    assert code == 1
    what, following = two_lines(err)
    assert what == "2 documents are called 'a.txt'."
    assert first in following
    assert lines(out)[0]["id"] in following


def test_an_id_is_never_looked_for_in_a_list(cli: Cli, emulator: Emulator) -> None:
    """A key may be of one base only: then listing answers 403 (issue 37257 of Dify)."""
    documents = base(emulator, "a.txt")
    with Client(emulator.url, emulator.api_key) as client:
        found = client.datasets.find("base")
        tag = client.tags.create("infra")
    assert found is not None
    before = len(emulator.history)

    where = ["--dataset", found.id]
    assert cli("documents", "show", *where, documents["a.txt"])[0] == 0
    assert cli("tags", "bind", *where, tag.id)[0] == 0
    assert cli("documents", "disable", *where, documents["a.txt"])[0] == 0
    assert cli("documents", "delete", *where, documents["a.txt"])[0] == 0
    assert cli("datasets", "delete", found.id)[0] == 0

    assert not [name for name in asked(emulator)[before:] if name.endswith(".list")]


def test_nothing_to_change_is_told(cli: Cli, emulator: Emulator) -> None:
    base(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]

    assert "nothing to change" in two_lines(cli("datasets", "update", "base")[2])[0]
    assert "nothing to change" in two_lines(cli("segments", "update", *where, NOBODY)[2])[0]
    assert "nothing to append" in two_lines(cli("segments", "create", *where)[2])[0]
