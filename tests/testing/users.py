"""Runs the tests that a user would write, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]

STRICT = ("-p", "no:cacheprovider", "--strict-markers")

INI = """[pytest]
filterwarnings =
    error
    ignore:The configuration option "asyncio_default_fixture_loop_scope"
"""
"""As strict as any project is: warnings, leaks among them, are errors."""


def ran(folder: Path, code: str, *options: str, plugin: str = "dify_kb.testing") -> tuple[int, str]:
    """Run a test module; give pytest's exit code and everything it said."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_user.py").write_text(dedent(code))
    finished = subprocess.run(  # noqa: S603 -- our own interpreter
        [sys.executable, "-m", "pytest", "-p", plugin, *STRICT, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


def passes(folder: Path, code: str, *options: str) -> str:
    """Run a test module that must pass; give what pytest said."""
    status, told = ran(folder, code, *options)
    assert status == 0, told
    return told
