"""Commands that are printed as the next step: they can be run as printed, or say why not."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from cli_runner import Cli, create_dataset_with_documents, parse_error

from dify_kb.cli.command_line import complete_hint, format_command_line, instruct_repetition
from dify_kb.emulator import Emulator

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def printed_command(text: str) -> list[str]:
    """Return the words of the only command in a hint, without the program's name."""
    (command,) = re.findall(r"`(dify-kb [^`]+)`", text) or re.findall(
        r"^ +(dify-kb .+)", text, re.MULTILINE
    )
    return shlex.split(command)[1:]


@pytest.mark.parametrize(
    "words",
    [
        "datasets show nope",
        "documents show -d my_docs nope.txt",
        "documents list -d my_docs nope.txt",
        "documents list -d my_docs --filter nope=1",
        "metadata show -d my_docs nope",
        "metadata delete -d my_docs nope",
        "metadata assign -d my_docs --metadata nope=1 --all",
        "tags show nope",
        "tags unbind -d my_docs nope",
        f"child-chunks show -d my_docs --document it's.txt --segment SEGMENT {UNKNOWN}",
        "journal show nope",
    ],
)
def test_the_suggested_command_runs_with_the_typed_name_and_address(
    cli: Cli, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    create_dataset_with_documents(emulator, "it's.txt", name="my docs")
    url = ["--url", emulator.url] if not words.startswith("journal") else []
    _, out, _ = cli("--json", "segments", "list", "-d", "my docs", "--document", "it's.txt")
    segment = re.findall(r'"id": "([^"]+)"', out)[0]
    monkeypatch.delenv("DIFY_BASE_URL")
    arguments = words.replace("SEGMENT", segment).split()

    code, _, err = cli(*(word.replace("my_docs", "my docs") for word in arguments), *url)

    command = printed_command(parse_error(err)[1])
    assert code == 1
    assert command[:2] == url or not url
    assert UNKNOWN not in command
    if "my_docs" in words:
        assert "my docs" in command
    if not words.startswith("child"):  # its document has no child chunks
        assert cli(*command)[0] == 0, command


def test_an_interrupted_or_failed_load_prints_a_command_that_runs(
    cli: Cli, docs: Path, emulator: Emulator
) -> None:
    emulator.faults.plan("documents.create_by_file", ["413 x9"])
    (docs / "sub").rename(docs / "it's $HOME")

    code, _, err = cli("load", str(docs / "it's $HOME"), "-d", "my docs", "--create")

    assert code == 3
    emulator.faults.clear()
    command = printed_command(err)
    assert command[-1] == "--retry-failed"
    code, out, _ = cli(*command)
    assert code == 0
    assert "1 added" in out


def test_a_list_that_was_read_has_to_be_piped_again(
    cli: Cli, docs: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emulator.faults.plan("documents.create_by_file", ["413 x9"])
    file = tmp_path / "list"
    file.write_text("reset.md\n")

    with file.open() as listed:
        monkeypatch.setattr(sys, "stdin", listed)
        code, _, err = cli("load", str(docs), "-d", "d", "--create", "--files-from", "-")

    assert code == 3
    assert "Standard input was read. Pipe the list again into this command to retry" in err
    assert "--files-from - --retry-failed" in err


def test_a_secret_is_not_printed_and_the_reader_is_told() -> None:
    words = ["load", "docs", "--api-key", "dataset-Secret"]

    assert instruct_repetition("resume", words) == (
        "Run this command to resume, with your own value for …:\n"
        "       dify-kb load docs --api-key …"
    )


def test_added_options_precede_a_double_dash() -> None:
    words = ["load", "-d", "x", "--", "-odd"]

    assert format_command_line(words, "--retry-failed") == (
        "dify-kb load -d x --retry-failed -- -odd"
    )


def test_words_with_control_characters_and_raw_bytes_are_quoted_for_bash() -> None:
    assert format_command_line(["load", "a\nb", "\udcff"]) == r"dify-kb load $'a\x0ab' $'\xff'"


@pytest.mark.parametrize(
    ("arguments", "profile", "expected"),
    [
        (["--url", "emulator:a b.db", "x"], None, "dify-kb --url 'emulator:a b.db' stats"),
        (["x", "--profile=prod"], "prod", "dify-kb --profile=prod stats"),
        (["x", "--json", "-q", "--trust-env"], None, "dify-kb --trust-env stats"),
        (["x", "-d", "prod:y"], "prod", "dify-kb --profile prod stats"),
        (["x", "--ca", "f.pem"], None, "dify-kb --ca f.pem stats"),
    ],
)
def test_suggestions_keep_the_connection(
    arguments: list[str], profile: str | None, expected: str
) -> None:
    assert complete_hint("Run `dify-kb stats`.", arguments, profile, "") == f"Run `{expected}`."


def test_a_suggestion_with_a_secret_says_what_is_missing() -> None:
    hint = complete_hint("Run `dify-kb stats`.", ["--api-key=K", "x"], None, "")

    assert hint == "Run `dify-kb --api-key=… stats`. Use your own value for …"


def test_the_remedy_of_a_stopped_load_keeps_the_address(
    cli: Cli, docs: Path, emulator: Emulator
) -> None:
    emulator.faults.plan("documents.create_by_file", ["503 x999"])

    _, _, err = cli("--url", emulator.url, "load", str(docs), "-d", "d", "--create")

    assert f"check it with `dify-kb --url {emulator.url} doctor`" in err


def test_suggestions_of_local_commands_stay_short() -> None:
    hint = "Run `dify-kb journal show`, or `dify-kb bench compare a b`."

    assert complete_hint(hint, ["--url", "u", "x"], None, "") == hint
