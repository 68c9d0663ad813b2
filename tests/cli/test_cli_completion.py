"""Shell completion: of commands, profiles and datasets, without a request or a message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from cli_runner import Cli, create_dataset_with_documents

from dify_kb.cli import completion
from dify_kb.emulator import Emulator
from dify_kb.profiles import config_file

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return a function that completes the last word of a command line, as bash asks for it."""

    def call(*words: str, by: str = "bash") -> list[str]:
        monkeypatch.setenv("_DIFY_KB_COMPLETE", f"complete_{by}")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["dify-kb", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["dify-kb", *words]))
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        code, out, err = cli()
        assert (code, err) == (0, "")
        monkeypatch.delenv("_DIFY_KB_COMPLETE")
        return [line for line in out.splitlines() if line]

    return call


def write_profiles(emulator: Emulator) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text(
        f'[prod]\nurl = "{emulator.url}"\n[stage]\nurl = "https://stage.example"\n'
    )


def test_commands_and_options_are_completed(complete: Complete) -> None:
    assert complete("lo") == ["load"]
    assert complete("documents", "un") == ["unarchive"]
    assert complete("documents", "list", "--na") == ["--name"]
    assert complete("documents", "list", "--prof") == ["--profile"]
    assert complete("documents", "list", "--js") == ["--json"]
    assert complete("documents", "list", "--status", "ar") == ["archived"]


def test_profiles_are_completed_before_and_after_the_command(
    complete: Complete, emulator: Emulator
) -> None:
    write_profiles(emulator)

    assert complete("--profile", "") == ["prod", "stage"]
    assert complete("documents", "list", "--profile", "st") == ["stage"]
    assert complete("--profile", "x") == []


def test_datasets_are_completed_from_the_last_list(
    complete: Complete, cli: Cli, emulator: Emulator
) -> None:
    for name in ("Handbook", "my docs", "team: x"):
        create_dataset_with_documents(emulator, name=name)
    assert complete("documents", "list", "-d", "") == []
    assert cli("datasets", "list")[0] == 0
    requests = len(emulator.history)

    assert complete("documents", "list", "-d", "Hand") == ["Handbook"]
    assert complete("documents", "list", "--dataset", "my") == ["my\\ docs"]
    assert complete("documents", "list", "--dataset", "'my") == ["my docs"]
    assert complete("datasets", "show", "Ha") == ["Handbook"]
    assert complete("stats", "-d", "my", by="fish") == ["my docs"]
    assert len(emulator.history) == requests
    cli("datasets", "delete", "Handbook")
    assert cli("stats")[0] == 0
    assert complete("documents", "list", "-d", "Hand") == []


def test_datasets_of_a_profile_are_completed_after_the_colon(
    complete: Complete, cli: Cli, emulator: Emulator
) -> None:
    """Bash splits words at a colon, and replaces only what follows it."""
    write_profiles(emulator)
    create_dataset_with_documents(emulator, name="Handbook")
    assert cli("datasets", "list")[0] == 0

    assert complete("search", "-d", "prod", ":", "Ha") == ["Handbook"]
    assert complete("search", "-d", "prod:Ha", by="fish") == ["prod:Handbook"]
    assert complete("search", "-d", "pro") == ["prod:Handbook"]
    assert complete("search", "-d", "stage", ":") == []


def test_a_created_dataset_is_remembered(complete: Complete, cli: Cli, docs: str) -> None:
    assert cli("load", str(docs), "-d", "New one", "--create")[0] == 0

    assert complete("search", "-d", "New") == ["New\\ one"]


@pytest.mark.parametrize("damage", ["config", "cache"])
def test_damaged_files_complete_nothing_and_print_nothing(complete: Complete, damage: str) -> None:
    file = config_file() if damage == "config" else completion.cache_file()
    file.parent.mkdir(parents=True)
    for text in ("[", '{"http://x": 1}', '"x"', "\xff"):
        file.write_text(text, encoding="latin-1")
        assert complete("search", "-d", "a") == []
        assert complete("--profile", "a") == []


def test_a_wrong_command_line_prints_nothing(complete: Complete) -> None:
    assert complete("nope", "x", "-d", "--url", "") == []
    assert complete("load", "--nope", "x", "-d", "") == []


def test_a_cache_that_cannot_be_written_is_ignored(cli: Cli) -> None:
    completion.cache_file().parent.parent.mkdir()
    completion.cache_file().parent.write_text("a file")

    assert cli("datasets", "list")[0] == 0


def test_the_cache_is_bounded() -> None:
    completion.remember_datasets("http://x/v1/", [f"d{n}" for n in range(2000)])
    completion.remember_datasets("http://x", ["new"])

    (names,) = json.loads(completion.cache_file().read_text()).values()
    assert (len(names), names[0]) == (completion.MAX_NAMES, "new")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    """Without the detection of the running shell, the options take its name."""
    shown = subprocess.run(  # noqa: S603 -- this interpreter
        [sys.executable, "-m", "dify_kb", "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert f"_DIFY_KB_COMPLETE=complete_{shell}" in shown.stdout


def test_completion_imports_neither_the_client_nor_rich() -> None:
    """It runs at each press of the tab key."""
    code = (
        "import sys, os; os.environ['_DIFY_KB_COMPLETE'] = 'complete_bash';"
        "os.environ['COMP_WORDS'] = 'dify-kb\\nsearch\\n-d\\nx'; os.environ['COMP_CWORD'] = '3';"
        "from dify_kb.cli import run; run([]);"
        "print(*sorted({'aiohttp', 'cattrs', 'dify_kb.models', 'dify_kb.ingest'} & {*sys.modules}))"
    )

    shown = subprocess.run(  # noqa: S603 -- this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == ""
    assert shown.stderr == ""
