"""Loads into, and searches of, a series of datasets such as `Docs {n}`."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from cli_load_files import count_creates, write_files
from cli_runner import Cli, Program, parse_error, parse_json_lines

from dify_kb import Client
from dify_kb.emulator import Emulator

SERIES = ["--dataset", "Docs {n}"]
NAMES = [f"{number:02}.md" for number in range(25)]


def list_places(emulator: Emulator) -> dict[str, str]:
    """Return the name of the dataset of each document; no name is in two."""
    places: dict[str, str] = {}
    with Client(emulator.url, emulator.api_key) as client:
        for dataset in client.datasets.iter():
            for document in client.documents.iter(dataset):
                assert document.name not in places
                places[document.name] = dataset.name
    return places


def test_datasets_are_created_as_needed(cli: Cli, emulator: Emulator, folder: Path) -> None:
    write_files(folder, *NAMES)
    load = ["load", str(folder), *SERIES, "--per-dataset", "10", "--create"]

    code, out, err = cli(*load)

    assert code == 0
    assert "25 added" in out
    assert "Loading into Docs 1, Docs 2, Docs 3." in err
    before = list_places(emulator)
    assert set(before.values()) == {"Docs 1", "Docs 2", "Docs 3"}
    creates = count_creates(emulator)
    code, out, _ = cli(*load)
    assert code == 0
    assert "25 unchanged" in out
    assert count_creates(emulator) == creates
    write_files(folder, *(f"new {number}.md" for number in range(15)))
    code, out, err = cli(*load)
    assert code == 0
    assert "15 added, 25 unchanged" in out
    assert "Created the dataset Docs 4" in err
    after = list_places(emulator)
    assert {name: after[name] for name in before} == before
    assert list(after.values()).count("Docs 4") == 10


def test_series_that_does_not_exist_is_created_only_on_request(
    cli: Cli, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, *NAMES)

    code, _, err = cli("load", str(folder), *SERIES)
    dry_code, out, dry_err = cli("load", str(folder), *SERIES, "--create", "--dry-run")

    assert code == 1
    assert "--create" in parse_error(err)[1]
    assert dry_code == 0
    assert "25 would be added" in out
    assert "The dataset Docs 1 would be created." in dry_err
    assert list_places(emulator) == {}


def test_existing_series_is_used_and_not_extended(
    cli: Cli, emulator: Emulator, folder: Path
) -> None:
    """The numbers may have gaps; other names do not belong to it."""
    write_files(folder, *NAMES)
    for name in ("Docs 2", "Docs 7", "Docs x", "My Docs 3", "Docs 04"):
        cli("datasets", "create", name, "--technique", "economy")

    code, _, err = cli("load", str(folder), *SERIES, "--per-dataset", "5")

    assert code == 0
    assert "--per-dataset requires 5 datasets, 2 exist" in err
    assert set(list_places(emulator).values()) == {"Docs 2", "Docs 7"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "Docs", "--per-dataset", "5"], "requires a --dataset with {n}"),
        ([*SERIES, "--journal", "a.db"], "cannot be shared"),
        ([*SERIES, "--per-dataset", "0"], "--per-dataset"),
    ],
    ids=["without {n}", "journal", "zero"],
)
def test_invalid_options(cli: Cli, folder: Path, arguments: list[str], message: str) -> None:
    write_files(folder, "a.md")

    code, _, err = cli("load", str(folder), *arguments)

    assert code == 2
    assert message in err


def test_listed_files_go_to_the_datasets_of_a_load_of_the_folder(
    cli: Cli, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    write_files(folder, *NAMES)
    cli("load", str(folder), *SERIES, "--per-dataset", "10", "--create")
    before = list_places(emulator)
    for name in NAMES[:5]:
        (folder / name).write_text("changed")
    (tmp_path / "list").write_text("\n".join(NAMES[:8]))

    code, out, _ = cli("load", str(folder), *SERIES, "--files-from", str(tmp_path / "list"))

    assert code == 0
    assert "5 updated, 3 unchanged" in out
    assert list_places(emulator) == before


def test_killed_program_resumes(
    program: Program, cli: Cli, emulator: Emulator, folder: Path
) -> None:
    """No file is lost or doubled by kill -9 in the middle of a series."""
    write_files(folder, *NAMES)
    emulator.faults.plan("documents.create_by_file", ["stall 0.1"] * 50)
    load = ["load", str(folder), *SERIES, "--per-dataset", "10", "--create"]
    process = program(*load, "--concurrency", "2")
    end = time.monotonic() + 60
    while count_creates(emulator) < 14 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    emulator.faults.clear()

    code, out, _ = cli(*load)

    assert code == 0
    assert "25 files found" in out
    assert re.search(r"\d+ unchanged", out)
    places = list_places(emulator)
    assert sorted(places) == NAMES
    assert set(places.values()) == {"Docs 1", "Docs 2", "Docs 3"}


@pytest.mark.parametrize("technique", ["high_quality", "economy"])
def test_search_finds_the_best_passages_of_all_datasets(
    cli: Cli, folder: Path, technique: str
) -> None:
    write_files(folder, *NAMES)
    for name, text in ((NAMES[3], "Wombats dig burrows."), (NAMES[9], "Wombats dig.")):
        (folder / name).write_text(text)
    load = ["load", str(folder), *SERIES, "--per-dataset", "5", "--create"]
    cli(*load, "--technique", technique)

    code, out, _ = cli("search", *SERIES, "wombats dig burrows", "--top-k", "2")
    rows = parse_json_lines(cli("search", *SERIES, "wombats dig burrows", "--json")[1])

    assert code == 0
    assert re.match(r"1\. 03\.md  \(Docs \d, chunk 1", out)
    assert [row["segment"]["document"]["name"] for row in rows[:2]] == [NAMES[3], NAMES[9]]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) <= 4
    assert rows[0]["dataset"].startswith("Docs ")
    assert out.count("score") == (2 if technique == "high_quality" else 0)


def test_search_of_a_series_that_does_not_exist_is_an_error(cli: Cli) -> None:
    code, _, err = cli("search", *SERIES, "wombats")

    assert code == 1
    assert "No dataset is named like 'Docs {n}'" in err
