"""The blocking surface is the async one, name by name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator

import pytest

from dify_kb import AsyncClient, Client, resources
from dify_kb.blocking import _surface, _write

PAIRS = [
    (getattr(resources, name), getattr(_surface, name))
    for name in resources.__all__
    if hasattr(_surface, name)
] + [(AsyncClient, _surface.Lifted)]


def methods(kind: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(member):
            yield name, member


LIFTED = [
    pytest.param(getattr(there, name), method, id=f"{here.__name__}.{name}")
    for there, here in PAIRS
    for name, method in methods(here)
]


def test_the_surface_is_up_to_date() -> None:
    """A method that is not in it is missing from the blocking client."""
    assert _write.SURFACE.read_text(encoding="utf-8") == _write.render(), (
        "Run python -m dify_kb.blocking._write."
    )


def test_a_surface_that_is_out_of_date_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """`--check` is what a build runs."""
    monkeypatch.setattr(_write, "SURFACE", tmp_path / "_surface.py")  # type: ignore[operator]
    monkeypatch.setattr(sys, "argv", ["_write"])
    _write.main()
    monkeypatch.setattr(sys, "argv", ["_write", "--check"])
    _write.main()

    _write.SURFACE.write_text("something else")
    with pytest.raises(SystemExit, match="out of date"):
        _write.main()


def test_what_cannot_be_lifted_stops_the_writer() -> None:
    """A method left out without a word would be missed by users alone."""

    def plain() -> int:
        return 1

    with pytest.raises(TypeError, match="nothing lifts that"):
        _write._line("resources.Datasets", "plain", plain)


def test_every_public_name_of_the_async_client_is_there() -> None:
    """Also those that are written by hand."""
    here, there = (
        {name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)
    )

    assert here - there == {"close"}
    assert there - here == set()


@pytest.mark.parametrize(("there", "here"), LIFTED)
def test_a_lifted_method_tells_what_the_async_one_tells(
    there: Callable[..., object], here: Callable[..., object]
) -> None:
    """`help()` and editors read this."""
    its, own = inspect.signature(there), inspect.signature(here)

    assert own.parameters == its.parameters
    assert inspect.getdoc(here) == inspect.getdoc(there)
    assert here.__name__ == there.__name__
    assert not inspect.iscoroutinefunction(inspect.unwrap(here))
    if inspect.iscoroutinefunction(there):
        assert own.return_annotation == its.return_annotation
    else:
        assert own.return_annotation.startswith("Iterator")


@pytest.mark.parametrize(("there", "here"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_class_and_its_properties_are_documented_alike(there: type, here: type) -> None:
    """Which resource does what is read there."""
    properties = [
        name
        for name, member in vars(here).items()
        if not name.startswith("_") and isinstance(member, property)
    ]

    assert here is _surface.Lifted or inspect.getdoc(here) == inspect.getdoc(there)
    for name in properties:
        assert inspect.getdoc(getattr(here, name)) == inspect.getdoc(getattr(there, name))


def test_both_clients_take_the_same_options() -> None:
    """But a session, which belongs to a loop of the caller's."""
    its = dict(inspect.signature(AsyncClient).parameters)
    del its["session"]

    assert list(inspect.signature(Client).parameters.values()) == list(its.values())
    assert (
        inspect.signature(Client.with_options).parameters
        == inspect.signature(AsyncClient.with_options).parameters
    )


def test_every_option_reaches_the_async_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken and dropped does nothing, in silence."""
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
    """Clients end up in logs."""
    shown = repr(Client("https://dify.example", "dataset-secret"))

    assert shown == "<Client https://dify.example/v1>"
