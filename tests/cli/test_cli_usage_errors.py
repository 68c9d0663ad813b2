"""Wrong command lines: every command reports them as it reports other errors."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from cli_runner import Cli, parse_error, parse_json_lines

from dify_kb.cli import app
from dify_kb.cli.table_layout import wrap_message
from dify_kb.cli.usage_errors import ParserError, describe_usage_error
from dify_kb.errors import ConfigError

LEAKS = ("Input should", "Value error", "parse string", "Usage:", "Error:", "Try '")


def iter_commands(*words: str, command: Any = None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all commands that can be run, with their words."""
    if command is None:
        for name in app.COMMANDS:
            yield from iter_commands(name, command=app._load_command(name))
        return
    if getattr(command, "commands", None):
        for name, subcommand in command.commands.items():
            yield from iter_commands(*words, name, command=subcommand)
    if not getattr(command, "no_args_is_help", False):
        yield words, command


ALL_COMMANDS = dict(iter_commands())


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_every_command_refuses_unknown_options_in_two_lines(
    cli: Cli, words: tuple[str, ...]
) -> None:
    code, out, err = cli(*words, "--colour")

    assert (code, out, len(err.splitlines())) == (2, "", 2)
    assert parse_error(err)[0] == "Unknown option: --colour."


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_every_option_refuses_wrong_values_without_words_of_the_parser(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFY_DATASET", "d")
    command = ALL_COMMANDS[words]
    context = SimpleNamespace(invocation=SimpleNamespace(dataset=""))
    for parameter in command.params:
        if parameter.name == "dataset" or parameter.param_type_name == "argument":
            continue
        option = max(parameter.opts, key=len)
        try:
            command.make_context(words[-1], [option, "nope"], obj=context)
        except ParserError as error:
            described = describe_usage_error(error, words)
        except ConfigError as error:
            described = error
        else:
            continue
        assert not [leak for leak in LEAKS if leak in f"{described} {described.hint}"], option
        assert described.hint.endswith(".")


@pytest.mark.parametrize(
    ("words", "summary", "hint"),
    [
        ("lod", "Unknown command: 'lod'.", "Use load; `dify-kb --help` lists the commands."),
        ("documents lst -d d", "Unknown command: 'lst'.", "Use list; `dify-kb documents --help`"),
        ("load x --workers 8", "Unknown option: --workers.", "Use --concurrency; "),
        ("load x --retry_failed", "Unknown option: --retry_failed.", "Use --retry-failed; "),
        ("load x --xyzzy", "Unknown option: --xyzzy.", "`dify-kb load --help` lists the options."),
        ("load x -d d --wait forever", "'forever' for --wait.", "Pass accepted, indexed or verif"),
        ("load x -d d --technique fast", "'fast' for --technique.", "Pass economy or high_quality"),
        ("load x -d d --chunk-size 10", "'10' for --chunk-size.", "Pass 50 or more."),
        ("search -d d q --top-k five", "'five' for --top-k.", "Pass a whole number."),
        ("search -d d q --score-threshold x", "for --score-threshold.", "Pass a number."),
        ("emulator --port 70000", "'70000' for --port.", "Pass 65535 or less."),
        ("search -d d", "Missing argument QUERY.", "Pass QUERY; `dify-kb search --help` describes"),
        ("load x -d d --rate", "Option --rate requires a value.", "Run `dify-kb load --help`."),
        ("guide load python", "Unexpected argument: python.", "Run `dify-kb guide --help`."),
    ],
)
def test_a_wrong_command_line_is_named_with_what_to_type_instead(
    cli: Cli, words: str, summary: str, hint: str
) -> None:
    code, out, err = cli("--json", *words.split())

    message, following = parse_error(err)
    assert message.endswith(summary)
    assert following.startswith(hint)
    assert code == 2
    assert parse_json_lines(out) == [
        {"type": "error", "error": message, "hint": following, "exit": 2}
    ]


def test_options_are_named_without_parameters_of_python(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFY_API_KEY")
    hint = parse_error(cli("datasets", "list")[2])[1]
    assert hint == "Pass a knowledge key (dataset-…) as --api-key, or set DIFY_API_KEY."
    monkeypatch.setenv("DIFY_API_KEY", "x")
    message, _ = parse_error(cli("datasets", "list", "--proxy", "foo")[2])
    assert message == "The address of the proxy in --proxy has no scheme: 'foo'."


def test_messages_are_wrapped_between_words_and_commands_stay_whole() -> None:
    command = "dify-kb --url https://dify.example/v1 documents list -d Handbook"

    error = wrap_message(f"error: {'word ' * 12}end", 40)
    hint = wrap_message(f"next:  Run `{command}` to list all of the documents.", 40)
    repetition = wrap_message(f"next:  Run this command:\n       {command}", 40)

    assert [len(line) <= 40 for line in error.splitlines()] == [True, True]
    assert error.splitlines()[1].startswith("       word")
    assert hint.splitlines()[1] == f"       `{command}`"
    assert repetition.splitlines()[1] == f"       {command}"
