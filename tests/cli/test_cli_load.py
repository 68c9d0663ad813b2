from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_load_files import CREATE, count_creates, write_files
from cli_runner import Cli, parse_error, parse_json_lines

from dify_kb import AsyncClient, LoadReport
from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import read_journal


def test_repeated_load_sends_nothing(cli: Cli, docs: Path, emulator: Emulator) -> None:
    cli("load", str(docs), "--dataset", "d", "--create")

    code, out, _ = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    assert "2 unchanged, 1 skipped" in out
    assert count_creates(emulator) == 2


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "Missing argument PATH"),
        (["{docs}", "--null"], "--null"),
        (["{docs}", "{docs}/sub", "--files-from", "-"], "at most one PATH"),
        (["{docs}/reset.md", "--files-from", "-"], "Not a directory"),
        (["{docs}", "--files-from", "/nowhere"], "/nowhere"),
        (["{docs}", "--deadline", "soon"], "--deadline"),
        (["{docs}", "--stall-after", "x"], "--stall-after"),
        (["{docs}", "--rate", "fast"], "Invalid rate"),
        (["{docs}", "--concurrency", "0"], "--concurrency"),
        (["{docs}", "--metadata", "x"], "--metadata"),
        (["{docs}", "--log-file", "/nowhere/log"], "--log-file"),
        (["{docs}", "--replace", "swap", "--wait", "accepted"], "--replace swap requires --wait"),
    ],
)
def test_invalid_options_are_errors_before_any_request(
    cli: Cli, docs: Path, arguments: list[str], what: str
) -> None:
    given = [argument.format(docs=docs) for argument in arguments]
    cli("datasets", "create", "d", "--technique", "economy")

    code, _, err = cli("load", *given, "--dataset", "d")

    assert code == 2
    assert what in parse_error(err)[0]


def test_metadata_is_set_with_its_type(cli: Cli, docs: Path) -> None:
    code, _, _ = cli(
        *("load", str(docs), "--dataset", "d", "--create"),
        *("--metadata", "team=infra", "--metadata", "year:=2024"),
    )

    assert code == 0
    _, out, _ = cli("--json", "documents", "list", "--dataset", "d")
    own = {
        one["name"]: one
        for one in parse_json_lines(out)[0]["doc_metadata"]
        if one["id"] != "built-in"
    }
    assert (own["team"]["type"], own["team"]["value"]) == ("string", "infra")
    assert (own["year"]["type"], own["year"]["value"]) == ("number", 2024)


def test_metadata_comes_from_sources(cli: Cli, docs: Path) -> None:
    (docs / "reset.md").write_text("---\nyear: 2024\nteam: x\n---\nHold the button.")
    (docs / "reset.md.metadata.json").write_text('{"metadataAttributes": {"rank": 1}}')
    (docs.parent / "meta.csv").write_text("key,level\nreset.md,high\n")
    sources = ("auto", "path:{folder_name}/*", "front-matter", "sidecar", "mtime")
    arguments = [
        *("load", str(docs), "--dataset", "d", "--create", "--metadata", "team=infra"),
        *(word for source in sources for word in ("--metadata-from", source)),
        *("--metadata-from", f"table:{docs.parent / 'meta.csv'}"),
    ]

    code, out, _ = cli(*arguments, "--dry-run")
    assert (code, out.splitlines()[0]) == (0, "add     reset.md")
    assert "metadata.json" not in out
    code, out, _ = cli(*arguments)
    assert (code, "metadata set on 2" in out) == (0, True)

    _, out, _ = cli("--json", "documents", "show", "--dataset", "d", "reset.md")
    values = {one["name"]: one["value"] for one in parse_json_lines(out)[0]["doc_metadata"]}
    assert {name: values[name] for name in ("path", "year", "team", "rank", "level")} == {
        "path": "reset.md", "year": 2024, "team": "infra", "rank": 1, "level": "high",
    }  # fmt: skip
    assert "modified" in values
    code, out, _ = cli(*arguments, "--metadata", "owner=jo")
    assert "2 unchanged, 1 skipped, metadata set on 2." in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--metadata-from", "yaml"], "Invalid source 'yaml' for --metadata-from"),
        (["--metadata-from", "path:"], "Invalid source 'path:'"),
        (["--metadata-from", "path:a/*"], "Invalid path pattern 'a/*'"),
        (["--metadata-from", "table:missing.csv"], "Cannot read the table missing.csv"),
        (["--metadata", "source=x"], "built-in"),
        (["--keep-front-matter"], "--keep-front-matter requires --metadata-from front-matter"),
    ],
)
def test_invalid_source_of_metadata_is_an_error_before_the_dataset_is_created(
    cli: Cli, docs: Path, emulator: Emulator, words: list[str], problem: str
) -> None:
    code, _, err = cli("load", str(docs), "--dataset", "d", "--create", *words)

    assert code in {1, 2}
    assert problem in parse_error(err)[0]
    assert not emulator.history


def test_dry_run_prints_planned_actions(cli: Cli, docs: Path, emulator: Emulator) -> None:
    """A dry run creates no dataset, no document and no journal."""
    (docs / "big.txt").write_text("x" * 2**20 * 2)
    arguments = ["load", str(docs), "--dataset", "d", "--create", "--max-file-size", "1"]

    code, out, err = cli(*arguments, "--dry-run")

    assert code == 3
    assert "The dataset d would be created." in err
    assert out.splitlines()[:4] == [
        "fail    big.txt: too large: 2.0 MiB, more than 1.0 MiB",
        "add     reset.md",
        "skip    tool.exe: unsupported type .exe",
        "add     sub/notes.txt",
    ]
    assert "4 files found" in out
    assert "dry run" in out
    assert cli("--json", "datasets", "list")[1] == ""
    assert read_journal.list_journals(state_folder()) == []
    (docs / "big.txt").unlink()
    cli(*arguments)
    (docs / "reset.md").write_text("Another text.")
    code, out, _ = cli(*arguments, "--dry-run")
    assert code == 0
    assert "update  reset.md" in out
    assert "1 would be updated, 1 unchanged, 1 skipped." in out
    assert "notes.txt" not in out
    assert count_creates(emulator) == 2


def test_verification_prints_its_cost_first(cli: Cli, docs: Path) -> None:
    code, _, err = cli("load", str(docs), "--dataset", "d", "--create", "--wait", "verified")

    assert code == 0
    assert "one request per file sent" in err


def test_printed_command_retries_failed_files(cli: Cli, docs: Path, emulator: Emulator) -> None:
    emulator.faults.indexing(["error no such thing"], names="reset*")
    arguments = ["load", str(docs), "--dataset", "d", "--create"]
    code, _, err = cli(*arguments)
    assert code == 3
    what, shown = err.splitlines()[-2:]
    assert what == "next:  Run this command to retry the failed files:"
    assert shown.split()[-1] == "--retry-failed"

    assert cli(*arguments)[0] == 3

    code, out, _ = cli(*arguments, "--retry-failed")
    assert code == 0
    assert "1 updated" in out


def test_errors_stop_ends_at_the_first_failure(cli: Cli, folder: Path) -> None:
    write_files(folder, *(f"{number:03}.md" for number in range(100)))
    (folder / "000.md").write_text("x" * 2**20 * 2)
    arguments = ["load", str(folder), "--dataset", "d", "--create", "--max-file-size", "1"]

    code, out, err = cli(*arguments, "--errors", "stop")

    assert code == 3
    assert "1 failed" in out
    assert "pending" in out
    assert "The load stopped (max_failures): " in err
    assert cli(*arguments, "--max-failures", "0")[0] == 7


def test_rate_option_limits_uploads(cli: Cli, folder: Path) -> None:
    """With the test's policy a minute is 0.6 s."""
    write_files(folder, *(f"{number}.md" for number in range(5)))

    code, out, _ = cli(
        "--json", "load", str(folder), "--dataset", "d", "--create", "--rate", "3/min"
    )

    assert code == 0
    assert parse_json_lines(out)[-1]["seconds"] > 0.7


def test_log_file_has_results_and_failures_without_secrets(
    cli: Cli, docs: Path, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.faults.plan(CREATE, ["503 retry-after=0"])
    path = tmp_path / "log.jsonl"

    code, _, _ = cli(
        *("load", str(docs), "--dataset", "d", "--create", "--log-file", str(path)),
        *("--api-key", emulator.api_key),
    )

    assert code == 0
    kept: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line["time"].endswith("+00:00") for line in kept)
    assert {line["key"] for line in kept if line["type"] == "item"} == {
        "reset.md",
        "sub/notes.txt",
        "tool.exe",
    }
    (failed,) = [line for line in kept if line["type"] == "log"]
    assert (failed["endpoint"], failed["attempt"]) == (CREATE, 1)
    assert "503" in failed["message"]
    assert kept[-1]["type"] == "report"
    assert emulator.api_key not in path.read_text()
    cli("load", str(docs), "--dataset", "d", "--log-file", str(path))
    assert len(path.read_text().splitlines()) == len(kept) + 4


def test_load_continues_when_the_log_cannot_be_written(cli: Cli, docs: Path) -> None:
    code, _, err = cli("load", str(docs), "--dataset", "d", "--create", "--log-file", "/dev/full")

    assert code == 0
    assert (
        err.count(
            "warning: Logging stopped, cannot write to the log file: No space left on device."
        )
        == 1
    )


def test_load_works_without_standard_input(docs: Path, emulator: Emulator, tmp_path: Path) -> None:
    """Daemons may start it like this; uvloop would abort the process."""
    arguments = ["load", str(docs), "--dataset", "d", "--create", "--url", emulator.url]
    command = shlex.join([sys.executable, "-m", "dify_kb", *arguments])
    key = emulator.api_key

    done = subprocess.run(  # noqa: S603 -- our own program
        [
            "/bin/sh",
            "-c",
            f"{command} --api-key {key} <&-; {command} --api-key {key} --files-from - <&-",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )

    assert "2 added, 1 skipped" in done.stdout
    assert done.returncode == 2
    assert "Cannot read the list '-' (--files-from)" in done.stderr


def test_journal_in_use_or_damaged_exits_8(cli: Cli, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no journal")
    arguments = ["load", str(docs), "--dataset", "d", "--create", "--journal"]

    code, _, err = cli(*arguments, str(tmp_path / "notes.txt"))

    assert code == 8
    assert "is not a journal" in parse_error(err)[0]


@pytest.mark.filterwarnings("default")
def test_unwritable_state_folder_prints_a_warning(
    cli: Cli, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")

    code, _, err = cli("load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    assert err.splitlines()[1] == (
        "warning: Directory /proc/nowhere/dify-kb is not writable: the journal is kept in memory,"
        " and this load cannot be resumed. Pass a writable path with journal= (--journal)."
    )


def test_options_of_replacement_reach_the_load(
    cli: Cli, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that is accepted but not passed on would silently do nothing."""
    passed: dict[str, object] = {}

    async def load(*_: object, **options: object) -> LoadReport:
        passed.update(options)
        return LoadReport(found=1, added=1, warnings=("The server deletes ï.",))

    monkeypatch.setattr(AsyncClient, "load", load)
    arguments = ["load", str(docs), "--dataset", "d", "--create"]

    code, _, err = cli(*arguments, "--checksum", "--overwrite-archived", "--replace", "swap")

    assert code == 0
    names = ("checksum", "overwrite_archived", "replace")
    assert [passed[name] for name in names] == [True, True, "swap"]
    assert err.splitlines()[-1] == "warning: The server deletes ï."
    cli(*arguments)
    assert [passed[name] for name in names] == [False, False, "in_place"]


def test_verbose_prints_skipped_files(cli: Cli, docs: Path) -> None:
    arguments = ["load", str(docs), "--dataset", "d", "--create"]

    _, _, err = cli(*arguments, "-v")
    assert "  skipped  tool.exe: unsupported type .exe\n" in err

    _, _, err = cli(*arguments)
    assert "tool.exe" not in err


def test_a_dry_run_into_a_new_dataset_counts_skipped_files_by_reason(cli: Cli, docs: Path) -> None:
    _, out, _ = cli("load", str(docs), "--dataset", "d", "--create", "--dry-run")

    assert "\n1 skipped: 1 unsupported type .exe.\n" in out
