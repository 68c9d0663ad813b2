"""The plugin as pytest finds it, loads it, and tells of it."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from run_user_tests import EXAMPLE, OPTIONS, ROOT, run_in_subprocess, run_passing_test

from dify_kb import testing

pytest_plugins = ["pytester"]


def test_unused_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    """Everybody who has the package installed pays for what stands at the top of the module."""
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
    """`pytest --fixtures` and `--markers` are where users look."""
    output = run_passing_test(pytester, "def test_it(): ...", "--fixtures") + run_passing_test(
        pytester, "def test_it(): ...", "--markers"
    )

    assert all(f"{name} -- " in output for name in testing.__all__)
    assert "@pytest.mark.dify_emulator(version='1.16'" in output


def test_entry_point_names_the_module() -> None:
    """Under the module's own name, so that `-p dify_kb.testing` beside it loads it once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["pytest11"].items()

    assert EntryPoint(name, value, "pytest11").load() is testing
    assert name == testing.__name__


def test_installed_plugin_loads_with_and_without_option(tmp_path: Path) -> None:
    """What pip writes at an installation, in a folder on the path."""
    site = tmp_path / "site"
    info = site / "dify_kb_plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dify-kb-plugin\nVersion: 1\n")
    (info / "RECORD").write_text("dify_kb/testing.py,,\ndify_kb/client.py,,\n")
    (info / "entry_points.txt").write_text("[pytest11]\ndify_kb.testing = dify_kb.testing\n")

    run_in_subprocess(tmp_path, EXAMPLE.read_text(), path=site)
    run_in_subprocess(tmp_path, EXAMPLE.read_text(), "-p", "dify_kb.testing", path=site)
