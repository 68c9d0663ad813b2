"""The public names, their docstrings, and the cost of an import."""

from __future__ import annotations

import ast
import builtins
import importlib.metadata
import inspect
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import attrs
import pytest

import dify_kb
from dify_kb import errors, resources
from dify_kb.emulator import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLASSES = sorted(
    {value for name in dify_kb.__all__ if inspect.isclass(value := getattr(dify_kb, name))}
    | {getattr(resources, name) for name in resources.__all__},
    key=lambda kind: kind.__name__,
)
ERRORS = sorted(
    (
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ),
    key=lambda kind: kind.__name__,
)


def iter_public_methods(kind: type) -> Iterator[tuple[str, object]]:
    for name, value in vars(kind).items():
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
            yield name, inner


SETTINGS = (
    dify_kb.Timeout,
    dify_kb.Retry,
    dify_kb.Polling,
    dify_kb.LoadTiming,
    dify_kb.Policy,
    Settings,
)
RESOURCES = sorted(resources.__all__)
LOCAL_CHECKS = {"length", "some", "checked", "opened", "ConfigError"}
"""Functions that raise ConfigError for an invalid argument before anything is sent."""


def iter_resource_methods() -> Iterator[tuple[str, Callable[..., object]]]:
    for noun in RESOURCES:
        kind = getattr(resources, noun)
        if not any(attribute.name == "_send" for attribute in attrs.fields(kind)):
            continue  # what goes through a list says what it costs in its class
        for name, value in iter_public_methods(kind):
            if inspect.isfunction(value) and noun != "Events":
                yield f"{noun}.{name}", value


METHODS = dict(iter_resource_methods())


def find_calls(function: Callable[..., object]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_costs(name: str) -> None:
    """Users should not have to read the source to know how many requests a call sends."""
    documented = inspect.getdoc(METHODS[name]) or ""

    assert "request" in documented.lower() or "Costs" in documented


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_what_it_refuses_itself(name: str) -> None:
    """The API's documentation does not describe errors raised before anything is sent."""
    documented = inspect.getdoc(METHODS[name]) or ""

    if find_calls(METHODS[name]) & LOCAL_CHECKS:
        assert "ConfigError:" in documented.partition("Raises:")[2]


def test_most_methods_name_what_servers_refuse() -> None:
    """Except lists, every operation can fail with an error that a caller may want to catch."""
    silent = {
        name
        for name, method in METHODS.items()
        if inspect.iscoroutinefunction(method) and "Raises:" not in (inspect.getdoc(method) or "")
    }

    assert silent <= {
        "ChildChunks.list",
        "Datasets.find",
        "Datasets.list",
        "Metadata.built_in_fields",
        "Metadata.delete",
        "Metadata.disable_built_in",
        "Metadata.enable_built_in",
        "Metadata.list",
        "Pipeline.datasource_plugins",
        "Segments.list",
        "Tags.list",
        "Tags.list_for_dataset",
    }


def test_public_names_exist() -> None:
    """`from dify_kb import *` fails if a listed name does not exist."""
    assert [name for name in dify_kb.__all__ if not hasattr(dify_kb, name)] == []


def test_the_version_is_that_of_the_installed_package() -> None:
    assert dify_kb.__version__ == importlib.metadata.version("dify-kb")


def test_the_example_of_the_package_is_code() -> None:
    """`help(dify_kb)` shows it; it was once unindented and no longer parsed."""
    lines = (dify_kb.__doc__ or "").splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("    "))

    block = ast.parse(f"async def main():\n{textwrap.indent(example, ' ')}").body[0]

    assert isinstance(block, ast.AsyncFunctionDef)
    assert isinstance(block.body[0], ast.AsyncWith)
    assert len(block.body[0].body) == 3


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_help_explains_every_setting(kind: type) -> None:
    """Docstrings below the fields are seen neither by `help` nor by editors at a call."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Args:")
    names = {attribute.name for attribute in attrs.fields(kind)}

    assert {name for name in names if f"\n    {name}: " not in listed} == set()


OPTION_TYPES = {"LoadEvent", "LoadMetadata", "OnError", "OnExisting", "OnLoadEvent", "Replace"}
OPTION_TYPES |= {"Source", "Wait", "Duration", "EventLoopName", "OnAttempt"}


def test_types_of_options_are_public() -> None:
    """Callers annotate their own functions with them."""
    assert set(dify_kb.__all__) >= OPTION_TYPES


def test_public_names_are_sorted_and_listed_once() -> None:
    """Readers find names, and diffs show changes, more easily in a sorted list."""
    constants = sorted(name for name in dify_kb.__all__ if name.isupper())
    others = sorted(name for name in dify_kb.__all__ if not name.isupper())

    assert dify_kb.__all__ == constants + others
    assert len(set(dify_kb.__all__)) == len(dify_kb.__all__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_public_class_and_its_methods_are_documented(kind: type) -> None:
    """The docstrings are the only reference documentation."""
    bare = [name for name, value in iter_public_methods(kind) if not inspect.getdoc(value)]

    assert kind.__doc__
    assert not kind.__doc__.startswith("Method generated by attrs")
    assert bare == []


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_public_method_has_no_open_signature(kind: type) -> None:
    """`**kwargs` would silently accept a misspelt option."""
    open_ended = [
        name
        for name, value in iter_public_methods(kind)
        if inspect.isfunction(value)
        and any(
            parameter.kind is parameter.VAR_KEYWORD
            for parameter in inspect.signature(value).parameters.values()
        )
    ]

    assert open_ended == []


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_exception_is_public_and_a_knowledge_error(kind: type[BaseException]) -> None:
    """`except KnowledgeError` must catch all exceptions that this package raises."""
    assert kind.__name__ in dify_kb.__all__
    assert kind.__name__.endswith("Error")
    assert issubclass(kind, dify_kb.KnowledgeError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_exception_shadows_no_builtin(kind: type[BaseException]) -> None:
    """A star import would replace Python's `ConnectionError`, for example."""
    assert not hasattr(builtins, kind.__name__)


def test_errors_with_a_builtin_equivalent_derive_from_it() -> None:
    """Generic code can catch timeouts and invalid arguments with Python's exceptions."""
    assert issubclass(dify_kb.RequestTimeoutError, TimeoutError)
    assert issubclass(dify_kb.ConfigError, ValueError)
    assert not issubclass(dify_kb.ApiError, ValueError | OSError)


def test_every_refusal_derives_from_api_error() -> None:
    """Callers distinguish three families: no response, an error response, an invalid success."""
    families = {
        kind.__name__
        for kind in ERRORS
        if kind.__base__ is dify_kb.KnowledgeError or kind is dify_kb.ConfigError
    }

    assert families == {
        "ApiError",
        "ArchiveError",
        "ConfigError",
        "JournalError",
        "LoadError",
        "PartialError",
        "ProtocolError",
        "SourceError",
        "TransportError",
    }


def test_an_import_loads_neither_command_line_nor_emulator() -> None:
    """A program that only uploads must not load the dependencies of other parts."""
    code = (
        "import sys, dify_kb;"
        "print(sorted(sys.modules.keys() & {'typer', 'rich', 'sqlite3', 'charset_normalizer',"
        " 'dify_kb.emulator', 'dify_kb.cli', 'dify_kb.rag'}))"
    )

    printed = subprocess.run(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, check=True
    ).stdout

    assert printed.decode().strip() == "[]"


def test_an_import_of_the_client_leaves_the_rest_to_the_first_client() -> None:
    """Models and resources cost as much processor time as aiohttp."""
    code = (
        "import sys; from dify_kb import AsyncClient;"
        "parts = {f'dify_kb.{part}' for part in ('models', 'resources', 'transport', 'wire')};"
        "print(sorted(sys.modules.keys() & parts));"
        "AsyncClient('http://127.0.0.1/v1', 'dataset-x').datasets;"
        "print(len(sys.modules.keys() & parts))"
    )

    printed = subprocess.run(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, check=True
    ).stdout

    assert printed.decode().splitlines() == ["[]", "4"]
