from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Cli, create_dataset_with_documents, parse_error, parse_json_lines

from dify_kb.cli import app
from dify_kb.cli.command_line import hoist_program_options
from dify_kb.emulator import Emulator

COMMANDS = [
    [],
    ["load"],
    ["search"],
    ["datasets"],
    ["datasets", "list"],
    ["datasets", "create"],
    ["datasets", "show"],
    ["datasets", "delete"],
    ["documents"],
    ["documents", "list"],
    ["doctor"],
    ["emulator"],
    ["journal"],
    ["journal", "show"],
    ["journal", "export"],
    ["bench"],
    ["bench", "compare"],
    ["bench", "clean"],
    ["bench", "corpus"],
    ["eval"],
]


def test_load_and_search_work_together(cli: Cli, docs: Path) -> None:
    code, out, err = cli("load", str(docs), "--dataset", "Handbook", "--create")

    assert code == 0
    assert "Created the dataset Handbook (high_quality with dify-kb/emulator/stand-in:" in err
    assert "3 files found" in out
    assert "2 added, 1 skipped" in out
    code, out, _ = cli("search", "--dataset", "Handbook", "how do I reset it?")
    assert code == 0
    assert out.startswith("1. reset.md  (chunk 1, score ")
    assert "red button" in out


def test_global_options_may_follow_the_command(cli: Cli, emulator: Emulator) -> None:
    code, out, _ = cli("datasets", "list", "--url", emulator.url, "--json", "--api-key=wrong")

    assert code == 4
    assert parse_json_lines(out)[0]["exit"] == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["load", "x", "--url", "u"], ["--url", "u", "load", "x"]),
        (["load", "x", "--url=u", "-q"], ["--url=u", "-q", "load", "x"]),
        (["load", "--header", "a:b", "x"], ["--header", "a:b", "load", "x"]),
        (["search", "--", "--json"], ["search", "--", "--json"]),
        (["load", "--url"], ["--url", "load"]),
    ],
)
def test_hoist_program_options_moves_only_global_options(
    arguments: list[str], expected: list[str]
) -> None:
    assert hoist_program_options(arguments) == expected


def test_json_output_has_each_file_and_the_report(cli: Cli, docs: Path) -> None:
    code, out, _ = cli("--json", "load", str(docs), "--dataset", "d", "--create")

    assert code == 0
    *items, report = parse_json_lines(out)
    assert {item["key"]: item["outcome"] for item in items} == {
        "reset.md": "added",
        "sub/notes.txt": "added",
        "tool.exe": "skipped",
    }
    assert report["type"] == "report"
    assert report["found"] == report["added"] + report["skipped"] == 3


def test_failed_files_are_listed_and_exit_3(cli: Cli, docs: Path) -> None:
    (docs / "blank.txt").write_text("\n")
    (docs / "zip.txt").write_bytes(b"PK\x03\x04\x00\x01\xff\xfe\x00" * 50)
    (docs / "big.txt").write_text("x" * (2 * 2**20))

    code, _, err = cli("load", str(docs), "--dataset", "d", "--create", "--max-file-size", "1")

    assert code == 3
    assert "failed  big.txt: too large: 2.0 MiB, more than 1.0 MiB" in err
    assert "failed  blank.txt: " in err
    assert "the document cannot be retrieved" in err
    assert "failed  zip.txt: indexing failed" in err


@pytest.mark.parametrize("options", [(), ("-q",), ("--json", "-q")])
def test_failures_are_on_stderr_also_with_quiet(
    cli: Cli, folder: Path, options: tuple[str, ...]
) -> None:
    """As of curl -sS and rsync -q: a script that discards the output still logs failures."""
    (folder / "blank.txt").write_text("\n")
    (folder / "good.txt").write_text("text")
    assert cli("-q", "datasets", "create", "d", "--technique", "economy")[2] == ""

    code, out, err = cli(*options, "load", str(folder), "--dataset", "d")

    assert code == 3
    assert "failed  blank.txt: " in err
    assert "good.txt" not in err
    assert (out == "") == (options == ("-q",))
    assert ("next:" in err) == (options == ())


def test_a_named_file_that_is_skipped_exits_with_3(cli: Cli, docs: Path) -> None:
    """Also if its folder is named, where the same file would be skipped without notice."""
    cli("datasets", "create", "d", "--technique", "economy")
    tool = str(docs / "tool.exe")

    assert cli("load", str(docs), "--dataset", "d")[0] == 0
    code, _, err = cli("load", str(docs), tool, "--dataset", "d")
    assert (code, err) == (3, "  skipped  tool.exe: unsupported type .exe\n")
    code, _, err = cli("load", tool, "--dataset", "d")
    assert code == 3
    assert "failed  tool.exe: unsupported type .exe" in err
    assert cli("load", str(docs), str(docs / "reset.md"), "--dataset", "d")[0] == 0


def test_quiet_changes_print_only_failures(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt", "c.txt")
    cli("documents", "archive", "--dataset", "base", "b.txt")

    code, out, err = cli("-q", "documents", "delete", "--dataset", "base", "--all", "--yes")

    assert (code, out) == (3, "")
    assert err.startswith("failed  b.txt")
    assert err.count("\n") == 1
    assert cli("-q", "documents", "unarchive", "--dataset", "base", "b.txt") == (0, "", "")


def test_datasets_are_created_listed_shown_and_deleted(cli: Cli) -> None:
    assert cli("datasets", "create", "one", "--technique", "economy")[0] == 0
    assert cli("datasets", "create", "two")[0] == 0

    _, out, _ = cli("datasets", "list")
    assert out.splitlines()[0].split() == ["name", "documents", "technique", "id"]
    _, out, _ = cli("--json", "datasets", "list")
    by_name = {row["name"]: row for row in parse_json_lines(out)}
    assert set(by_name) == {"one", "two"}
    _, out, _ = cli("datasets", "show", by_name["one"]["id"])
    assert "economy" in out
    assert cli("datasets", "delete", "one")[0] == 0
    _, out, _ = cli("--json", "datasets", "list")
    assert [row["name"] for row in parse_json_lines(out)] == ["two"]


def test_documents_are_listed_by_status(cli: Cli, docs: Path) -> None:
    cli("load", str(docs), "--dataset", "d", "--create")

    _, out, _ = cli("documents", "list", "--dataset", "d")
    assert "sub__notes.txt" in out
    _, out, _ = cli("--json", "documents", "list", "--dataset", "d", "--status", "error")
    assert out == ""


def test_doctor_reports_each_check(cli: Cli) -> None:
    code, out, _ = cli("doctor")

    assert code == 0
    assert "ok      version: Dify 1.16" in out
    assert "ok      text-embedding models: dify-kb/emulator/stand-in:" in out
    code, out, _ = cli("--api-key", "wrong", "doctor")
    assert code == 4
    assert "failed  key" in out


def test_doctor_blames_neither_key_nor_request_for_the_plugin_daemon(
    cli: Cli, emulator: Emulator
) -> None:
    """Dify answers 400 invalid_param to everything while its plugin daemon is down."""
    emulator.faults.plan("datasets.list", ["plugin-daemon x20"])

    code, out, _ = cli("doctor")

    assert code == 1
    assert "failed  plugin daemon" in out
    assert "failed  key" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "what", "following"),
    [
        (["load", "/nowhere", "--dataset", "d"], 2, "/nowhere", "Check the path"),
        (["load", "{docs}", "--dataset", "nope"], 1, "Dataset not found: 'nope'", "--create"),
        (
            ["load", "{docs}", "--dataset", "00000000-0000-4000-8000-000000000000"],
            1,
            "returned 404",
            "Check the id",
        ),
        (["load", "{docs}", "--dataset", "d", "--api-key", "wrong"], 4, "401", "knowledge API key"),
        (
            ["load", "{docs}", "--dataset", "d", "--url", "http://127.0.0.1:1"],
            1,
            "cannot connect",
            "server is running",
        ),
        (
            ["load", "{docs}", "--dataset", "d", "--url", "ftp://x"],
            2,
            "Invalid server address",
            "https://",
        ),
        (
            ["load", "{docs}", "-d", "d", "--chunk-size", "60", "--chunk-overlap", "60"],
            2,
            "--chunk-overlap 60",
            "0 to 59",
        ),
        (
            ["load", "{docs}", "--dataset", "d", "--create", "--include", "*.none"],
            1,
            "No files to load",
            "Check",
        ),
        (["search", "--dataset", "d", "x" * 251], 1, "Dataset not found", "datasets list"),
        (["datasets", "create", "x" * 41], 2, "41 characters", "1 to 40"),
        (["datasets", "list", "--url", "emulator:x?colour=red"], 2, "colour", "version"),
        (["datasets", "list", "--url", "emulator:?version=9"], 2, "9", "1.16"),
        (["datasets", "list", "--header", "nonsense"], 2, "nonsense", "NAME:VALUE"),
        (["datasets", "list", "--ca", "/nowhere.pem"], 2, "/nowhere.pem", "PEM"),
    ],
)
def test_expected_errors_print_two_lines_and_exit_code(
    cli: Cli, docs: Path, arguments: list[str], code: int, what: str, following: str
) -> None:
    met, _, err = cli(*(argument.format(docs=docs) for argument in arguments))

    said, remedy = parse_error(err)
    assert what in said
    assert following in remedy
    assert met == code
    assert "Traceback" not in err


def test_empty_folder_is_an_error(cli: Cli, folder: Path) -> None:
    code, _, err = cli("load", str(folder), "--dataset", "d", "--create")

    said, _ = parse_error(err)
    assert code == 1
    assert said == f"No files to load in {folder}."


@pytest.mark.parametrize(
    "arguments",
    [["load"], ["nope"], ["load", "x"], ["search", "q", "--dataset", "d", "--top-k", "0"]],
)
def test_wrong_usage_exits_2(cli: Cli, arguments: list[str]) -> None:
    code, _, err = cli(*arguments)

    assert code == 2
    assert "Traceback" not in err


def test_missing_address_error_names_the_variable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFY_BASE_URL")

    code, _, err = cli("datasets", "list")

    assert code == 2
    assert "DIFY_BASE_URL" in parse_error(err)[1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_reads_well_at_80_columns(cli: Cli, command: list[str]) -> None:
    code, out, _ = cli(*command, "--help")

    assert code == 0
    assert out.startswith("Usage: dify-kb")
    assert max(map(len, out.splitlines())) <= 80


def test_control_characters_in_file_names_are_escaped(cli: Cli, folder: Path) -> None:
    """A newline or an escape sequence in a file name could forge lines of output."""
    (folder / "a\nb\x1b[31m.exe").write_text("x")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.pdf")).write_text("x")

    code, _, err = cli("load", str(folder), "--dataset", "d", "--create")

    assert code == 3
    assert "\x1b" not in err
    assert "bad\\udcff.pdf" in err
    _, out, _ = cli("--json", "load", str(folder), "--dataset", "d")
    assert {item["key"] for item in parse_json_lines(out)[:-1]} == {
        "a\nb\x1b[31m.exe",
        "bad\udcff.pdf",
    }


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_summary_of_a_command_is_the_first_sentence_of_its_help(cli: Cli, name: str) -> None:
    """The program's help is printed without importing the commands."""
    _, out, _ = cli(name, "--help")

    words = " ".join(out.split())
    assert f" {app.COMMANDS[name].summary} " in words


def test_help_imports_neither_the_client_nor_the_models() -> None:
    """These imports cost half a second of processor time, those of the program's help 0.1 s."""
    modules = {"aiohttp", "cattrs", "dify_kb.models", "dify_kb.ingest"}
    more = {"asyncio", "anyio", "rich.console"}
    code = f"""
import sys
from dify_kb.cli import run
for command, modules in (
    ((), {modules | more}), *(((name,), {modules}) for name in sys.argv[1:])
):
    run([*command, "--help"])
    print(*command, *sorted(modules & {{*sys.modules}}), file=sys.stderr)
"""
    names = ["load", "documents", "journal", "bench"]

    done = subprocess.run(  # noqa: S603 -- this interpreter
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )

    assert done.stderr.splitlines() == ["", *names]
