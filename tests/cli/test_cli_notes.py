"""Short notes on stderr: empty lists, and servers whose data ends with the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import Cli, create_dataset_with_documents

from dify_kb.emulator import Emulator


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("datasets list --name nope", "No datasets.\n"),
        ("documents list -d base --name nope", "No documents.\n"),
        ("tags list", "No tags.\n"),
        ("segments list -d base --document a.txt --contains nope", "No chunks.\n"),
    ],
)
def test_an_empty_list_is_said_to_be_empty(
    cli: Cli, emulator: Emulator, words: str, note: str
) -> None:
    """Not by a header alone; in JSON there are no lines."""
    create_dataset_with_documents(emulator, "a.txt")

    assert cli(*words.split()) == (0, "", note)
    assert cli(*words.split(), "--json") == (0, "", "")


def test_a_server_in_memory_is_announced(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next command does not find what this one has created."""
    monkeypatch.delenv("DIFY_API_KEY")
    create = ("datasets", "create", "d", "--technique", "economy")

    memory = cli(*create, "--url", "emulator:?version=1.12.1")[2]
    quiet = cli(*create, "--url", "emulator:", "-q")[2]
    kept = cli(*create, "--url", f"emulator:{tmp_path}/server.db")[2]

    assert "keeps its data in memory, until this command ends" in memory
    assert "emulator:FILE?version=1.12.1" in memory
    assert "memory" not in quiet + kept
