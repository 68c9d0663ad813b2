"""Run tests as a user would write them, each in its own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

# Modules imported here stay loaded; those imported by a run are removed after it.
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
"""As strict as any project: warnings, including those of leaks, are errors. The ignored warning
about an imported module comes from running pytest within pytest."""


def run_test(pytester: pytest.Pytester, code: str, *options: str) -> tuple[int, str]:
    """Run a test module in this process; return pytest's exit code and output."""
    pytester.makeini(INI)
    pytester.makepyfile(test_user=dedent(code))
    process = pytester.runpytest_inprocess(*OPTIONS, *options)
    return process.ret, f"{process.stdout}{process.stderr}"


def run_passing_test(pytester: pytest.Pytester, code: str, *options: str) -> str:
    """Run a test module that must pass; return pytest's output."""
    status, output = run_test(pytester, code, *options)
    assert status == 0, output
    return output


def run_in_subprocess(folder: Path, code: str, *options: str, path: Path = ROOT) -> None:
    """Run a test module that must pass in a separate process, with `path` first in PYTHONPATH."""
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
