"""The code blocks of the README and the guides run, in order, as printed."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dify_kb import AsyncClient, BadRequestError, presets
from dify_kb.cli import run
from dify_kb.cli.guide import NAMES
from dify_kb.emulator import Emulator
from dify_kb.external import check, create_app, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = ROOT / "dify_kb/guides"
DOCUMENTS = [README, *(GUIDES / f"{name}.md" for name in NAMES)]
MAX_README_LINES = 250
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTED_URL, PRINTED_KEY = "https://dify.example/v1", "dataset-your-key"
LONG = os.environ.get("CHAOS") == "long"
NOT_RUN = {"text", "json", "yaml", "ini"}
"""Output, files, and commands that serve until Ctrl-C."""


def code_blocks(document: Path) -> list[tuple[str, str]]:
    """Return (language, text) of each block of a document."""
    return BLOCK.findall(document.read_text())


def python_block(document: Path, containing: str) -> str:
    """Return the Python block that contains a text."""
    blocks = [text for language, text in code_blocks(document) if language == "python"]
    (block,) = (text for text in blocks if containing in text)
    return block


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a repository of two commits with the files of a clone that the blocks use."""
    clone = tmp_path / "clone"
    shutil.copytree(GUIDES, clone / "dify_kb/guides")
    (tmp_path / "home").mkdir()
    git = f"git -C {clone} -c user.name=a -c user.email=a@example.org"
    change = f"echo >> {clone}/dify_kb/guides/shell.md"
    commands = [
        f"{git} init -q",
        f"{git} add .",
        *(f"{git} commit -qam one", change, f"{git} commit -qam two"),
    ]
    subprocess.run(["bash", "-ec", "\n".join(commands)], check=True)  # noqa: S603, S607 -- our own
    return clone


@pytest.fixture
def server() -> Iterator[Emulator]:
    """Start the server that the printed address stands for."""
    with Emulator() as emulator:
        yield emulator


def run_program(command: Sequence[str], clone: Path, programs: Path) -> str:
    """Run a command in the clone, with its own home directory; return its output."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DIFY_")
    }
    environment |= {
        "HOME": str(clone.parent / "home"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    completed = subprocess.run(  # noqa: S603 -- blocks of our own documents
        [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert completed.returncode == 0, completed.stdout[-500:] + completed.stderr[-1500:]
    return completed.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_every_block_of_a_document_runs(
    document: Path, clone: Path, server: Emulator, programs: Path
) -> None:
    """The console blocks of a document run in one shell, as they build on each other.

    `bench` makes fewer requests, except in `poe chaos`.
    """
    console = ["set -e"]
    commands: list[Sequence[str]] = []
    for number, (language, block) in enumerate(code_blocks(document)):
        file = clone.parent / f"test_block_{number}.py"
        file.write_text(block)
        match language:
            case "python" if "sleep_forever" in block:
                commands.append(
                    [*(sys.executable, "-c", f"import runpy; runpy.run_path({str(file)!r})")]
                )
            case "python":
                commands.append(["run-script", str(file)])
            case "py":
                commands.append([sys.executable, "-m", "pytest", "-q", str(file)])
            case "console":
                console += re.findall(r"^\$ (.*)", block, re.MULTILINE)
            case "sh":
                pass  # installs: .ci/run and the tests below run these
            case _:
                assert language in NOT_RUN, f"block {number} has the language {language!r}"
    script = "\n".join(console).replace(PRINTED_URL, server.url)
    commands.append(["bash", "-c", script.replace(PRINTED_KEY, server.api_key)])
    for command in commands:
        run_program(command, clone, programs)


def test_the_demo_loads_the_guides_and_answers_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the virtual environment, which .ci/run creates."""
    (demo,) = (
        text for language, text in code_blocks(README) if language == "sh" and "demo" in text
    )
    monkeypatch.chdir(ROOT)
    database = f"emulator:{tmp_path / 'demo.db'}"

    install, address, *steps = demo.strip().splitlines()
    assert install.endswith(". .venv/bin/activate")
    assert address == "export DIFY_BASE_URL=emulator:.demo.db"
    monkeypatch.setenv("DIFY_BASE_URL", database)
    for step in steps:
        words = re.findall(r"'[^']*'|\S+", step)[1:]
        assert run([word.strip("'") for word in words]) == 0

    output = capsys.readouterr().out
    assert re.search(rf"{len(NAMES)} files found in .* added", output)
    first_hit = output.partition("\n1. ")[2].partition("\n2. ")[0]
    assert first_hit.startswith("load.md")
    assert "run the same command again" in " ".join(first_hit.split())


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_the_readme_links_each_guide() -> None:
    link = re.compile(r"^\| \[([\w-]+)\]\(dify_kb/guides/\1\.md\) \|", re.MULTILINE)
    linked = link.findall(README.read_text())

    assert set(linked) == set(NAMES) == {file.stem for file in GUIDES.iterdir()}


def test_links_of_the_documents_lead_to_files() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert link.startswith("https://") or (document.parent / link).exists(), link


async def test_the_bedrock_example_creates_the_dataset_once_the_models_exist(
    client: AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The embedded server has no such models, and the example says so."""
    example = tmp_path / "example.py"
    example.write_text(python_block(GUIDES / "python.md", "bedrock"))
    create_dataset: Any = runpy.run_path(str(example))["create_bedrock_dataset"]

    await create_dataset(client)

    assert "does not offer langgenius/bedrock/bedrock" in capsys.readouterr().out
    monkeypatch.setattr(presets, "check_bedrock", _find_nothing_missing)
    with pytest.raises(BadRequestError, match="rovider"):
        await create_dataset(client)


async def _find_nothing_missing(workspace: object) -> None:
    """Accept any workspace."""


async def test_the_retriever_example_passes_the_check(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(python_block(GUIDES / "external-knowledge.md", "FaqRetriever"))
    retriever = runpy.run_path(str(example), run_name="faq")["FaqRetriever"]()
    async with serve(create_app({"faq": retriever}, api_keys="key"), "127.0.0.1", 0) as url:
        checks = check(url, api_key="key", knowledge_id="faq", query="How do I reset it?")
        findings = {finding.check: finding async for finding in checks}

    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["retrieval"].detail == "1 record accepted by Dify"


async def test_the_table_lists_every_resource_and_method(client: AsyncClient) -> None:
    text = (GUIDES / "python.md").read_text()
    rows = re.findall(r"^\| `client\.(\w+)` \| (.+) \|$", text, re.MULTILINE)

    listed = {resource: set(re.findall(r"`(\w+)`", methods)) for resource, methods in rows}

    assert len(listed) == 8
    assert listed == {
        name: {
            method
            for method, _ in inspect.getmembers(type(getattr(client, name)), inspect.isfunction)
            if not method.startswith("_")
        }
        for name in listed
    }
