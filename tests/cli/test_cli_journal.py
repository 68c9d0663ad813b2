from __future__ import annotations

import fcntl
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from cli_runner import Cli, Program, parse_error, parse_json_lines

from dify_kb.cli.journal_output import STATE_NAMES
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
    assert "files    1 loaded\n" in f"{first}\n"
    assert f"source   {docs / 'sub'}\n" in first
    assert second.startswith(f"{journal.stem}  last run ")
    assert f"source   {docs}\n" in second
    assert f" at {emulator.url}\n" in second
    assert "files    1 loaded, 1 failed\n" in second
    assert max(map(len, out.splitlines())) <= 120
    _, out, _ = cli("--json", "journal", "show")
    assert [line["source"] for line in parse_json_lines(out)] == [str(docs / "sub"), str(docs)]
    assert parse_json_lines(out)[1]["states"] == {
        "pending": 0,
        "unknown": 0,
        "accepted": 0,
        "loaded": 1,
        "failed": 1,
        "stalled": 0,
        "emptied": 0,
        "trashed": 0,
    }


def test_one_journal_is_shown_with_its_runs_and_failures(
    cli: Cli, journal: Path, docs: Path
) -> None:
    cli("load", str(docs), "--dataset", "d")

    code, out, _ = cli("journal", "show", journal.stem)

    assert code == 0
    shown = out.splitlines()
    assert shown[5] == f"  journal  {journal}"
    header, latest, first = (line.split() for line in shown[7:10])
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
    _, out, _ = cli("--json", "journal", "show", str(journal), "--state", "loaded")
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

    assert f"files    1 loaded, 1 {state}\n" in out
    assert f"  {state}  reset.md: " in out


def test_long_failure_lists_are_shortened_without_failures_option(cli: Cli, folder: Path) -> None:
    for number in range(25):
        (folder / f"{number:02}.md").write_text("x" * (2**20 + 1))
    _, _, err = cli("load", str(folder), "--max-file-size", "1", "--create", "--dataset", "d")
    assert err.count("too large") == 20
    assert "… and 5 more; `dify-kb journal show --failures " in err
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


@pytest.mark.parametrize("command", [["show"], ["show", "--state", "loaded"], ["export"]])
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


@pytest.mark.parametrize("how", ["folder", "relative", "base name", "dataset", "dataset id", "-d"])
def test_a_journal_is_found_by_its_folder_or_dataset(
    cli: Cli,
    journal: Path,
    docs: Path,
    emulator: Emulator,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli("load", str(docs / "sub"), "--dataset", "other", "--create")
    monkeypatch.chdir(docs.parent if how == "relative" else "/")
    overview = read_journal.read_overview(journal)
    name = {
        "folder": [f"{docs}/"],
        "relative": ["./docs"],
        "base name": ["docs"],
        "dataset": ["d"],
        "dataset id": [overview.dataset],
        "-d": ["-d", "d"],
    }[how]

    code, out, _ = cli("journal", "show", *name)

    assert code == 0
    assert out.startswith(f"{journal.stem}  last run ")
    assert f"  dataset  d ({overview.dataset}) at {emulator.url}\n" in out
    assert re.search(r"\(\d s ago\): finished\n", out)
    assert re.search(r"\n  size     [\d.]+ KiB\n", out)


def test_several_journals_of_a_dataset_are_listed(cli: Cli, journal: Path, docs: Path) -> None:
    cli("load", str(docs / "sub"), "--dataset", "d")

    code, out, _ = cli("journal", "show", "--dataset", "d")
    assert (code, out.count("last run")) == (0, 2)
    code, _, err = cli("journal", "export", "d")
    assert code == 1
    assert parse_error(err)[0] == "2 journals match 'd'."
    assert journal.stem in parse_error(err)[1]
    assert cli("journal", "export", str(docs / "sub"))[0] == 0
    assert cli("journal", "export", "missing")[0] == 1
    assert cli("journal", "show", "--state", "failed")[0] == 2


def age(path: Path, days: float) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE run SET started = started - ?, ended = ended - ?", [days * 86400] * 2
        )
    connection.close()


def test_prune_deletes_old_journals_and_those_of_folders_that_are_gone(
    cli: Cli, tmp_path: Path
) -> None:
    def load(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("text")
        assert cli("load", str(tmp_path / name), "--dataset", name, "--create")[0] == 0
        return read_journal.list_journals(state_folder())[0]

    old, gone, new = map(load, ("old", "gone", "new"))
    age(old, 100)
    shutil.rmtree(tmp_path / "gone")

    assert cli("journal", "prune")[0] == 2
    code, out, err = cli("journal", "prune", "--older-than", "90d", "--dry-run")
    assert (code, err) == (0, "1 journal would be deleted.\n")
    assert out == f"Would be deleted: {tmp_path / 'old'} in old ({old.stem})\n"
    assert old.exists()
    assert cli("journal", "prune", "--older-than", "90d")[0] == 2, "not in a pipe without --yes"
    code, out, _ = cli("--json", "journal", "prune", "--gone", "--yes")
    assert [(line["type"], line["id"]) for line in parse_json_lines(out)] == [
        ("deleted", gone.stem)
    ]
    assert cli("journal", "prune", "--older-than", "90d", "--yes")[0] == 0
    assert read_journal.list_journals(state_folder()) == [new]
    assert not [
        path
        for path in state_folder().iterdir()
        if old.stem in path.name and "lock" not in path.name
    ]
    assert cli("journal", "prune", "--dataset", "new", "--yes")[0] == 0
    assert read_journal.list_journals(state_folder()) == []


def test_prune_keeps_unfinished_and_locked_journals(cli: Cli, journal: Path, docs: Path) -> None:
    with sqlite3.connect(journal) as connection:
        connection.execute("UPDATE item SET state = 'sending' WHERE key = 'reset.md'")
    connection.close()

    code, out, err = cli("journal", "prune", "docs", "--yes")
    assert (code, out) == (0, "")
    assert f"kept  {docs} in d ({journal.stem}): unfinished; pass --unfinished\n" in err
    with Path(f"{journal}-lock").open("r+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = cli("journal", "prune", "docs", "--unfinished", "--yes")
        assert code == 8
        assert "in use" in err
        assert journal.exists()
    assert cli("journal", "prune", "docs", "--unfinished", "--yes")[0] == 0
    assert not journal.exists()


def test_the_states_of_files_are_those_of_the_outcomes(
    cli: Cli, docs: Path, tmp_path: Path
) -> None:
    """One vocabulary: a state of a journal is the outcome that the next run would report."""
    journal = tmp_path / "j.db"
    cli("load", str(docs), "-d", "d", "--create", "--journal", str(journal))

    exported = parse_json_lines(cli("journal", "export", str(journal))[1])

    assert {row["state"] for row in exported} == {"loaded"}
    assert {*STATE_NAMES} == {*JournalState}
    assert {"pending", "unknown", "failed", "stalled"} <= {*STATE_NAMES.values()}


def test_journals_and_files_are_sorted_and_limited(cli: Cli, docs: Path) -> None:
    for name in ("b", "a", "c"):
        cli("load", str(docs), "-d", name, "--create")

    def datasets(*options: str) -> list[str]:
        shown = parse_json_lines(cli("--json", "journal", "show", *options)[1])
        return [row["dataset_name"] for row in shown if row["type"] == "journal"]

    assert datasets("--sort", "dataset") == ["a", "b", "c"]
    assert datasets("--sort", "-dataset", "--limit", "2") == ["c", "b"]
    assert datasets("--limit", "1") == ["c"]
    files = cli("journal", "show", "a", "--state", "loaded", "--sort", "-name", "--limit", "1")[1]
    assert "loaded  sub/notes.txt" in files
    assert "reset.md" not in files
    assert cli("journal", "show", "--sort", "nope")[0] == 2


def test_journals_of_deleted_embedded_servers_can_be_pruned(
    cli: Cli, docs: Path, tmp_path: Path
) -> None:
    server = tmp_path / "server.db"
    cli("load", str(docs), "-d", "d", "--create", "--url", f"emulator:{server}")
    kept = cli("journal", "prune", "--gone", "--dry-run")[2]
    server.unlink()

    assert "0 journals would be deleted." in kept
    assert "1 journal would be deleted." in cli("journal", "prune", "--gone", "--dry-run")[2]
