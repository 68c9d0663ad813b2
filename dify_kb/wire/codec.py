"""Convert models to JSON and back.

Reading is tolerant: unknown fields go to `extra`, unknown enum values are kept (`OpenEnum`), times
are accepted as int, float or ISO text. Writing is strict: `UNSET` is omitted, None is null.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, File, FilterValue, MetadataScalar, OpenEnum

T = TypeVar("T")


class DecodeError(ValueError):
    """Raised for an unexpected value in a response; the message contains its JSON path."""


def encode(model: object) -> object:
    """Convert a model to a value that `json.dumps` accepts."""
    return _converter.unstructure(model)


def encode_fields(model: object) -> dict[str, object]:
    """Convert a model to a dict of its fields, named as in the API."""
    return cast("dict[str, object]", encode(model))


def to_json(model: object) -> bytes:
    """Encode a model as JSON.

    Raises:
        ConfigError: a string is not valid Unicode, such as a file name that is not UTF-8.
    """
    try:
        return _compact.encode(encode(model)).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            "A string of the request is not valid Unicode: it contains an unpaired surrogate.",
            hint="Decode the text with the correct encoding, or remove these characters.",
        ) from error


def to_query(model: object) -> list[tuple[str, str]]:
    """Convert a model to query parameters; a list becomes several with the same name."""
    return [
        (name, _to_query_value(item))
        for name, value in encode_fields(model).items()
        for item in (value if isinstance(value, list) else [value])
    ]


def decode(shape: type[T], value: object) -> T:
    """Convert parsed JSON to a model.

    Raises:
        DecodeError: a required field is missing or has another type.
    """
    try:
        return _converter.structure(value, shape)
    except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError("; ".join(cattrs.transform_error(error)[:3])) from error


def from_json(shape: type[T], body: bytes) -> T:
    """Decode JSON into a model.

    Raises:
        DecodeError: the body is not JSON, or does not fit the model.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {error}") from error
    return decode(shape, value)


def _to_query_value(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _read_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _read_enum(value: object, shape: type[OpenEnum]) -> OpenEnum:
    word = _read_text(value, shape)
    return _members_by_value(shape).get(word) or shape(word)


@functools.cache
def _members_by_value(shape: type[OpenEnum]) -> Mapping[str, OpenEnum]:
    return {str(word): word for word in shape}


def _read_integer(value: object, _: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return int(value)


def _read_number(value: object, _: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _read_bool(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {type(value).__name__}")
    return value


def _read_mapping(value: object, _: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return cast("Mapping[str, object]", value)


def _read_scalar(value: object, _: object) -> object:
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"expected text, a number or null, got {type(value).__name__}")
    return value


def _read_filter_value(value: object, _: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_read_text(item, str) for item in value)
    return _read_scalar(value, _)


def _read_time(value: object, _: object) -> datetime:
    if isinstance(value, str) and "-" in value[1:]:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return datetime.fromtimestamp(_read_number(value, float), UTC)


def _write_time(value: datetime) -> int | float:
    seconds = value.timestamp()
    return int(seconds) if seconds.is_integer() else seconds


def _is_list(shape: Any) -> bool:
    origin: object = get_origin(shape)
    return origin is Sequence


def _create_list_reader(shape: Any) -> Callable[[object, object], object]:
    """Create a reader for JSON arrays; other iterables (text, objects) are rejected."""
    items = cast("Any", tuple)[*get_args(shape), ...]

    def read(value: object, _: object) -> object:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, got {type(value).__name__}")
        return _converter.structure(value, items)

    return read


def _is_nullable(shape: object) -> bool:
    members = get_args(shape)
    return get_origin(shape) in {Union, UnionType} and NoneType in members and len(members) == 2  # noqa: PLR2004 -- null and a type


def _create_nullable_reader(shape: Any) -> Callable[[object, object], object]:
    """Create a fast reader for nullable values: two thirds of a document's fields are nullable."""
    inner = next(arm for arm in get_args(shape) if arm is not NoneType)
    read: Callable[[object, object], object] = _converter.get_structure_hook(inner)
    if inner in {str, int, float, bool}:  # fast path for values of the expected type
        return lambda value, _: (
            value if value is None or type(value) is inner else read(value, inner)
        )
    return lambda value, _: None if value is None else read(value, inner)


def _can_be_unset(shape: object) -> bool:
    return get_origin(shape) in {Union, UnionType} and Literal[UNSET] in get_args(shape)


def _create_optional_reader(shape: Any) -> Callable[[object, object], object]:
    members = [arm for arm in get_args(shape) if arm != Literal[UNSET]]
    inner = functools.reduce(operator.or_, members)
    return lambda value, _: _converter.structure(value, inner)


def _class_of(shape: Any) -> Any:
    """Return the class of a generic such as `Page[Dataset]`."""
    origin = get_origin(shape)
    return shape if origin is None else origin


def _create_reader(shape: Any) -> Callable[[object, object], object]:
    read = make_dict_structure_fn(shape, _converter)
    attributes = attrs.fields_dict(_class_of(shape))
    if "extra" not in attributes:
        return lambda value, _: read(_read_mapping(value, None), shape)
    known = attributes.keys() - {"extra"}

    def read_with_extra(value: object, _: object) -> object:
        fields = _read_mapping(value, None)
        if fields.keys() <= known:
            return read(fields, shape)
        unknown = fields.keys() - known
        return read({**fields, "extra": {name: fields[name] for name in unknown}}, shape)

    return read_with_extra


def _create_writer(shape: Any) -> Callable[[Any], dict[str, object]]:
    attrs.resolve_types(shape)
    overrides: dict[str, Any] = {
        attribute.name: override(
            omit=attribute.name == "extra" or attribute.type is File,
            omit_if_default=attribute.default is UNSET,
        )
        for attribute in attrs.fields(shape)
    }
    write = make_dict_unstructure_fn(shape, _converter, **overrides)
    if "extra" not in attrs.fields_dict(shape):
        return write
    return lambda model: {**write(model), **model.extra}


def _create_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for shape, read in {
        str: _read_text,
        OpenEnum: _read_enum,
        int: _read_integer,
        float: _read_number,
        bool: _read_bool,
        datetime: _read_time,
    }.items():
        converter.register_structure_hook(shape, read)
    converter.register_structure_hook_factory(_is_nullable, _create_nullable_reader)
    converter.register_structure_hook_func(lambda shape: shape is object, lambda value, _: value)
    converter.register_structure_hook_func(lambda s: s == Mapping[str, object], _read_mapping)
    converter.register_structure_hook_func(lambda s: s == MetadataScalar, _read_scalar)
    converter.register_structure_hook_func(lambda s: s == FilterValue, _read_filter_value)
    converter.register_structure_hook_factory(_is_list, _create_list_reader)
    converter.register_structure_hook_factory(_can_be_unset, _create_optional_reader)
    converter.register_structure_hook_factory(
        lambda shape: attrs.has(_class_of(shape)), _create_reader
    )
    converter.register_unstructure_hook(datetime, _write_time)
    converter.register_unstructure_hook_factory(attrs.has, _create_writer)
    return converter


_converter = _create_converter()

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
