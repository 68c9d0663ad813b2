"""A base in the emulator, and the command line to look after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dify_kb import Client
from dify_kb.cli import run
from dify_kb.emulator import Emulator

Cli = Callable[..., tuple[int, str, str]]
"""Runs a command; gives exit code, stdout and stderr."""


def shell(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    monkeypatch.setenv("DIFY_BASE_URL", emulator.url)
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def two_lines(stderr: str) -> tuple[str, str]:
    """The two lines of an error, without what they begin with."""
    what, following = stderr.strip().splitlines()[-2:]
    assert what.startswith("error: ")
    assert following.startswith("next:  ")
    return what[7:], following[7:]


def asked(emulator: Emulator) -> list[str]:
    """The endpoints that were called, in their order."""
    return [exchange.endpoint for exchange in emulator.history]


def base(emulator: Emulator, *names: str, name: str = "base") -> dict[str, str]:
    """Make a base with indexed documents, and give their ids by their names."""
    with Client(emulator.url, emulator.api_key) as client:
        made = client.datasets.create(name, indexing_technique="economy")
        created = [client.documents.create_by_text(made, each, "Wombats dig.") for each in names]
        client.documents.wait(made, created, timeout=15)
        return {document.document.name: document.document.id for document in created}
