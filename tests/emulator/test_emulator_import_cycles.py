"""Packages have no import cycles, not even of `TYPE_CHECKING` imports."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dify_kb

ROOT = Path(dify_kb.__file__).parent


def iter_imports(module: str, path: Path) -> Iterator[str]:
    """Yield the modules that a source file imports from its own package, by dotted names."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}"
                yield base


def find_modules(package: str) -> dict[str, Path]:
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(["dify_kb", *parts]).removesuffix(".__init__")] = path
    return found


@pytest.mark.parametrize("package", ["emulator", "resources"])
def test_package_has_no_import_cycles(package: str) -> None:
    """`TYPE_CHECKING` imports count: modules of a cycle can only be understood together."""
    known = find_modules(package)
    graph = {
        # `from package import module` names the parent packages without depending on them.
        name: {other for other in iter_imports(name, path) if other in known and other != name}
        - {name[: match.start()] for match in re.finditer(r"\.", name)}
        for name, path in known.items()
    }

    graphlib.TopologicalSorter(graph).prepare()
