"""Runs the tests that a user would write, in folders of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

# What is imported here stays; what a run imports is gone after it, and each would do it anew.
import dify_kb.blocking
import dify_kb.emulator
import dify_kb.ingest  # noqa: F401 -- see above

ROOT = Path(__file__).parents[2]

EXAMPLE = Path(__file__).parent / "data" / "example.txt"

OPTIONS = (
    *("-p", "dify_kb.testing"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:hypothesispytest"),  # which loads all of hypothesis at the end of each run
    "--strict-markers",
)

INI = """[pytest]
filterwarnings =
    error
    ignore:The configuration option "asyncio_default_fixture_loop_scope"
    ignore:Module already imported
"""
"""As strict as any project is: warnings, leaks among them, are errors. That the plugin is there
already comes of running pytest within pytest."""


def run_test(pytester: pytest.Pytester, code: str, *options: str) -> tuple[int, str]:
    """Run a test module in this process; give pytest's exit code and everything it said."""
    pytester.makeini(INI)
    pytester.makepyfile(test_user=dedent(code))
    process = pytester.runpytest_inprocess(*OPTIONS, *options)
    return process.ret, f"{process.stdout}{process.stderr}"


def run_passing_test(pytester: pytest.Pytester, code: str, *options: str) -> str:
    """Run a test module that must pass; give what pytest said."""
    status, output = run_test(pytester, code, *options)
    assert status == 0, output
    return output


def run_in_subprocess(folder: Path, code: str, *options: str, path: Path = ROOT) -> None:
    """Run a test module that must pass in a process of its own, with `path` before others."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_user.py").write_text(dedent(code))
    process = subprocess.run(  # noqa: S603 -- our own interpreter
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
