"""Helpers for tests of the command line: types, parsers of its output, a dataset to work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
from command_server import ForkedProgram

from dify_kb import Client, Policy
from dify_kb.emulator import Emulator

Cli = Callable[..., tuple[int, str, str]]
"""Runs a command; returns exit code, stdout and stderr."""

Shell = Callable[[Emulator], Cli]
"""Creates a `Cli` for a server."""

Program = Callable[..., ForkedProgram]
"""Starts a command in a process."""


def parse_json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def model_field_names(model: Any) -> set[str]:
    """Return the names of a model's fields, which are the keys of its JSON line."""
    return {field.name for field in attrs.fields(model)} - {"extra"}


def parse_error(stderr: str) -> tuple[str, str]:
    """Return the message and the hint of an error, without `error:` and `next:`."""
    what, following = stderr.strip().splitlines()[-2:]
    assert what.startswith("error: ")
    assert following.startswith("next:  ")
    return what[7:], following[7:]


def called_endpoints(emulator: Emulator) -> list[str]:
    """Return the endpoints that were called, in order."""
    return [exchange.endpoint for exchange in emulator.history]


def create_dataset_with_documents(
    emulator: Emulator, *names: str, name: str = "base"
) -> dict[str, str]:
    """Create a dataset with indexed documents, and return the documents' ids by name."""
    with Client(emulator.url, emulator.api_key, policy=Policy().scaled(0.01)) as client:
        made = client.datasets.create(name, indexing_technique="economy")
        created = [client.documents.create_by_text(made, each, "Wombats dig.") for each in names]
        client.documents.wait(made, created, timeout=30)
        return {document.document.name: document.document.id for document in created}


def list_document_names(emulator: Emulator, status: str | None = None) -> set[str]:
    """Return the names of the documents of `base` with this status."""
    with Client(emulator.url, emulator.api_key) as client:
        found = client.datasets.find("base")
        assert found is not None
        rows = client.documents.iter(found)
        return {row.name for row in rows if status in {None, row.display_status}}
