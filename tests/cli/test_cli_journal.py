from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cli_runner import Cli, Program, parse_error, parse_json_lines

from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import JournalState, read_journal
from dify_kb.ingest.journal.journal_rows import COLUMNS


@pytest.fixture
def journal(cli: Cli, docs: Path, emulator: Emulator) -> Path:
    """Return the journal of a load in which one file failed."""
    emulator.faults.indexing(["error no such thing"], names="reset*")
    assert cli("load", str(docs), "--dataset", "d", "--create")[0] == 3
    (path,) = read_journal.list_journals(state_folder())
    return path


def test_all_journals_are_shown_with_source_and_dataset(
    cli: Cli, journal: Path, docs: Path, emulator: Emulator
) -> None:
    cli("load", str(docs / "sub"), "--dataset", "d")

    code, out, _ = cli("journal", "show")

    assert code == 0
    first, second = out.split("\n\n")
    assert "files    1 done\n" in f"{first}\n"
    assert f"source   {docs / 'sub'}\n" in first
    assert second.startswith(f"{journal.stem}  last run ")
    assert f"source   {docs}\n" in second
    assert f" at {emulator.url}\n" in second
    assert "files    1 done, 1 failed\n" in second
    assert max(map(len, out.splitlines())) <= 120
    _, out, _ = cli("--json", "journal", "show")
    assert [line["source"] for line in parse_json_lines(out)] == [str(docs / "sub"), str(docs)]
    assert parse_json_lines(out)[1]["states"] == {
        "waiting": 0,
        "sending": 0,
        "accepted": 0,
        "done": 1,
        "failed": 1,
        "stalled": 0,
        "emptied": 0,
    }


def test_one_journal_is_shown_with_its_runs_and_failures(
    cli: Cli, journal: Path, docs: Path
) -> None:
    cli("load", str(docs), "--dataset", "d")

    code, out, _ = cli("journal", "show", journal.stem)

    assert code == 0
    shown = out.splitlines()
    assert shown[4] == f"  journal  {journal}"
    header, latest, first = (line.split() for line in shown[6:9])
    assert header == [
        "run",
        "started",
        "seconds",
        "ended",
        "found",
        "added",
        "updated",
        "failed",
        "left",
    ]
    assert (latest[0], first[0]) == ("2", "1")
    assert latest[-5:] == ["3", "0", "0", "1", "0"]
    assert shown[-2] == "Not loaded in the last run:"
    assert shown[-1].startswith("  failed  reset.md: ")
    assert cli("journal", "show", str(journal))[1] == out
    _, out, _ = cli("--json", "journal", "show", str(journal))
    told = parse_json_lines(out)
    assert [line["type"] for line in told] == ["journal", "item"]
    assert told[0]["runs"][0]["report"]["failed"] == 1


def test_files_are_listed_by_state(cli: Cli, journal: Path) -> None:
    _, out, _ = cli("journal", "show", str(journal), "--state", "failed")

    assert "  failed  reset.md: indexing failed" in out
    assert "notes.txt" not in out
    _, out, _ = cli("--json", "journal", "show", str(journal), "--state", "done")
    assert [line["key"] for line in parse_json_lines(out) if line["type"] == "file"] == [
        "sub/notes.txt"
    ]


@pytest.mark.parametrize("state", [JournalState.STALLED, JournalState.EMPTIED])
def test_every_state_is_counted_and_can_be_listed(
    cli: Cli, journal: Path, state: JournalState
) -> None:
    with sqlite3.connect(journal) as connection:
        connection.execute("UPDATE item SET state = ? WHERE state = 'failed'", (state.value,))
    connection.close()

    _, out, _ = cli("journal", "show", str(journal), "--state", state.value)

    assert f"files    1 done, 1 {state}\n" in out
    assert f"  {state}  reset.md: " in out


def test_long_failure_lists_are_shortened_without_failures_option(cli: Cli, folder: Path) -> None:
    for number in range(25):
        (folder / f"{number:02}.md").write_text("x" * (2**20 + 1))
    _, out, _ = cli("load", str(folder), "--max-file-size", "1", "--create", "--dataset", "d")
    assert out.count("too large") == 20
    assert "… and 5 more; `dify-kb journal show --failures " in out
    (journal,) = read_journal.list_journals(state_folder())

    _, out, _ = cli("journal", "show", journal.stem)
    assert out.count("too large") == 20
    assert "pass --failures to list all" in out
    _, out, _ = cli("journal", "show", journal.stem, "--failures")
    assert out.count("too large") == 25


def test_export_has_all_journal_columns(cli: Cli, journal: Path) -> None:
    code, out, _ = cli("journal", "export", str(journal))

    assert code == 0
    assert [tuple(line) for line in parse_json_lines(out)] == [COLUMNS, COLUMNS]
    assert [line["key"] for line in parse_json_lines(out)] == ["reset.md", "sub/notes.txt"]
    assert all(len(bytes.fromhex(line["content"])) == 32 for line in parse_json_lines(out))


def test_undecodable_names_are_exported(cli: Cli, folder: Path) -> None:
    odd = "bad\udcff.md"
    for name in ("a.md", odd, "ü.md"):
        (folder / name).write_text("text")
    cli("load", str(folder), "--dataset", "d", "--create")
    (journal,) = read_journal.list_journals(state_folder())

    _, out, _ = cli("journal", "export", str(journal))

    assert {line["key"] for line in parse_json_lines(out)} == {"a.md", odd, "ü.md"}


def test_journal_is_readable_during_a_load(
    program: Program, cli: Cli, folder: Path, emulator: Emulator
) -> None:
    for number in range(50):
        (folder / f"{number}.md").write_text("text")
    emulator.faults.plan("documents.create_by_file", ["ok x5", "stall 1 x50"])
    process = program("--json", "load", str(folder), "--dataset", "d", "--create")
    assert process.stdout is not None
    process.stdout.readline()
    (journal,) = read_journal.list_journals(state_folder())

    _, out, _ = cli("journal", "show", journal.stem)

    assert f"running (process {process.pid})" in out
    assert process.poll() is None
    process.kill()
    process.wait()
    _, out, _ = cli("journal", "show", journal.stem)
    assert "interrupted" in out
    code, out, _ = cli("journal", "export", str(journal))
    assert code == 0
    states = {line["state"] for line in parse_json_lines(out)}
    assert states & {JournalState.ACCEPTED, JournalState.DONE}


@pytest.mark.parametrize("command", ["show", "export"])
def test_other_files_are_an_error(cli: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.db").write_text("no journal at all, and longer than a header of a file")

    code, _, err = cli("journal", command, str(tmp_path / "nowhere.db"))
    assert code == 1
    assert "Journal not found" in parse_error(err)[0]
    code, _, err = cli("journal", command, str(tmp_path / "notes.db"))
    assert code == 8
    assert "is not a journal" in parse_error(err)[0]


@pytest.mark.parametrize("command", [["show"], ["show", "--state", "done"], ["export"]])
def test_damaged_and_newer_journals_are_errors(cli: Cli, journal: Path, command: list[str]) -> None:
    whole = journal.read_bytes()
    name, *options = command
    journal.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    code, _, err = cli("journal", name, str(journal), *options)
    assert code == 8
    assert "cannot be used" in parse_error(err)[0]

    journal.write_bytes(whole)
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    code, _, err = cli("journal", name, str(journal), *options)
    assert code == 8
    assert "newer dify-kb" in parse_error(err)[0]


def test_a_damaged_journal_does_not_hide_the_others(cli: Cli, journal: Path) -> None:
    (journal.parent / "0.db").write_text("no journal at all, and longer than a header of a file")

    code, out, err = cli("journal", "show")

    assert code == 8
    assert "is not a journal" in err
    assert journal.stem in out


def test_no_journals_exits_0(cli: Cli) -> None:
    code, out, err = cli("journal", "show")

    assert (code, out) == (0, "")
    assert "No journals in" in err
