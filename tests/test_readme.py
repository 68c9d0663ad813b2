"""The README's Python runs, and its commands name what there is."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from dify_kb import AsyncClient, BadRequestError, presets
from dify_kb.cli import run
from dify_kb.external import check, create_app, serve

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


ASYNC, BLOCKING, BEDROCK, ITEMS, TRIAL, RETRIEVER = blocks("python")


def ran(
    example: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "__main__"
) -> dict[str, Any]:
    script = folder / "example.py"
    script.write_text(example)
    monkeypatch.chdir(ROOT)
    return runpy.run_path(str(script), run_name=name)


def test_the_async_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(ASYNC, tmp_path, monkeypatch)

    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ documents, 0 failed", told[0])
    assert "transport__retry.py.txt" in told[1:]


def test_the_blocking_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(BLOCKING, tmp_path, monkeypatch)

    assert "transport__sender.py.txt" in capsys.readouterr().out.splitlines()


def test_the_example_of_items_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(ITEMS, tmp_path, monkeypatch)

    told = capsys.readouterr().out.splitlines()
    assert sorted(told) == ["faq/reset.txt added", "faq/return.txt added"]


def test_the_example_of_a_test_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for a second before it looks for the lost document, as users do."""
    ran(TRIAL, tmp_path, monkeypatch)

    assert capsys.readouterr().out.startswith("1 added, 1 failed;")


async def test_the_bedrock_example_makes_the_base_once_the_models_are_there(
    client: AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The embedded server has no such models, and the example says so."""
    bedrock = ran(BEDROCK, tmp_path, monkeypatch)["bedrock"]

    await bedrock(client)

    assert "does not offer langgenius/bedrock/bedrock" in capsys.readouterr().out
    monkeypatch.setattr(presets, "check_bedrock", _content)
    with pytest.raises(BadRequestError, match="rovider"):
        await bedrock(client)


async def _content(workspace: object) -> None:
    """Find nothing missing."""


async def test_the_example_of_a_retriever_is_what_dify_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ran(RETRIEVER, tmp_path, monkeypatch, name="faq")
    app = create_app({"faq": names["Faq"]()}, api_keys="key")
    async with serve(app, "127.0.0.1", 0) as url:
        asked = check(url, api_key="key", knowledge_id="faq", query="How do I reset it?")
        findings = {finding.check: finding async for finding in asked}

    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["retrieval"].detail == "1 record that Dify takes"


async def test_every_resource_and_method_stands_in_the_table(client: AsyncClient) -> None:
    rows = re.findall(r"^\| `client\.(\w+)` \| (.+) \|$", README, re.MULTILINE)

    told = {resource: set(re.findall(r"`(\w+)`", methods)) for resource, methods in rows}

    assert told == {
        name: {
            method
            for method, value in vars(type(getattr(client, name))).items()
            if inspect.isfunction(value) and not method.startswith("_")
        }
        for name in told
    }
    assert len(told) == 8


def test_the_first_command_loads_the_package_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The virtual environment aside, which .ci/run makes."""
    steps = blocks("sh")[0].strip().split(" && ")
    monkeypatch.chdir(ROOT)
    database = f"emulator:{tmp_path / 'demo.db'}"

    for step in steps[2:]:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", step)[1:]]
        assert run([database if word == "emulator:.demo.db" else word for word in words]) == 0

    shown = capsys.readouterr().out
    assert re.search(r"\d+ files found in .* added", shown)
    assert "1. rag__chunk.py.txt" in shown
