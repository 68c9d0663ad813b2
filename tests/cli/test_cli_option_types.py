from __future__ import annotations

from typing import get_args

import pytest
from cli_runner import Cli

from dify_kb import ModelType, SegmentStatus
from dify_kb.arguments import parse_duration
from dify_kb.cli import option_types
from dify_kb.cli.command_line import format_command_line
from dify_kb.cli.journal_output import STATE_NAMES
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError
from dify_kb.ingest import OnError, OnExisting, Replace, Wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("30 min", 1800), ("2H", 7200), ("1d", 86400)],
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 weeks", "1h30", "inf", "nan"])
def test_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--deadline"):
        parse_duration(text, "--deadline")


def test_numbers_and_ranges_are_parsed() -> None:
    assert option_types.parse_range("--concurrency", "4") == 4
    assert option_types.parse_range("--concurrency", "2-16") == (2, 16)


@pytest.mark.parametrize("text", ["0", "8-2", "many", "1-", "-3", "0-4"])
def test_invalid_range_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--concurrency"):
        option_types.parse_range("--concurrency", text)


def test_pairs_are_texts_or_numbers() -> None:
    given = ["team=infra", "year:=2024", "score:=0.5", "url=http://a/?b:=c", "empty="]

    assert option_types.parse_pairs("--metadata", given) == {
        "team": "infra",
        "year": 2024,
        "score": 0.5,
        "url": "http://a/?b:=c",
        "empty": "",
    }


@pytest.mark.parametrize(
    "pairs",
    [["team"], ["=x"], [":=3"], ["a:=x"], ["a:=true"], ["a:=NaN"], ["a:="], ["a=1", "a:=1"]],
)
def test_invalid_pair_is_an_error(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match="--metadata"):
        option_types.parse_pairs("--metadata", pairs)


def test_command_line_is_quoted_without_secrets() -> None:
    given = [
        "load",
        "my docs",
        "--api-key",
        "dataset-x",
        "--header=A: b",
        "--proxy",
        "http://u:p@h",
    ]

    assert format_command_line(given, "--retry-failed") == (
        "dify-kb load 'my docs' --api-key … --header=… --proxy … --retry-failed"
    )
    assert (
        format_command_line(["load", "--retry-failed"], "--retry-failed")
        == "dify-kb load --retry-failed"
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["load", "", "--dataset", "d"], "for PATH"),
        (["load", "docs", "", "--dataset", "d"], "for PATH"),
        (["load", "docs", "--dataset", "d", "--journal="], "for --journal"),
        (["load", "docs", "--dataset", "d", "--log-file", ""], "for --log-file"),
        (["documents", "create", "", "--dataset", "d"], "empty path"),
        (["segments", "create", "--dataset", "d", "--document", "a", "--from", ""], "for --from"),
        (["journal", "show", ""], "empty path"),
        (["journal", "export", ""], "empty path"),
        (["bench", "--corpus", ""], "for --corpus"),
        (["bench", "--save", ""], "for --save"),
        (["bench", "compare", "", "b.json"], "for BEFORE"),
        (["bench", "corpus", ""], "for DIR"),
        (["eval", ""], "for QUERIES"),
        (["emulator", "--db", ""], "for --db"),
        (["external", "serve", ""], "for FOLDER"),
        (["datasets", "list", "--ca", ""], "for --ca"),
    ],
)
def test_an_empty_path_is_a_usage_error(
    cli: Cli, emulator: Emulator, arguments: list[str], name: str
) -> None:
    """An unset shell variable gives an empty path; `Path("")` is the current folder."""
    code, _, err = cli(*arguments)

    assert code == 2
    assert name in err
    assert "empty path.\nnext:  Check the shell variable in it." in err
    assert not emulator.history


@pytest.mark.parametrize(
    ("choices", "accepted"),
    [
        (get_args(option_types.OnExisting), get_args(OnExisting)),
        (get_args(option_types.OnError), get_args(OnError)),
        (get_args(option_types.Replace), get_args(Replace)),
        (get_args(option_types.WaitFor), get_args(Wait)),
        (get_args(option_types.JournalStateName), tuple(STATE_NAMES.values())),
        (tuple(option_types.ModelTypeChoice), tuple(ModelType)),
        (tuple(option_types.SegmentStatusChoice), tuple(SegmentStatus)),
    ],
)
def test_options_offer_every_value_that_is_accepted(
    choices: tuple[str, ...], accepted: tuple[str, ...]
) -> None:
    """The values are listed twice: help must not import the modules that define them."""
    assert [*map(str, choices)] == [*map(str, accepted)]
