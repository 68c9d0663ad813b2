"""The rules of names and sentences that a program can check."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import dify_kb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(dify_kb.__file__).parent
TWINS = "blocking/_resources.py"
"""Written from the resources, with a class of the same name for each."""

MAX_LINES, MIN_LINES, MAX_MODULES = 400, 25, 340
SHORT_MODULES = {
    "__main__.py": "the entry point of `python -m dify_kb`",
    "transport/clock.py": "a faster clock, used by all packages above",
}

UNCLEAR_FIRST_WORDS = frozenset((
    "Answer", "Ask", "Be", "Become", "Becomes", "Bring", "Do", "Give", "Go", "Have", "Hold",
    "How", "Let", "Look", "Make", "Name", "Note", "Put", "Say", "Take", "Tell", "Those",
    "Turn", "What", "When", "Where", "Whether", "Who",
))  # fmt: skip
"""A docstring says what is returned or done: Return, Create, Parse, Wait, …"""

CLEAR_BEGINNINGS = ("Ask for", "Look up")
PARTICIPLES = frozenset((
    "asked", "begun", "bound", "built", "chosen", "drawn", "found", "given", "gone", "held",
    "kept", "known", "left", "listed", "made", "meant", "met", "named", "opened", "said",
    "seen", "sent", "shown", "spent", "stood", "taken", "told", "written",
))  # fmt: skip
PUBLIC_PARTICIPLES = {("emulator/faults/plans.py", "left"), ("emulator/faults/plans.py", "met")}
"""Short names that tests of users read like attributes: what is left of a plan, what was met."""

NO_NOUN = re.compile(r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer|more|\w+er\b)")
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def parse_modules() -> Mapping[str, ast.Module]:
    """Return the syntax tree of each module by its path in the package."""
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def definitions() -> Iterator[tuple[str, DEFINITION]]:
    """Iterate over the classes and functions of the package."""
    for module, tree in parse_modules().items():
        for node in ast.walk(tree):
            if isinstance(node, DEFINITION):
                yield module, node


def docstrings() -> Iterator[tuple[str, ast.AST, str]]:
    """Iterate over (place, node, docstring)."""
    for module, tree in parse_modules().items():
        for node in ast.walk(tree):
            if isinstance(node, DEFINITION | ast.Module) and (text := ast.get_docstring(node)):
                yield f"{module}:{getattr(node, 'lineno', 1)}", node, text


def is_attribute(node: ast.AST) -> bool:
    """Return whether a function is read like an attribute."""
    decorators = getattr(node, "decorator_list", [])
    return any("property" in ast.unparse(decorator) for decorator in decorators)


def test_docstrings_begin_with_what_is_done_or_returned() -> None:
    unclear = {
        place: text.splitlines()[0]
        for place, node, text in docstrings()
        if text.split()[0] in UNCLEAR_FIRST_WORDS
        and not text.startswith(CLEAR_BEGINNINGS)
        and not is_attribute(node)
    }

    assert unclear == {}


def test_class_names_are_unique() -> None:
    modules = defaultdict[str, list[str]](list)
    for module, node in definitions():
        if isinstance(node, ast.ClassDef) and module != TWINS:
            modules[node.name].append(module)

    assert {name: places for name, places in modules.items() if len(places) > 1} == {}


def test_functions_are_not_named_by_participles() -> None:
    named = [
        f"{module}:{node.lineno}: {node.name}"
        for module, node in definitions()
        if not isinstance(node, ast.ClassDef)
        and not is_attribute(node)
        and node.name.strip("_") in PARTICIPLES
        and (module, node.name) not in PUBLIC_PARTICIPLES
    ]

    assert named == []


def test_sentences_are_negated_plainly() -> None:
    """`X is not a Y`, not `X is no Y`."""
    negated = [
        f"{module}:{node.lineno}: {node.value[:80]}"
        for module, tree in parse_modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and NO_NOUN.search(node.value)
        and not module.startswith("emulator/")  # it says what real servers say
    ]

    assert negated == []


def test_errors_named_under_raises_exist() -> None:
    classes = {node.name for _, node in definitions() if isinstance(node, ast.ClassDef)}
    raised = {
        (place, name)
        for place, _, text in docstrings()
        for name in re.findall(r"^\s+([A-Z]\w+Error): ", text, re.MULTILINE)
    }

    assert {each for each in raised if each[1] not in classes | vars(builtins).keys()} == set()
    assert raised


def test_modules_are_neither_tiny_nor_huge() -> None:
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    tiny = {module for module, number in lines.items() if number < MIN_LINES}

    assert tiny <= SHORT_MODULES.keys()
    assert {module: number for module, number in lines.items() if number > MAX_LINES} == {}
    assert len(lines) <= MAX_MODULES
