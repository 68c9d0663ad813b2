"""Rules for the options of all commands: bad numbers, one name for one thing, help texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from cli_runner import Cli

from dify_kb.arguments import parse_size
from dify_kb.cli import app, option_types
from dify_kb.config import MAX_FILE_SIZE
from dify_kb.models import process_rule

NUMBERS = {"N", "PORT", "SCORE", "SIZE", "DURATION", "N/UNIT", "N|LOW-HIGH"}
"""The metavars of options that take a number with or without a unit."""

NOT_NUMBERS = ["-1", "x", "nan", "1e400", "inf", "", "-5m"]

COUNTS = {"--limit", "--top-k", "--max-unindexed", "--max-failures", "--samples"}
"""Numbers without an upper bound."""

METAVARS = NUMBERS | {
    "SOURCE",
    "PERCENT",
    "N|PERCENT",
    *("NAME", "NAME|ID", "ID", "TEXT", "GLOB", "COND", "K=V", "FILE", "FILE|-", "DIR", "URL"),
    *("KEY", "COLUMN", "WORD", "HOST", "VERSION", "PROVIDER:MODEL", "FILE|-|JSON", "NAME:VALUE"),
}

REPLACED = {
    "--set": "--metadata",
    "--keyword": "--name or --contains",
    "--at-once": "--concurrency",
    "--max-concurrency": "--concurrency",
    "--index": "--db",
    "--max": "--limit",
}
"""Names that an option had, or might be given, beside its one name."""

KEYWORDS_OF_CHUNKS = {"segments create", "segments update"}
"""Commands whose `--keyword` is a keyword of a chunk."""


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Iterate over all commands that can be run, with their names."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        for child, entry in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {child}", entry)
        if not getattr(command, "commands", {}) or name == "bench":
            yield name, command

    for name in app.COMMANDS:
        yield from walk(name, app._load_command(name))


COMMANDS = dict(walk_commands())


def options_of(command: Any) -> Iterator[Any]:
    return (each for each in command.params if each.param_type_name == "option" and each.opts)


def required_words(command: Any) -> list[str]:
    """Return words for the required arguments and options of a command."""
    words: list[str] = []
    for each in command.params:
        if each.param_type_name == "argument":
            words += ["enable" if each.metavar == "ACTION" else "x"]
        elif each.required or "--dataset" in each.opts or "--document" in each.opts:
            words += [each.opts[0], "x"]
    return words


NUMERIC_OPTIONS = [
    (name, option.opts[0])
    for name, command in COMMANDS.items()
    for option in options_of(command)
    if option.metavar in NUMBERS
]


def test_numeric_options_are_found() -> None:
    assert {"--port", "--chunk-size", "--deadline", "--limit"} <= {o for _, o in NUMERIC_OPTIONS}


@pytest.mark.parametrize(
    ("name", "option"), NUMERIC_OPTIONS, ids=[" ".join(each) for each in NUMERIC_OPTIONS]
)
def test_a_bad_number_is_a_usage_error(
    cli: Cli, name: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a traceback nor a request."""
    monkeypatch.setenv("DIFY_BASE_URL", "http://127.0.0.1:1")
    words = [*name.split(), *required_words(COMMANDS[name])]
    values = [*NOT_NUMBERS, "70000"] if option == "--port" else NOT_NUMBERS
    is_bounded = COUNTS.isdisjoint({option})
    values = [*values, "9" * 400] if is_bounded else values

    for value in values:
        code, out, err = cli(*words, f"{option}={value}")
        assert (code, out) == (2, ""), (value, err)
        assert "Traceback" not in err
        assert option in err or "rate" in err, (value, err)


def test_each_metavar_is_a_known_word() -> None:
    unknown = {
        f"{name} {option.opts[0]}": option.metavar
        for name, command in COMMANDS.items()
        for option in options_of(command)
        if option.metavar and option.metavar not in METAVARS and "<" not in option.metavar
    }

    assert unknown == {}


def test_one_name_is_used_for_one_thing() -> None:
    replaced = {
        f"{name} {word}": REPLACED[word]
        for name, command in COMMANDS.items()
        for option in options_of(command)
        for word in option.opts
        if word in REPLACED and not (word == "--keyword" and name in KEYWORDS_OF_CHUNKS)
    }

    assert replaced == {}


def test_the_same_option_has_the_same_words_everywhere() -> None:
    """Of options that mean the same in all commands."""
    helps: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for option in options_of(command):
            helps.setdefault(option.opts[0], set()).add(option.help)

    shared = "--sort --limit --filter --yes --dry-run --host --port --metadata --contains"
    for name in f"{shared} --document --segment --chunk-overlap --deadline".split():
        assert len(helps[name]) == 1, name


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.endswith(" list")])
def test_each_list_can_be_sorted_and_limited(name: str) -> None:
    names = {word for option in options_of(COMMANDS[name]) for word in option.opts}

    assert {"--sort", "--limit"} <= names


def test_documents_are_selected_by_the_same_options() -> None:
    selection = ["--name", "--status", "--filter", "--all"]
    changing = ["delete", "enable", "disable", "archive", "unarchive", "list"]

    for name in [*(f"documents {verb}" for verb in changing), "metadata assign"]:
        words = {word for option in options_of(COMMANDS[name]) for word in option.opts}
        assert words >= set(selection), name
        assert "NAME|ID" in {each.metavar for each in COMMANDS[name].params if each.nargs == -1}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dataset_is_taken_as_d_and_with_a_profile(name: str) -> None:
    for option in options_of(COMMANDS[name]):
        if option.opts[0] == "--dataset":
            assert "-d" in option.opts
            assert "PROFILE:NAME" in option.help


def test_bounds_of_chunks_are_those_of_the_server() -> None:
    """Repeated, as the models take too long to import for a line of help."""
    assert option_types.MIN_CHUNK_SIZE == process_rule.MIN_CHUNK_LENGTH
    assert option_types.MAX_CHUNK_SIZE == process_rule.MAX_CHUNK_LENGTH


def test_the_default_size_of_files_is_that_of_the_server() -> None:
    """Repeated, for the same reason."""
    (option,) = (each for each in options_of(COMMANDS["load"]) if "--max-file-size" in each.opts)

    assert parse_size(option.default, "--max-file-size") == MAX_FILE_SIZE


def test_help_of_the_key_warns_about_the_list_of_processes(cli: Cli) -> None:
    words = re.sub(r"\s+", " ", cli("--help")[1])

    assert "Other users can see it in the list of processes" in words
