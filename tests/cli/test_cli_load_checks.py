"""A load that cannot work makes nothing: no dataset, journal, log file or bars."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import Cli, called_endpoints, parse_error

from dify_kb.emulator import Emulator

WRONG_LOADS = {
    "empty": "No files to load in",
    "{docs} --include nothing": "No files to load in",
    "/nowhere": "Cannot load /nowhere",
    "{docs} --rate 100": "Invalid rate '100'",
    "{docs} --concurrency 0": "Invalid value '0' for --concurrency.",
    "{docs} --deadline x": "Invalid duration 'x' for --deadline.",
    "{docs} --stall-after x": "Invalid duration 'x' for --stall-after.",
    "{docs} --max-file-size x": "Invalid size 'x' for --max-file-size.",
    "{docs} --max-failures x": "Invalid value 'x' for --max-failures.",
    "{docs} --chunk-size 10": "Invalid value '10' for --chunk-size.",
    "{docs} --chunk-size 100 --chunk-overlap 100": "--chunk-overlap 100 is not less than",
    "{docs} --metadata x": "Invalid pair 'x' for --metadata.",
    "{docs} --metadata document_name=x": "'document_name' is the name of a built-in metadata",
    "{docs} --metadata-from path:{{": "Invalid",
    "{docs} --metadata-from table:/nowhere.csv": "/nowhere.csv",
    "{docs} --replace swap --wait accepted": "--replace swap requires",
    "{docs} --include /": "Invalid glob pattern: '/'.",
    "{docs} --exclude []": "Invalid glob pattern",
    "{docs} --null": "--null requires --files-from.",
    "{docs} --urls-from urls.txt": "--urls-from accepts neither PATH",
    "--files-from /nowhere": "/nowhere",
    "{docs} --journal {text}": "is not a journal of a load.",
    "{docs} --journal {docs}": "The journal ",
    "{docs} --journal {other}": "belongs to dataset other, not to a new one.",
    "{docs} --journal /nowhere/j.db": "Not a directory: /nowhere (--journal).",
    "{docs} --log-file /nowhere/log": "Cannot write to /nowhere/log (--log-file)",
    "{docs} --per-dataset 5": "--per-dataset requires a --dataset with {{n}}.",
}


@pytest.mark.parametrize("words", WRONG_LOADS)
def test_everything_is_checked_before_a_dataset_is_created(
    cli: Cli,
    emulator: Emulator,
    docs: Path,
    tmp_path: Path,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no journal")
    if "{other}" in words:
        assert cli("load", str(docs), "-d", "other", "--create", "--journal", "other.db")[0] == 0
    places = {"docs": str(docs), "text": "text", "other": "other.db"}
    files = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    before = called_endpoints(emulator).count("datasets.create")
    log = [] if "--log-file" in words else ["--log-file", "log.jsonl"]

    code, out, err = cli("load", *words.format(**places).split(), "-d", "new", "--create", *log)

    assert code in {1, 2, 8}
    assert WRONG_LOADS[words].format() in parse_error(err)[0]
    assert called_endpoints(emulator).count("datasets.create") == before
    assert out == ""
    left = {path.name for path in tmp_path.rglob("*") if "state" not in path.parts} - {
        path.name for path in files
    }
    assert left <= {"log.jsonl", "other.db-lock"}
    if code == 2 and "belongs" not in err:
        assert not left


def test_a_series_is_not_created_for_an_empty_folder(
    cli: Cli, emulator: Emulator, folder: Path
) -> None:
    code, _, err = cli("load", str(folder), "-d", "Docs {n}", "--create")

    assert code == 1
    assert parse_error(err)[0].startswith("No files to load in")
    assert "datasets.create" not in called_endpoints(emulator)


def test_a_new_journal_is_announced_if_the_dataset_has_documents(
    cli: Cli, docs: Path, tmp_path: Path
) -> None:
    """Without the journal of the earlier load, all files are sent again."""
    load = ("load", str(docs), "-d", "d", "--journal")
    first = cli(*load, str(tmp_path / "1.db"), "--create")[2]
    second = cli(*load, str(tmp_path / "2.db"))[2]
    third = cli(*load, str(tmp_path / "2.db"))[2]

    assert "New journal" not in first + third
    assert re.search(r"New journal .*2\.db: it does not know the 2 documents of d\. Files", second)


def test_a_measurement_does_not_create_its_report_before_it_has_one(
    cli: Cli, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"query": "x", "relevant": ["a.md"]}\n')

    assert cli("eval", str(queries), "-d", "nope", "--html", str(page))[0] == 1
    assert not page.exists()


def test_a_server_creates_no_file_if_its_faults_are_wrong(cli: Cli, tmp_path: Path) -> None:
    assert cli("emulator", "--db", str(tmp_path / "server.db"), "--faults", "{")[0] == 2
    assert not (tmp_path / "server.db").exists()
