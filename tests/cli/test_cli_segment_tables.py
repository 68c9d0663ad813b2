"""Review chunks in a table: export, edit, import."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl  # type: ignore[import-untyped]  # it has no stubs
import pytest
from cli_runner import Cli, create_dataset_with_documents

from dify_kb import Client, NewSegment
from dify_kb.archive.segment_tables import ChunkRow, open_writer, read_rows
from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dify_kb.emulator import Emulator

CONTENTS = ["=SUM(A1)", 'quoted "text", with commas', "two\nlines\r\nand tabs\t", "ünïcode 日本"]


@pytest.fixture
def document(emulator: Emulator) -> str:
    """Return the id of a document with chunks that tables easily spoil."""
    (id_,) = create_dataset_with_documents(emulator, "notes.txt").values()
    with Client(emulator.url, emulator.api_key) as client:
        dataset = client.datasets.find("base")
        assert dataset
        client.segments.create(
            dataset,
            id_,
            [NewSegment(content=text, keywords=["a, b", "c"]) for text in CONTENTS],
        )
    return id_


def list_contents(emulator: Emulator, document: str) -> list[tuple[str, bool]]:
    with Client(emulator.url, emulator.api_key) as client:
        dataset = client.datasets.find("base")
        assert dataset
        rows = client.segments.iter(dataset, document)
        return [(row.content, row.enabled is True) for row in rows]


def edit_csv(path: Path, edit: Callable[[list[dict[str, str]]], None]) -> None:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    edit(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "xlsx", "jsonl"])
def test_an_unedited_table_changes_nothing(
    cli: Cli, emulator: Emulator, document: str, tmp_path: Path, kind: str
) -> None:
    table, before = tmp_path / f"chunks.{kind}", list_contents(emulator, document)

    exported, _, _ = cli("segments", "export", "base", str(table))
    known = len(emulator.history)
    code, out, _ = cli("segments", "import", str(table), "--dataset", "base")

    assert (exported, code) == (0, 0)
    assert out == "5 unchanged.\n"
    assert list_contents(emulator, document) == before
    endpoints = {exchange.endpoint for exchange in emulator.history[known:]}
    assert endpoints == {"datasets.list", "segments.list"}
    assert [row.content for row in read_rows(table)][1:] == CONTENTS
    assert next(iter(read_rows(table))).document == "notes.txt"


def test_edits_new_rows_deletes_and_states_are_applied(
    cli: Cli, emulator: Emulator, document: str, tmp_path: Path
) -> None:
    table = tmp_path / "chunks.csv"
    cli("segments", "export", "base", str(table))

    def edit(rows: list[dict[str, str]]) -> None:
        rows[0]["content"] = "# edited"
        rows[1]["delete"] = "yes"
        rows[2]["enabled"] = "no"
        rows.append(
            {**dict.fromkeys(rows[0], ""), "document_id": document, "content": "added by hand"}
        )

    edit_csv(table, edit)
    before = list_contents(emulator, document)
    dry, would, _ = cli("segments", "import", str(table), "-d", "base", "--dry-run")
    unchanged = list_contents(emulator, document) == before

    code, out, _ = cli("segments", "import", str(table), "-d", "base")

    assert (dry, unchanged, code) == (0, True, 0)
    assert out == "1 created, 1 deleted, 2 unchanged, 2 updated.\n"
    assert would == f"Would be: {out}"
    assert list_contents(emulator, document) == [
        ("# edited", True),
        (CONTENTS[1], False),
        (CONTENTS[2], True),
        (CONTENTS[3], True),
        ("added by hand", True),
    ]


def test_a_chunk_that_somebody_changed_meanwhile_is_a_conflict(
    cli: Cli, emulator: Emulator, document: str, tmp_path: Path
) -> None:
    table = tmp_path / "chunks.csv"
    cli("segments", "export", "base", str(table))
    with Client(emulator.url, emulator.api_key) as client:
        dataset = client.datasets.find("base")
        assert dataset
        (first, *_) = client.segments.list(dataset, document).data
        client.segments.update(dataset, document, first.id, content="theirs")
    edit_csv(table, lambda rows: rows[0].update(content="mine"))

    code, out, err = cli("segments", "import", str(table), "-d", "base")

    assert code == 3
    assert out == "1 conflict, 4 unchanged.\n"
    assert "changed on the server" in err
    assert list_contents(emulator, document)[0] == ("theirs", True)
    assert cli("segments", "import", str(table), "-d", "base", "--force")[0] == 0
    assert list_contents(emulator, document)[0] == ("mine", True)


def test_formulas_are_text_in_a_workbook(cli: Cli, document: str, tmp_path: Path) -> None:
    """A chunk that begins with = must not run in a spreadsheet."""
    cli("segments", "export", "base", str(tmp_path / "a.xlsx"))

    sheet: Any = openpyxl.load_workbook(tmp_path / "a.xlsx").worksheets[0]

    assert sheet["F3"].value == "=SUM(A1)"
    assert sheet["F3"].data_type == "s"
    assert document


def test_a_table_appears_only_complete(tmp_path: Path) -> None:
    row = ChunkRow(document="a", document_id="1", content="control \x01")

    with pytest.raises(ConfigError, match="XLSX"), open_writer(tmp_path / "a.xlsx") as write:
        write(row)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "Unknown format"),
        ("a.csv", "content\nx\n", "no document_id"),
        ("a.jsonl", "nonsense\n", "not a JSON object"),
        ("a.jsonl", json.dumps({"document_id": "1"}), "no content"),
        ("a.xlsx", "not a zip", "not an XLSX file"),
        ("missing.csv", None, "Cannot read"),
    ],
)
def test_unusable_tables_are_refused(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(ConfigError, match=message):
        list(read_rows(tmp_path / name))
