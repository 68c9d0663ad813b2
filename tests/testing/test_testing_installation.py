"""Discovery, loading and documentation of the pytest plugin."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from run_user_tests import EXAMPLE, OPTIONS, ROOT, run_in_subprocess, run_passing_test

from dify_kb import testing

pytest_plugins = ["pytester"]


def test_unused_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    """Every test run with the package installed pays for the module's top-level imports."""
    run_in_subprocess(
        tmp_path,
        """
        import sys

        def test_modules():
            heavy = {"aiohttp", "attrs", "cattrs", "sqlite3", "dify_kb.emulator", "dify_kb.client"}
            assert heavy & sys.modules.keys() == set()
            assert {name for name in sys.modules if name.startswith("dify_kb")} == {
                "dify_kb", "dify_kb.testing"}
        """,
        *OPTIONS,
        *("-p", "no:anyio", "-p", "no:asyncio"),
    )


def test_fixtures_and_marker_are_listed(pytester: pytest.Pytester) -> None:
    """Users find them with `pytest --fixtures` and `--markers`."""
    output = run_passing_test(pytester, "def test_it(): ...", "--fixtures") + run_passing_test(
        pytester, "def test_it(): ...", "--markers"
    )

    assert all(f"{name} -- " in output for name in testing.__all__)
    assert "@pytest.mark.dify_emulator(version='1.16'" in output


def test_entry_point_names_the_module() -> None:
    """The entry point has the module's name, so `-p dify_kb.testing` does not load it twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["pytest11"].items()

    assert EntryPoint(name, value, "pytest11").load() is testing
    assert name == testing.__name__


def test_installed_plugin_loads_with_and_without_option(tmp_path: Path) -> None:
    """A folder on the path contains the metadata that pip writes at installation."""
    site = tmp_path / "site"
    info = site / "dify_kb_plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dify-kb-plugin\nVersion: 1\n")
    (info / "RECORD").write_text("dify_kb/testing.py,,\ndify_kb/client.py,,\n")
    (info / "entry_points.txt").write_text("[pytest11]\ndify_kb.testing = dify_kb.testing\n")

    run_in_subprocess(tmp_path, EXAMPLE.read_text(), path=site)
    run_in_subprocess(tmp_path, EXAMPLE.read_text(), "-p", "dify_kb.testing", path=site)
