"""The blocking client has the same names as the asynchronous client."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator

import pytest

from dify_kb import AsyncClient, Client, resources
from dify_kb.blocking import _generate_resources, _resources

PAIRS = [
    (getattr(resources, name), getattr(_resources, name))
    for name in resources.__all__
    if hasattr(_resources, name)
] + [(AsyncClient, _resources.BlockingClientBase)]


def iter_methods(kind: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(member):
            yield name, member


BLOCKING_METHODS = [
    pytest.param(getattr(there, name), method, id=f"{here.__name__}.{name}")
    for there, here in PAIRS
    for name, method in iter_methods(here)
]


def test_generated_resources_are_up_to_date() -> None:
    """A method that is not generated is missing from the blocking client."""
    assert (
        _generate_resources.OUTPUT_PATH.read_text(encoding="utf-8") == _generate_resources.render()
    ), "Run python -m dify_kb.blocking._generate_resources."


def test_check_fails_if_resources_are_out_of_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Builds run `--check`."""
    monkeypatch.setattr(_generate_resources, "OUTPUT_PATH", tmp_path / "_resources.py")  # type: ignore[operator]
    monkeypatch.setattr(sys, "argv", ["_generate_resources"])
    _generate_resources.main()
    monkeypatch.setattr(sys, "argv", ["_generate_resources", "--check"])
    _generate_resources.main()

    _generate_resources.OUTPUT_PATH.write_text("something else")
    with pytest.raises(SystemExit, match="out of date"):
        _generate_resources.main()


def test_method_without_result_or_pages_stops_the_generator() -> None:
    """Only users would notice a method that is silently skipped."""

    def plain() -> int:
        return 1

    with pytest.raises(TypeError, match="cannot be made blocking"):
        _generate_resources._render_method("resources.Datasets", "plain", plain)


def test_blocking_client_has_every_name_of_async_client() -> None:
    """Includes names that are not generated."""
    here, there = (
        {name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)
    )

    assert here - there == {"close"}
    assert there - here == {"aclose"}


@pytest.mark.parametrize(("there", "here"), BLOCKING_METHODS)
def test_blocking_method_has_signature_and_docs_of_async_one(
    there: Callable[..., object], here: Callable[..., object]
) -> None:
    """`help()` and editors show signature and docstring."""
    its, own = inspect.signature(there), inspect.signature(here)

    assert own.parameters == its.parameters
    assert inspect.getdoc(here) == inspect.getdoc(there)
    assert here.__name__ == there.__name__
    assert not inspect.iscoroutinefunction(inspect.unwrap(here))
    if inspect.iscoroutinefunction(there):
        assert own.return_annotation == its.return_annotation
    else:
        assert own.return_annotation.startswith(("Iterator", "BlockingResults"))


@pytest.mark.parametrize(("there", "here"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_class_and_its_properties_are_documented_alike(there: type, here: type) -> None:
    """Users read in these docstrings what a resource is for."""
    properties = [
        name
        for name, member in vars(here).items()
        if not name.startswith("_") and isinstance(member, property)
    ]

    assert here is _resources.BlockingClientBase or inspect.getdoc(here) == inspect.getdoc(there)
    for name in properties:
        assert inspect.getdoc(getattr(here, name)) == inspect.getdoc(getattr(there, name))


def test_both_clients_take_the_same_options() -> None:
    """Except `session`, which belongs to an event loop of the caller."""
    its = dict(inspect.signature(AsyncClient).parameters)
    del its["session"]

    assert list(inspect.signature(Client).parameters.values()) == list(its.values())
    assert (
        inspect.signature(Client.with_options).parameters
        == inspect.signature(AsyncClient.with_options).parameters
    )


def test_every_option_reaches_the_async_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is not passed on would silently have no effect."""
    passed: dict[str, object] = {}

    def record(_: object, *args: object, **kwargs: object) -> None:
        passed.update(kwargs, args=args)

    monkeypatch.setattr(AsyncClient, "__init__", record)
    options = {
        name: object()
        for name, parameter in inspect.signature(Client).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    Client("address", "key", **options)  # type: ignore[arg-type]

    assert passed == {"args": ("address", "key"), **options}


def test_the_key_is_not_shown() -> None:
    """Clients are shown in logs."""
    shown = repr(Client("https://dify.example", "dataset-secret"))

    assert shown == "<Client https://dify.example/v1>"
