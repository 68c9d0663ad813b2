"""Profiles in the shell: which server and dataset a command uses, and its errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Cli, Shell, create_dataset_with_documents, parse_error

from dify_kb.emulator import Emulator
from dify_kb.profiles import config_file


@pytest.fixture
def other() -> Iterator[Emulator]:
    """Start a second server."""
    with Emulator() as server:
        yield server


@pytest.fixture
def cli(shell: Shell, emulator: Emulator, other: Emulator, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run commands with two profiles, `prod` and `stage`, and without an address."""
    call = shell(emulator)
    monkeypatch.delenv("DIFY_BASE_URL")
    monkeypatch.delenv("DIFY_API_KEY")
    create_dataset_with_documents(emulator, "p.txt", name="Handbook")
    create_dataset_with_documents(other, "s.txt", name="Handbook")
    write_config(
        f'[prod]\nurl = "{emulator.url}"\napi_key = "{emulator.api_key}"\ndataset = "Handbook"\n'
        f'[stage]\nurl = "{other.url}"\nkey_command = "echo {other.api_key}"\n'
    )
    return call


def write_config(text: str) -> None:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(text)
    config_file().chmod(0o600)


def test_a_profile_selects_the_server_and_the_key(cli: Cli) -> None:
    assert "s.txt" in cli("--profile", "stage", "documents", "list", "-d", "Handbook")[1]
    assert "p.txt" in cli("documents", "list", "-d", "Handbook", "--profile=prod")[1]


def test_the_profile_of_the_environment_yields_to_the_option(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFY_PROFILE", "stage")

    assert "s.txt" in cli("documents", "list", "-d", "Handbook")[1]
    assert "p.txt" in cli("documents", "list", "-d", "Handbook", "--profile", "prod")[1]


def test_a_dataset_may_name_its_profile(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "s.txt" in cli("documents", "list", "-d", "stage:Handbook")[1]
    assert "Handbook" in cli("datasets", "show", "prod:Handbook")[1]
    assert cli("stats", "-d", "stage:Handbook")[0] == 0
    monkeypatch.setenv("DIFY_DATASET", "stage:Handbook")
    assert "s.txt" in cli("documents", "list")[1]


def test_the_dataset_defaults_to_that_of_the_profile(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "p.txt" in cli("documents", "list", "--profile", "prod")[1]
    assert "p.txt" in cli("documents", "list", "-d", "prod:")[1]
    code, _, err = cli("documents", "list", "--profile", "stage")
    assert (code, parse_error(err)[0]) == (2, "Missing option --dataset.")
    monkeypatch.setenv("DIFY_DATASET", "Handbook")
    assert "s.txt" in cli("documents", "list", "--profile", "stage")[1]


def test_a_colon_without_a_profile_is_part_of_the_name(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "c.txt", name="team: infra")
    create_dataset_with_documents(emulator, "d.txt", name="prod:old")

    assert "c.txt" in cli("documents", "list", "--profile", "prod", "-d", "team: infra")[1]
    assert "d.txt" in cli("documents", "list", "-d", "prod:prod:old")[1]


@pytest.mark.parametrize(
    ("arguments", "summary"),
    [
        (["--profile", "nope", "datasets", "list"], "Unknown profile 'nope'."),
        (["--profile", "prod", "--url", "http://x", "datasets", "list"], "and --url cannot be"),
        (["documents", "list", "-d", "prod:Handbook", "--url", "http://x"], "and --url cannot be"),
        (["documents", "list", "-d", "prod:Handbook", "--profile", "stage"], "cannot be combined"),
        (["datasets", "delete", "prod:a", "stage:b"], "Profiles 'prod' and 'stage' cannot be"),
    ],
)
def test_contradictions_are_errors(cli: Cli, arguments: list[str], summary: str) -> None:
    code, _, err = cli(*arguments)

    assert code == 2
    assert summary in parse_error(err)[0]


def test_errors_of_the_configuration_are_two_lines(cli: Cli) -> None:
    write_config("[prod\n")
    code, _, err = cli("--profile", "prod", "datasets", "list")
    assert (code, "line 1" in parse_error(err)[0]) == (2, True)

    write_config(
        '[prod]\nurl = "http://x"\nkey_command = "sh -c \'echo K; echo Locked >&2; exit 3\'"'
    )
    code, _, err = cli("--profile", "prod", "datasets", "list")
    assert code == 2
    assert parse_error(err)[0].endswith("failed with exit code 3: Locked")
    assert "K" not in err.replace("Key", "").replace("key", "")


def test_a_key_is_not_sent_to_the_address_of_another_option(
    cli: Cli, emulator: Emulator, other: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --url, neither the profile of the environment nor its key is used."""
    monkeypatch.setenv("DIFY_PROFILE", "prod")
    requests = len(emulator.history) + len(other.history)

    code, _, err = cli("--url", other.url, "datasets", "list")

    assert code == 2
    assert "Missing API key" in err
    assert len(emulator.history) + len(other.history) == requests


def test_the_environment_wins_over_the_default_profile(
    cli: Cli, other: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(f'default_profile = "prod"\n{config_file().read_text()}')
    assert "p.txt" in cli("documents", "list")[1]

    monkeypatch.setenv("DIFY_BASE_URL", other.url)
    monkeypatch.setenv("DIFY_API_KEY", other.api_key)
    assert "s.txt" in cli("documents", "list", "-d", "Handbook")[1]


def test_version_is_printed_without_a_request(cli: Cli, emulator: Emulator) -> None:
    requests = len(emulator.history)
    for option in ("-V", "--version"):
        code, out, err = cli(option, "--url", emulator.url)
        assert code == 0
        assert out.startswith("dify-kb 0.")
        assert ", Python 3." in out
        assert err == ""
    assert cli("load", "-V")[1] == cli("-V")[1]
    assert len(emulator.history) == requests


def test_the_next_command_keeps_the_profile_of_the_dataset(cli: Cli) -> None:
    _, _, err = cli("documents", "show", "-d", "stage:Handbook", "p.txt")

    hint = parse_error(err)[1]
    assert "`dify-kb --profile stage documents list --dataset Handbook`" in hint


def test_the_configuration_is_only_read_when_needed(
    cli: Cli, tmp_path: Path, other: Emulator
) -> None:
    write_config("[broken\n")

    assert cli("journal", "show")[0] == 0
    code, _, _ = cli("--url", other.url, "--api-key", other.api_key, "datasets", "list")
    assert code == 0
    assert os.listdir(tmp_path / "cache" / "dify-kb") == ["datasets.json"]  # noqa: PTH208
