"""Lookup by name or id: suggestions, ambiguous names, no list requests for ids."""

from __future__ import annotations

import pytest
from cli_runner import (
    Cli,
    called_endpoints,
    create_dataset_with_documents,
    parse_error,
    parse_json_lines,
)

from dify_kb import Client
from dify_kb.emulator import Emulator


def test_id_without_dashes_is_a_name(cli: Cli, emulator: Emulator) -> None:
    """Servers do not have a route for ids without dashes."""
    name = "7816546130c641d5979acbfe8c461f47"
    create_dataset_with_documents(emulator, name=name)

    assert cli("datasets", "show", name)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "what", "following"),
    [
        (["datasets", "show", "Bse"], "Dataset not found: 'Bse'.", "Did you mean 'base'?"),
        (
            ["documents", "show", "--dataset", "base", "raedme.txt"],
            "Document not found: 'raedme.txt'.",
            "Did you mean 'readme.txt'?",
        ),
        (
            ["metadata", "delete", "--dataset", "base", "yaer"],
            "Metadata field not found: 'yaer'.",
            "Did you mean 'year'?",
        ),
        (["tags", "delete", "infar"], "Tag not found: 'infar'.", "Did you mean 'infra'?"),
    ],
)
def test_unknown_name_error_suggests_similar_names(
    cli: Cli, emulator: Emulator, arguments: list[str], what: str, following: str
) -> None:
    create_dataset_with_documents(emulator, "readme.txt")
    cli("metadata", "create", "--dataset", "base", "year")
    cli("tags", "create", "infra")

    code, _, err = cli(*arguments)

    assert code == 1
    assert parse_error(err)[0] == what
    assert parse_error(err)[1].startswith(following)


def test_ambiguous_name_error_lists_ids(cli: Cli, emulator: Emulator) -> None:
    """A disabled document is not replaced by a new one of its name: the server keeps both."""
    first = create_dataset_with_documents(emulator, "a.txt")["a.txt"]
    where = ["--dataset", "base"]
    cli("documents", "disable", *where, "a.txt")
    _, out, _ = cli("documents", "create", *where, "--name", "a.txt", "--text", "x", "--json")

    code, _, err = cli("documents", "delete", *where, "a.txt")

    assert code == 1
    what, following = parse_error(err)
    assert what == "2 documents are named 'a.txt'."
    assert first in following
    assert parse_json_lines(out)[0]["id"] in following


def test_id_lookup_sends_no_list_request(cli: Cli, emulator: Emulator) -> None:
    """A key may be valid for one dataset only: then lists return 403 (Dify issue 37257)."""
    documents = create_dataset_with_documents(emulator, "a.txt")
    with Client(emulator.url, emulator.api_key) as client:
        found = client.datasets.find("base")
        tag = client.tags.create("infra")
    assert found is not None
    before = len(emulator.history)

    where = ["--dataset", found.id]
    assert cli("documents", "show", *where, documents["a.txt"])[0] == 0
    assert cli("tags", "bind", *where, tag.id)[0] == 0
    assert cli("documents", "disable", *where, documents["a.txt"])[0] == 0
    assert cli("documents", "delete", *where, documents["a.txt"])[0] == 0
    assert cli("datasets", "delete", found.id)[0] == 0

    assert not [name for name in called_endpoints(emulator)[before:] if name.endswith(".list")]
