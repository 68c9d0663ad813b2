"""The README's Python runs, and its commands name what there is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from dify_kb.cli import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    script = tmp_path / "example.py"
    script.write_text(example)
    monkeypatch.chdir(ROOT)

    runpy.run_path(str(script), run_name="__main__")

    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ documents, 0 failed", told[0])
    assert "transport__retry.py.txt" in told[1:]


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
    assert "1. config.py.txt" in shown
