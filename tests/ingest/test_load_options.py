"""The options of a load in the signatures that repeat them."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest

from dify_kb import AsyncClient, ConfigError
from dify_kb.arguments import MIB, parse_duration, parse_size
from dify_kb.cli.load import load as load_command
from dify_kb.ingest import LoadOptions, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

INTERNAL_OPTIONS = {"pause"}
OPTIONS_OF_LOAD_ALONE = {"dry_run", "on_event"}
CONVERTED_OPTIONS = {
    "include",
    "exclude",
    "as_text",
    "doc_form",
    "journal",
    "stall_after",
    "deadline",
    "max_file_size",
}
RENAMED_TYPES = {"metadata": "LoadMetadata"}


def defaults_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the defaults of the keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def option_defaults(*, without: set[str]) -> dict[str, object]:
    """Return the defaults of the load options, except those in `without`."""
    return {
        attribute.name: attribute.default
        for attribute in attrs.fields(LoadOptions)
        if attribute.name not in without
    }


def test_load_has_all_options_with_their_defaults() -> None:
    """An option that `load` lacks, or does not pass on, would be ignored silently."""
    assert defaults_of(AsyncClient.load) == option_defaults(without=INTERNAL_OPTIONS)


def test_load_iter_has_the_options_of_load_that_make_sense_in_an_iteration() -> None:
    assert defaults_of(AsyncClient.load_iter) == option_defaults(
        without=INTERNAL_OPTIONS | OPTIONS_OF_LOAD_ALONE
    )


@pytest.mark.parametrize("method", [AsyncClient.load, AsyncClient.load_iter])
def test_options_have_the_same_types_everywhere(method: Callable[..., object]) -> None:
    types = {attribute.name: attribute.type for attribute in attrs.fields(LoadOptions)}
    expected = {**types, **RENAMED_TYPES}
    annotations = {
        name: parameter.annotation
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in CONVERTED_OPTIONS
    }

    assert annotations == {name: expected[name] for name in annotations}


def test_the_command_has_the_defaults_of_the_client() -> None:
    """A load started in the shell must not behave differently from one started in Python."""
    command = {
        name: parameter.default
        for name, parameter in inspect.signature(load_command).parameters.items()
    }
    client = defaults_of(AsyncClient.load)
    common = (command.keys() & client.keys()) - {"stall_after", "max_file_size"}

    different = {name for name in common if command[name] != client[name]}

    assert different == {"include", "exclude", "as_text"}, "None for repeatable options"
    assert parse_duration(str(command["stall_after"]), "--stall-after") == client["stall_after"]
    assert parse_size(str(command["max_file_size"]), default_unit=MIB) == client["max_file_size"]


def test_options_are_created_from_the_arguments_of_a_method() -> None:
    options = LoadOptions.from_arguments({"self": None, "source": "docs", "journal": "a.db"})

    assert str(options.journal) == "a.db"
    assert options == LoadOptions(journal="a.db")


async def test_an_invalid_option_is_rejected_with_the_valid_ones() -> None:
    async with AsyncClient("http://dify.test", "key") as client:
        with pytest.raises(ConfigError, match="Invalid wait 'later'") as raised:
            await client.load("d", "docs", wait=cast("Wait", "later"))

    assert raised.value.hint == "Pass accepted, indexed or verified."


@pytest.mark.parametrize(
    ("option", "written", "meant"),
    [
        ("deadline", "2h", 7200.0),
        ("deadline", 90, 90.0),
        ("deadline", timedelta(minutes=1), 60.0),
        ("deadline", None, None),
        ("stall_after", "15m", 900.0),
        ("max_file_size", "15MB", 15_000_000),
        ("max_file_size", "1.5 MiB", 1_572_864),
        ("max_file_size", 100, 100),
        ("include", "*.md", ("*.md",)),
        ("exclude", ["a", "b"], ("a", "b")),
    ],
)
def test_options_are_taken_as_people_write_them(
    option: str, written: object, meant: object
) -> None:
    assert getattr(LoadOptions.from_arguments({option: written}), option) == meant


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("deadline", "soon"),
        ("deadline", -1),
        ("stall_after", "1 year"),
        ("max_file_size", "15 bananas"),
        ("max_file_size", 0),
        ("max_unindexed", 0),
        ("max_failures", -1),
    ],
)
def test_invalid_values_are_refused_with_the_option(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        LoadOptions.from_arguments({option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("deadline", object()),
        ("max_file_size", 1.5),
        ("max_unindexed", "5000"),
        ("max_failures", "3"),
        ("concurrency", "8"),
        ("concurrency", (1, "8")),
        ("rate", ["100/min"]),
    ],
)
async def test_values_of_another_type_are_refused_with_the_option(
    option: str, value: object
) -> None:
    """Not by an error deep inside of the load."""
    options: dict[str, Any] = {option: value}
    async with AsyncClient("http://dify.test", "key") as client:
        with pytest.raises(TypeError, match=f"^{option} must be"):
            await client.load("d", "docs", **options)


def test_a_journal_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        LoadOptions(journal="a\x00b")
