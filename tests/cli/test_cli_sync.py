"""`dify-kb sync` and `dify-kb diff` with --dataset: plan, guards, options and exit codes."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_load_files import CREATE, count_creates
from cli_runner import Cli, Program, list_document_names, parse_error, parse_json_lines

from dify_kb import AsyncClient, SyncReport
from dify_kb.emulator import Emulator

LIMIT = 40


@pytest.fixture
def synced(cli: Cli, docs: Path) -> Path:
    """Return a folder of two documents that were synced."""
    assert cli("sync", str(docs), "-d", "base", "--create")[0] == 0
    return docs


def change_files(folder: Path) -> None:
    """Make, change, rename and delete a file."""
    (folder / "new.md").write_text("Wombats are new here.")
    (folder / "reset.md").write_text("Hold the green button for a minute.")
    (folder / "sub" / "notes.txt").rename(folder / "notes.txt")


def run_next(cli: Cli, err: str) -> tuple[int, str, str]:
    """Run the command line that an error printed."""
    name, *arguments = shlex.split(err.strip().splitlines()[-1])
    assert name == "dify-kb"
    return cli(*arguments)


def test_first_sync_loads_the_folder(cli: Cli, docs: Path) -> None:
    code, out, err = cli("sync", str(docs), "-d", "base", "--create")

    assert code == 0
    assert out.splitlines()[:2] == ["+ reset.md", "+ sub/notes.txt"]
    assert "3 files found" in out
    assert "2 added, 1 skipped." in out
    assert "Created the dataset base" in err


def test_dry_run_prints_the_plan_that_a_sync_carries_out(cli: Cli, synced: Path) -> None:
    change_files(synced)

    code, planned, _ = cli("sync", str(synced), "-d", "base", "--dry-run")
    _, done, _ = cli("sync", str(synced), "-d", "base")

    assert code == 0
    lines = ["+ new.md", "> sub/notes.txt -> notes.txt", "* reset.md"]
    assert planned.splitlines()[:3] == done.splitlines()[:3] == lines
    assert "Nothing was changed: this was a dry run." in planned
    assert "1 added, 1 updated, 1 skipped, 1 renamed." in done


def test_deleted_file_loses_its_document(cli: Cli, synced: Path, emulator: Emulator) -> None:
    (synced / "reset.md").unlink()

    code, out, _ = cli("sync", str(synced), "-d", "base")

    assert code == 0
    assert out.startswith("- reset.md\n")
    assert "documents: 1 deleted." in out
    assert list_document_names(emulator) == {"sub__notes.txt"}


def test_verbose_lists_unchanged_files_and_documents_of_others(cli: Cli, synced: Path) -> None:
    cli("documents", "create", "-d", "base", "--name", "manual.md", "--text", "by hand")
    (synced / "reset.md").write_text("changed")

    code, out, _ = cli("diff", str(synced), "-d", "base", "-v")

    assert code == 0
    lines = out.splitlines()
    assert lines[:2] == ["= sub/notes.txt", "* reset.md"]
    assert "= tool.exe: unsupported type .exe" in lines
    assert "? manual.md" in lines
    assert "documents: 1 foreign." in out
    assert "manual" not in cli("diff", str(synced), "-d", "base")[1]


def test_a_sync_lists_at_most_twenty_lines_of_a_kind(cli: Cli, folder: Path) -> None:
    for number in range(30):
        (folder / f"{number:02}.md").write_text(f"text {number}")

    planned = cli("sync", str(folder), "-d", "base", "--create", "--dry-run")[1]
    out = cli("sync", str(folder), "-d", "base", "--create")[1]

    assert planned.count("+ ") == 30
    assert out.count("+ ") == 21
    assert "+ … and 10 more; -v lists all." in out


def test_json_prints_changes_and_the_report(cli: Cli, synced: Path) -> None:
    change_files(synced)
    (synced / "new.md").unlink()

    code, out, _ = cli("--json", "diff", str(synced), "-d", "base")

    assert code == 0
    *changes, report = parse_json_lines(out)
    assert [(one["action"], one["key"]) for one in changes if one["action"] != "skip"] == [
        ("rename", "notes.txt"),
        ("update", "reset.md"),
    ]
    assert {one["type"] for one in changes} == {"change"}
    assert changes[0]["old_key"] == "sub/notes.txt"
    assert (report["type"], report["renamed"], report["exit_code"]) == ("report", 1, 0)


def test_diff_tells_by_its_exit_code_whether_there_are_differences(
    cli: Cli, synced: Path, emulator: Emulator
) -> None:
    before = count_creates(emulator)
    assert cli("diff", str(synced), "-d", "base", "--exit-code")[0] == 0
    (synced / "new.md").write_text("new")

    assert cli("diff", str(synced), "-d", "base", "--exit-code")[0] == 1
    assert cli("diff", str(synced), "-d", "base")[0] == 0
    assert count_creates(emulator) == before


def test_a_machine_without_a_journal_sends_nothing_that_is_unchanged(
    cli: Cli, docs: Path, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CI, where each run starts on a new machine, in another folder."""
    arguments = ("-d", "base", "--create", "--state", "base", "--id", "docs")
    cli("sync", str(docs), *arguments)
    other = shutil.copytree(docs, tmp_path / "other", copy_function=shutil.copyfile)  # new times
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new"))

    code, out, _ = cli("sync", str(other), *arguments)

    assert code == 0
    assert "2 unchanged" in out
    assert count_creates(emulator) == 2


def test_diff_takes_the_dataset_of_the_environment(
    cli: Cli, synced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFY_DATASET", "base")

    code, out, _ = cli("diff", str(synced))

    assert code == 0
    assert "2 unchanged" in out


def test_a_sync_writes_a_page_and_a_log(cli: Cli, synced: Path, tmp_path: Path) -> None:
    page, log = tmp_path / "sync.html", tmp_path / "log.jsonl"
    (synced / "reset.md").unlink()

    cli("sync", str(synced), "-d", "base", "--html", str(page), "--log-file", str(log))

    assert "Dify sync" in page.read_text()
    assert parse_json_lines(log.read_text())[-1]["deleted"] == 1


# Guards


def test_more_deletes_than_allowed_are_held_back_with_the_command_that_allows_them(
    cli: Cli, synced: Path, emulator: Emulator
) -> None:
    (synced / "reset.md").unlink()

    code, out, err = cli("sync", str(synced), "-d", "base", "--max-delete", "0")

    assert code == 7
    assert "~ reset.md: not deleted\n" in out
    assert "documents: 1 kept back." in out
    assert "No document was deleted: 1 of 2 documents would be deleted, more than 0." in err
    assert list_document_names(emulator) == {"reset.md", "sub__notes.txt"}
    code, out, _ = run_next(cli, err)
    assert code == 0
    assert list_document_names(emulator) == {"sub__notes.txt"}


def test_an_empty_source_deletes_nothing(cli: Cli, synced: Path, emulator: Emulator) -> None:
    (synced / "reset.md").unlink()
    (synced / "sub" / "notes.txt").unlink()

    code, out, err = cli("sync", str(synced), "-d", "base")

    assert (code, out) == (7, "~ reset.md: not deleted\n~ sub/notes.txt: not deleted\n")
    assert "error: The source contains no file to load. Nothing was changed.\n" in err
    assert len(list_document_names(emulator)) == 2
    assert run_next(cli, err)[0] == 0
    assert list_document_names(emulator) == set()


@pytest.mark.parametrize("command", ["sync", "diff"])
def test_a_missing_source_changes_nothing(
    cli: Cli, synced: Path, emulator: Emulator, command: str
) -> None:
    synced.rename(synced.with_name("unmounted"))

    code, out, err = cli(command, str(synced), "-d", "base")

    assert (code, out) == (7, "")
    assert parse_error("\n".join(err.splitlines()[:2]))[0].endswith(
        "docs does not exist. Nothing was changed."
    )
    assert len(list_document_names(emulator)) == 2


def test_a_missing_check_file_changes_nothing(cli: Cli, synced: Path, emulator: Emulator) -> None:
    (synced / "reset.md").unlink()

    code, _, err = cli("sync", str(synced), "-d", "base", "--check", ".mounted")

    assert code == 7
    assert "error: The file .mounted is missing in the source. Nothing was changed." in err
    assert len(list_document_names(emulator)) == 2


def test_failed_files_hold_deletes_back(cli: Cli, synced: Path, emulator: Emulator) -> None:
    (synced / "reset.md").unlink()
    (synced / "new.md").write_text("new")
    emulator.faults.plan(CREATE, ["400"])

    code, _, err = cli("sync", str(synced), "-d", "base")

    assert code == 3
    assert "error: No document was deleted: 1 files failed" in err
    assert "--retry-failed" in err.splitlines()[-1]
    assert len(list_document_names(emulator)) == 2
    assert run_next(cli, err)[0] == 0
    assert list_document_names(emulator) == {"new.md", "sub__notes.txt"}


def test_documents_of_others_are_taken_over_only_on_request(cli: Cli, docs: Path) -> None:
    cli("datasets", "create", "base", "--technique", "economy")
    cli("documents", "create", "-d", "base", str(docs / "reset.md"), "--wait")

    code, out, err = cli("sync", str(docs), "-d", "base")

    assert code == 7
    assert "~ reset.md: a document of this name was not made by this sync; --adopt" in out
    assert "error: 1 file not loaded" in err
    code, out, _ = run_next(cli, err)
    assert code == 0
    assert "2 unchanged" in out


@pytest.mark.parametrize("source", ["empty", "missing"])
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_no_dataset_is_created_for_a_source_without_files(
    cli: Cli, tmp_path: Path, source: str, dry_run: list[str]
) -> None:
    (tmp_path / "empty").mkdir()

    code, _, err = cli("sync", str(tmp_path / source), "-d", "base", "--create", *dry_run)

    assert code == 7
    assert "Nothing was changed." in err
    assert cli("datasets", "list", "--json")[1] == ""


def test_an_empty_source_is_accepted_on_request(cli: Cli, folder: Path) -> None:
    code, out, _ = cli("sync", str(folder), "-d", "base", "--create", "--allow-empty")

    assert code == 0
    assert "0 files found" in out


# Options


VALUES = {
    "state": ("base", "base"),
    "id": ("docs", "docs"),
    "delete": ("disable", "disable"),
    "max_delete": ("30%", "30%"),
    "empty_trash": ("30d", 2_592_000.0),
    "check": ("a.md", ["a.md"]),
    **dict.fromkeys(
        (
            *("adopt", "keep_ids", "allow_empty", "delete_excluded", "ignore_errors"),
            *("respect_deletes", "protect_edits", "checksum", "retry_failed", "gitignore"),
        ),
        (None, True),
    ),
    "include": ("*.md", ["*.md"]),
    "rate": ("5/s", "5/s"),
    "concurrency": ("2-8", (2, 8)),
    "deadline": ("2h", 7200.0),
    "max_failures": ("3", 3),
}


@pytest.mark.parametrize("command", ["sync", "diff"])
def test_each_option_is_the_argument_of_its_name(
    cli: Cli, docs: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    cli("datasets", "create", "base", "--technique", "economy")
    given: dict[str, Any] = {}

    async def sync(_: object, *_args: object, **options: object) -> SyncReport:
        given.update(options)
        return SyncReport()

    monkeypatch.setattr(AsyncClient, "sync", sync)
    sends = {"keep_ids", "ignore_errors", "rate", "concurrency", "deadline", "max_failures"}
    values = {
        name: value for name, value in VALUES.items() if command == "sync" or name not in sends
    }
    words = [
        word
        for name, (text, _) in values.items()
        for word in (f"--{name.replace('_', '-')}", text)
        if word is not None
    ]

    code, _, err = cli(command, str(docs), "-d", "base", *words)

    assert (code, err) == (0, "")
    assert {name: given[name] for name in values} == {name: one[1] for name, one in values.items()}
    assert given["dry_run"] is (command == "diff")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "Missing argument PATH"),
        (["{docs}", "--max-delete", "many"], "Invalid value 'many' for --max-delete"),
        (["{docs}", "--empty-trash", "old"], "Invalid duration 'old'"),
        (["{docs}", "--id", "a:b"], "Invalid"),
        (["{docs}", "--watch", "--every", "1h"], "--watch and --every cannot be combined"),
        (["{docs}", "--rescan", "1h"], "--rescan requires --watch"),
        (["{docs}", "--poll"], "--poll requires --watch"),
        (["{docs}", "--every", "0s"], "Invalid value '0s' for --every"),
        (["{docs}", "--every", "1h", "--dry-run"], "--every and --dry-run cannot be combined"),
        (["git+https://example.com/x.git", "--watch"], "--watch requires folders or files"),
        (["{docs}", "--every", "1h", "--health", "/nowhere/ok"], "Not a directory: /nowhere"),
        (["--urls-from", "-", "--every", "1h"], "can be read only once"),
        (["{docs}", "--state", "cloud"], "--state"),
    ],
)
def test_invalid_options_are_errors_before_any_request(
    cli: Cli, docs: Path, emulator: Emulator, words: list[str], what: str
) -> None:
    code, _, err = cli(
        "sync", *(word.format(docs=docs) for word in words), "-d", "base", "--create"
    )

    assert code == 2
    assert what in parse_error(err)[0]
    assert not emulator.history


# Repetition


def wait_for(is_true: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT
    while not is_true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_watch_syncs_changes_until_sigterm(
    program: Program, docs: Path, emulator: Emulator, tmp_path: Path
) -> None:
    health = tmp_path / "healthy"
    words = ("sync", str(docs), "-d", "base", "--create", "--technique", "economy")

    process = program(*words, "--watch", "--health", str(health), "--journal", str(docs / "j.db"))
    wait_for(health.exists)
    (docs / "new.md").write_text("Wombats are new here.")
    wait_for(lambda: "new.md" in list_document_names(emulator, "available"))
    calls = len(emulator.history)
    time.sleep(3)  # the journal in the folder must not lead to further syncs
    idle_calls = len(emulator.history) - calls
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 143
    assert err.endswith("Stopped.\n")
    assert "+ reset.md\n+ sub/notes.txt\n" in out
    assert "+ new.md\n" in out
    assert idle_calls <= 10


def test_an_interval_goes_on_after_errors(
    program: Program, synced: Path, emulator: Emulator, tmp_path: Path
) -> None:
    """A source that is not there, and a server that fails, are reported and tried again."""
    health = tmp_path / "healthy"
    aside = synced.with_name("aside")
    synced.rename(aside)

    process = program("sync", str(synced), "-d", "base", "--every", "1s", "--health", str(health))
    time.sleep(3)
    assert not health.exists()
    aside.rename(synced)
    (synced / "new.md").write_text("new")
    wait_for(health.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 130
    assert err.count("does not exist. Nothing was changed.\n") == 1
    assert "next:  Correct that; the sync is repeated by itself.\n" in err
    assert "+ new.md\n" in out
    assert "new.md" in list_document_names(emulator)


def test_a_wrong_dataset_ends_a_watch_at_once(cli: Cli, docs: Path) -> None:
    code, _, err = cli("sync", str(docs), "-d", "nowhere", "--watch")

    assert code == 1
    assert "nowhere" in parse_error(err)[0]
