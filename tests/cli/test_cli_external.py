"""`external serve` and `external check`, run as subprocesses."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_server import ForkedProgram

Cli = Callable[..., tuple[int, str, str]]


@contextmanager
def served(
    programs: Path, folder: Path, *arguments: str, **environment: str
) -> Iterator[dict[str, Any]]:
    """Serve a folder in a process, and yield the JSON line that it prints."""
    process = ForkedProgram(
        programs,
        ["--json", "external", "serve", str(folder), "--port", "0", *arguments],
        cwd=folder.parent,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": str(folder.parent / "cache"),
            **environment,
        },
    )
    told: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        told |= json.loads(process.stdout.readline())
        yield told
    finally:
        process.send_signal(signal.SIGINT)
        _, told["err"] = process.communicate(timeout=30)
        told["exit"] = process.returncode
        process.close()


def test_served_folder_passes_the_check(programs: Path, docs: Path, cli: Cli) -> None:
    """With default options: only the folder is given."""
    (docs / "more.md").write_text("The red button is for the device, and for nothing else.")
    with served(programs, docs) as told:
        given = ["--api-key", told["api_key"], "--knowledge-id", told["knowledge_id"]]
        code, out, err = cli("external", "check", told["url"], *given)

    assert told["knowledge_id"] == "docs"
    assert told["files"] == 4
    assert told["api_key"] in told["err"]
    assert told["exit"] == 130
    assert code == 0, out
    assert {line.split()[0] for line in out.splitlines()} == {"ok"}
    assert err == "This server works as an external knowledge base of Dify.\n"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_configured_key_is_never_printed(programs: Path, docs: Path, cli: Cli, how: str) -> None:
    key = "a-secret-key"
    arguments = ["--api-key", key] if how == "option" else []
    environment = {} if how == "option" else {"DIFY_EXTERNAL_API_KEY": key}
    with served(programs, docs, "--knowledge-id", "kb", *arguments, **environment) as told:
        code, out, err = cli(
            *("--json", "external", "check", told["url"], "--api-key", key),
            *("--knowledge-id", "kb"),
        )

    findings = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {finding["type"] for finding in findings} == {"check"}
    assert key not in out + err + told["err"] + json.dumps(told)


def test_check_of_a_failing_server_exits_1_with_a_remedy(cli: Cli) -> None:
    given = ["--api-key", "a", "--knowledge-id", "b"]
    code, out, err = cli("external", "check", os.environ["DIFY_BASE_URL"], *given)

    assert code == 1
    assert "failed  registration: Dify rejects it: Not Found: failed to connect" in out
    assert "        next: Respond to an empty POST with 400" in out
    assert err == "This server does not work as an external knowledge base of Dify.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "http://a"], "Missing option --api-key."),
        (["check", "http://a", "--api-key", "k"], "Missing option --knowledge-id."),
        (["check", "a", "--api-key", "k", "--knowledge-id", "i"], "Invalid endpoint 'a'."),
        (["serve", "/missing/folder", "--port", "0"], "Cannot serve folder /missing/folder"),
        (["serve", ".", "--port", "0", "--db", "pyproject.toml"], "not the index of a folder"),
    ],
)
def test_expected_errors_print_two_lines(cli: Cli, arguments: list[str], told: str) -> None:
    code, _, err = cli("external", *arguments)

    assert code == 2
    assert told in err
    assert err.count("\n") == 2


def test_port_in_use_is_an_error(programs: Path, docs: Path, tmp_path: Path, cli: Cli) -> None:
    with served(programs, docs) as told:
        port = told["url"].rpartition(":")[2]
        index = str(tmp_path / "index.db")
        code, _, err = cli("external", "serve", str(docs), "--port", port, "--db", index)

    assert code == 2
    assert f"Port {port} on 127.0.0.1 is already in use." in err
