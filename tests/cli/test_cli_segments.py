"""Commands of chunks and child chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import (
    Cli,
    called_endpoints,
    create_dataset_with_documents,
    model_field_names,
    parse_error,
    parse_json_lines,
)

from dify_kb.emulator import Emulator
from dify_kb.models import ChildChunk, Segment

NOBODY = "00000000-0000-4000-8000-000000000000"


def test_segment_create_show_update_delete(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]

    code, out, _ = cli("segments", "create", *where, "two", "three", "--keyword", "bat", "--json")
    made = parse_json_lines(out)

    assert code == 0
    assert [row["content"] for row in made] == ["two", "three"]
    assert made[0].keys() >= model_field_names(Segment)
    two, three = (row["id"] for row in made)
    assert cli("segments", "update", *where, two, "--content", "zwei")[0] == 0
    assert cli("segments", "disable", *where, two, three)[0] == 0
    _, out, _ = cli("segments", "show", *where, two, "--json")
    assert (parse_json_lines(out)[0]["content"], parse_json_lines(out)[0]["enabled"]) == (
        "zwei",
        False,
    )
    assert cli("segments", "enable", *where, two)[0] == 0
    assert cli("segments", "delete", *where, two, three)[0] == 2
    assert cli("segments", "delete", *where, two, three, "--yes")[0] == 0
    _, out, _ = cli("segments", "list", *where)
    assert [line.split()[0] for line in out.splitlines()] == ["position", "1"]


def test_listed_segments_can_be_appended_to_another_document(
    cli: Cli, emulator: Emulator, tmp_path: Path
) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    where = ["--dataset", "base", "--document"]
    cli("segments", "create", *where, "a.txt", *(f"chunk {number}" for number in range(120)))
    file = tmp_path / "chunks.jsonl"
    file.write_text(cli("segments", "list", *where, "a.txt", "--json")[1] + json.dumps("last"))

    code, out, _ = cli("segments", "create", *where, "b.txt", "--from", str(file))

    assert (code, out) == (0, "Appended 122 chunks.\n")
    _, out, _ = cli("segments", "list", *where, "b.txt", "--json")
    copied = [row["content"] for row in parse_json_lines(out)][1:]
    assert copied == ["Wombats dig.", *(f"chunk {number}" for number in range(120)), "last"]


def test_segments_created_before_a_failure_are_counted(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    emulator.faults.plan("segments.create", ["ok", "400"])
    texts = [f"chunk {number}" for number in range(60)]

    code, out, err = cli("segments", "create", "--dataset", "base", "--document", "a.txt", *texts)

    assert (code, out) == (3, "Appended 50 chunks.\n")
    assert "Created 50 of 60 chunks" in parse_error(err)[0]


@pytest.mark.parametrize("line", ["{", "7", '{"text": "x"}'])
def test_invalid_line_of_chunks_is_an_error(
    cli: Cli, emulator: Emulator, tmp_path: Path, line: str
) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    file = tmp_path / "chunks.jsonl"
    file.write_text(f'"good"\n{line}\n')
    where = ["--dataset", "base", "--document", "a.txt"]

    code, _, err = cli("segments", "create", *where, "--from", str(file))

    assert code == 2
    assert parse_error(err)[0] == f"Invalid chunk in line 2 of --from: {line!r}."
    assert "segments.create" not in called_endpoints(emulator)


def test_child_chunk_create_show_update_delete(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    where = ["--dataset", "base", "--document", "a.txt"]
    _, out, _ = cli("segments", "list", *where, "--json")
    where += ["--segment", parse_json_lines(out)[0]["id"]]

    code, out, _ = cli("child-chunks", "create", *where, "small", "--json")
    (made,) = parse_json_lines(out)

    assert code == 0
    assert made.keys() >= model_field_names(ChildChunk)
    assert made["type"] == "customized", "the model's own type"
    assert cli("child-chunks", "update", *where, made["id"], "smaller")[0] == 0
    _, out, _ = cli("child-chunks", "show", *where, made["id"])
    assert "smaller" in out
    assert cli("child-chunks", "delete", *where, made["id"])[0] == 0
    assert cli("child-chunks", "list", *where, "--json")[1] == ""
    assert "Child chunk not found" in parse_error(cli("child-chunks", "show", *where, NOBODY)[2])[0]
