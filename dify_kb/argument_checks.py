"""Check the arguments of calls by the annotations of the parameters."""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

from attrs import frozen

from .errors import ConfigError

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

_IMPORTED_MODULES = ("collections.abc", "pathlib", "dify_kb", "dify_kb.models", "dify_kb.transport")
"""The modules of the names in annotations that some modules import only for type checkers."""


def check_arguments(cls: type[C]) -> type[C]:
    """Check the arguments of the constructor and the public methods of a class by their types.

    A class decorator. Costs 2 to 5 µs per call. The constructor and the methods then raise errors:

    Raises:
        ConfigError: an argument is none of the words of a `Literal`, or a string instead of a list.
        TypeError: an argument has another type, is missing or unknown; the message names it.
    """
    return check_methods(check_constructor(cls))


def check_constructor(cls: type[C]) -> type[C]:
    """Check the arguments of the constructor of a class; see `check_arguments`."""
    setattr(cls, "__init__", _add_check(vars(cls)["__init__"]))  # noqa: B010 -- mypy
    return cls


def check_methods(cls: type[C]) -> type[C]:
    """Check the arguments of the public methods of a class; see `check_arguments`."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(member, classmethod):
            setattr(cls, name, classmethod(_add_check(member.__func__)))
        elif inspect.isfunction(member):
            setattr(cls, name, _add_check(member))
    return cls


def check_call(function: F, owner: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> F:
    """Check a call of a checked method, and return the method without its check.

    Args:
        owner: the object whose class the messages name.
    """
    check: _CallCheck | None = getattr(function, "argument_check", None)
    if check is None:
        return function
    check(owner, args, kwargs)
    return cast("F", check.function)


def _add_check(function: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return function
    check = _CallCheck(function)

    def checked_function(owner: Any, /, *args: Any, **kwargs: Any) -> Any:
        check(owner, args, kwargs)
        return function(owner, *args, **kwargs)

    async def checked_coroutine_function(owner: Any, /, *args: Any, **kwargs: Any) -> Any:
        check(owner, args, kwargs)
        return await function(owner, *args, **kwargs)

    is_async = inspect.iscoroutinefunction(function)
    checked = checked_coroutine_function if is_async else checked_function
    vars(checked)["argument_check"] = check
    return functools.wraps(function)(checked)


class _CallCheck:
    """The check of the arguments of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        parameters = [*inspect.signature(function).parameters.values()][1:]
        self._positional = tuple(one.name for one in parameters if one.kind is not one.KEYWORD_ONLY)
        self._names = frozenset(one.name for one in parameters)
        self._required = frozenset(one.name for one in parameters if one.default is one.empty)

    def __call__(self, owner: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        arguments = {**dict(zip(self._positional, args, strict=False)), **kwargs}
        is_complete = len(arguments) == len(args) + len(kwargs)
        if not (is_complete and self._required <= arguments.keys() <= self._names):
            self._raise_signature_error(owner, args, kwargs)
        types = self._types
        for name, value in arguments.items():
            if type(value) not in types[name].classes:
                types[name].check(value, name)

    @functools.cached_property
    def _types(self) -> dict[str, _Type]:
        """The types by name, read with the first call, when all modules are imported."""
        names = _TypeNames(vars(sys.modules[self.function.__module__]))
        hints = typing.get_type_hints(self.function, globalns=names, localns=names)
        return {name: _read_type(hints.get(name, Any)) for name in self._names}

    def _raise_signature_error(
        self, owner: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> NoReturn:
        name = (owner if isinstance(owner, type) else type(owner)).__name__
        if self.function.__name__ != "__init__":
            name += f".{self.function.__name__}"
        try:
            inspect.signature(self.function).bind(owner, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}.") from None
        raise AssertionError


class _TypeNames(dict[str, Any]):
    """The names of a module, and of `_IMPORTED_MODULES`."""

    def __missing__(self, name: str) -> Any:
        if name in sys.modules:
            return sys.modules[name]
        for module_name in _IMPORTED_MODULES:
            module = importlib.import_module(module_name)
            if hasattr(module, name):
                return getattr(module, name)
        raise KeyError(name)


@frozen
class _Type:
    """The values that an annotation accepts."""

    words: tuple[str, ...]
    fits: Callable[[object], bool]
    find_error: Callable[[object, str], Exception | None] = lambda _value, _name: None
    """Returns the error of a value of this type, such as that of one of its items."""

    classes: frozenset[type] = frozenset()
    """The classes whose direct instances are valid without further checks."""

    def check(self, value: object, name: str) -> None:
        """Raise the error of the value of an argument or item, if it has one."""
        error = self.diagnose(value, name)
        if error is not None:
            raise error

    def diagnose(self, value: object, name: str) -> Exception | None:
        """Return the error of the value of an argument or item, if it has one."""
        return self.find_error(value, name) if self.fits(value) else self._mismatch(value, name)

    def _mismatch(self, value: object, name: str) -> TypeError:
        *others, last = self.words
        expected = f"{', '.join(others)} or {last}" if others else last
        hint = ""
        if inspect.iscoroutine(value):
            hint = ". Did you forget await?"
        elif value is None and name == "dataset_id":
            hint = ": datasets.find() returns None if no dataset has the name"
        kind = "None" if value is None else type(value).__name__
        return TypeError(f"{name} must be {expected}, not {kind}{hint}")


_ANY = _Type(("anything",), lambda _: True)

_WORDS: Mapping[object, str] = MappingProxyType(
    {
        NoneType: "None",
        PathLike: "a path",
        bool: "True or False",
        bytes: "bytes",
        float: "a number",
        int: "a whole number",
        Path: "a path",
        str: "a string",
    }
)


@functools.cache
def _read_type(annotation: Any) -> _Type:
    kind = get_origin(annotation) or annotation
    if kind in _READERS:
        return _READERS[kind](get_args(annotation))
    return _read_class(kind) if isinstance(kind, type) and kind not in {Any, object} else _ANY


def _read_class(kind: type) -> _Type:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    words = () if kind.__name__ == "Unset" else (_WORDS.get(kind, f"{article} {kind.__name__}"),)
    accepted = (int, float) if kind is float else (kind,)
    excluded = bool if kind in {int, float} else ()
    return _Type(
        words,
        lambda value: isinstance(value, accepted) and not isinstance(value, excluded),
        classes=frozenset(accepted),
    )


def _read_union(parts: tuple[Any, ...]) -> _Type:
    types = [_read_type(part) for part in parts]
    has_words = any(get_origin(part) is Literal for part in parts)
    words = dict.fromkeys(
        word
        for part, one in zip(parts, types, strict=True)
        if not (has_words and isinstance(part, type) and issubclass(part, enum.Enum))
        if not (part is int and float in parts)
        for word in one.words
    )
    if "None" in words:  # last
        del words["None"]
        words["None"] = None

    def find_error(value: object, name: str) -> Exception | None:
        errors = [one.find_error(value, name) for one in types if one.fits(value)]
        return None if None in errors else errors[0]

    return _Type(
        tuple(words),
        lambda value: any(one.fits(value) for one in types),
        find_error,
        frozenset[type]().union(*(one.classes for one in types)),
    )


def _read_literal(known: tuple[Any, ...]) -> _Type:
    *others, last = map(str, known)
    expected = f"{', '.join(others)} or {last}" if others else last

    def find_error(value: object, name: str) -> Exception | None:
        if value in known:
            return None
        return ConfigError(f"Invalid {name} {value!r}.", hint=f"Pass {expected}.")

    return _Type(("a string",), lambda value: isinstance(value, str), find_error)


def _read_sequence(parts: tuple[Any, ...]) -> _Type:
    item = _read_type(parts[0]) if parts else _ANY
    excluded = bytes if item.fits("") else (bytes, str)

    def find_error(value: Any, name: str) -> Exception | None:
        if isinstance(value, str):
            return ConfigError(
                f"{name} is a string, not a list: {value!r}.", hint=f"Pass [{value!r}]."
            )
        return next(filter(None, _iter_errors(item, value, name)), None)

    return _Type(
        ("a list",),
        lambda value: isinstance(value, Sequence) and not isinstance(value, excluded),
        find_error,
    )


def _iter_errors(item: _Type, values: Iterable[object], name: str) -> Iterator[Exception | None]:
    for index, value in enumerate(values):
        if type(value) not in item.classes:
            yield item.diagnose(value, f"{name}[{index}]")


def _read_tuple(parts: tuple[Any, ...]) -> _Type:
    types = [_read_type(part) for part in parts]

    def fits(value: object) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == len(types)
            and all(one.fits(each) for one, each in zip(types, value, strict=True))
        )

    return _Type(("a tuple",), fits)


def _read_mapping(parts: tuple[Any, ...]) -> _Type:
    key_type, value_type = map(_read_type, parts or (Any, Any))

    def find_error(value: Any, name: str) -> Exception | None:
        for key, each in value.items():
            error = key_type.diagnose(key, f"{name}: a key")
            error = error or value_type.diagnose(each, f"{name}[{key!r}]")
            if error is not None:
                return error
        return None

    return _Type(("a mapping",), lambda value: isinstance(value, Mapping), find_error)


def _is_iterable(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping)


def _find_async_function(value: object, name: str) -> Exception | None:
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(
        getattr(value, "__call__", None)  # noqa: B004 -- of an object
    ):
        return TypeError(f"{name} must be a plain function, not an async one")
    return None


_READERS: Mapping[object, Callable[[tuple[Any, ...]], _Type]] = MappingProxyType(
    {
        AsyncIterable: lambda _: _Type(
            ("an async iterable",), lambda value: isinstance(value, AsyncIterable)
        ),
        BinaryIO: lambda _: _Type(
            ("a file open in binary mode",), lambda value: hasattr(value, "read")
        ),
        Callable: lambda _: _Type(("a function",), callable, _find_async_function),
        Iterable: lambda _: _Type(("an iterable",), _is_iterable),
        Literal: _read_literal,
        Mapping: _read_mapping,
        Sequence: _read_sequence,
        Union: _read_union,
        UnionType: _read_union,
        tuple: _read_tuple,
    }
)
