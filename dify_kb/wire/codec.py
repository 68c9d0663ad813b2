"""Convert models to JSON and back.

Reading is tolerant: unknown enum values are kept (`OpenEnum`), times are accepted as int, float or
ISO text. In models with a field `extra`, only fields without a default are required; an optional
field of another type becomes None and stays in `extra` as it was received, like unknown fields.
Models without `extra` are read strictly. Writing is strict: `UNSET` is omitted, None is null.
"""

from __future__ import annotations

import functools
import json
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, Union, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.fns import identity
from cattrs.gen import make_dict_unstructure_fn, override

from dify_kb.arguments import check_unicode, find_encoding_error
from dify_kb.models import UNSET, File, FilterValue, MetadataScalar, OpenEnum, Unset

from .read_values import (
    describe_type,
    read_bool,
    read_enum,
    read_filter_value,
    read_integer,
    read_mapping,
    read_number,
    read_scalar,
    read_text,
    read_time,
    write_time,
)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class DecodeError(ValueError):
    """Raised for an unexpected value in a response; the message contains its JSON path."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{reason} @ ${path}")
        self.reason = reason
        self.path = path

    @classmethod
    def inside(cls, step: str, error: Exception) -> Self:
        """Create an error from one of the item at `step` of a value: `.name` or `[index]`."""
        if isinstance(error, DecodeError):
            return cls(error.reason, step + error.path)
        return cls(str(error) or type(error).__name__, step)


_READ_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    cattrs.StructureHandlerNotFoundError,
)
"""The exceptions of readers for values of another type; OSError is that of times out of range."""


def encode(model: object) -> object:
    """Convert a model to a value that `json.dumps` accepts."""
    return _converter.unstructure(model)


def encode_fields(model: object) -> dict[str, object]:
    """Convert a model to a dict of its fields, named as in the API."""
    return cast("dict[str, object]", encode(model))


def to_json(model: object) -> bytes:
    """Encode a model as JSON.

    Raises:
        ConfigError: a string is not valid Unicode, such as a file name that is not UTF-8; or a
            value is not one of JSON.
    """
    fields = encode(model)
    try:
        return _compact.encode(fields).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise find_encoding_error(fields, "") or error from error


def to_query(model: object) -> list[tuple[str, str]]:
    """Convert a model to query parameters; a list becomes several with the same name.

    Raises:
        ConfigError: a string is not valid Unicode.
    """
    return [
        (name, _to_query_value(name, item))
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
    except _READ_ERRORS as error:
        raise DecodeError.inside("", error) from error


def required_fields(model: type[object]) -> frozenset[str]:
    """Return the fields without which a response is not read."""
    return frozenset(
        attribute.name
        for attribute in attrs.fields(_class_of(model))
        if attribute.default is attrs.NOTHING
    )


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


def _to_query_value(name: str, value: object) -> str:
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    check_unicode(text, name)
    return text


def _create_list_reader(shape: Any) -> Callable[[object, object], object]:
    """Create a reader for JSON arrays; other iterables (text, objects) are rejected."""
    (inner,) = get_args(shape)
    read_item: Callable[[object, object], object] = _converter.get_structure_hook(inner)

    def read(value: object, _: object) -> object:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, got {describe_type(value)}")
        items: list[object] = []
        for item in cast("Sequence[object]", value):
            try:
                items.append(read_item(item, inner))
            except _READ_ERRORS as error:
                raise DecodeError.inside(f"[{len(items)}]", error) from error
        return tuple(items)

    return read


def _is_nullable(shape: object) -> bool:
    members = get_args(shape)
    return get_origin(shape) in {Union, UnionType} and NoneType in members and len(members) == 2  # noqa: PLR2004 -- null and a type


def _without_null(shape: Any) -> Any:
    return next(arm for arm in get_args(shape) if arm is not NoneType)


def _create_nullable_reader(shape: Any) -> Callable[[object, object], object]:
    inner = _without_null(shape)
    read = _converter.get_structure_hook(inner)
    return lambda value, _: None if value is None else read(value, inner)


def _can_be_unset(shape: object) -> bool:
    return get_origin(shape) in {Union, UnionType} and Unset in get_args(shape)


def _create_optional_reader(shape: Any) -> Callable[[object, object], object]:
    inner = functools.reduce(operator.or_, (arm for arm in get_args(shape) if arm is not Unset))
    read: Callable[[object, object], object] = _converter.get_structure_hook(inner)
    return lambda value, _: read(value, inner)


def _class_of(shape: Any) -> Any:
    """Return the class of a generic such as `Page[Dataset]`."""
    origin = get_origin(shape)
    return shape if origin is None else origin


_FieldReader = tuple[
    str, type[object] | None, object, Callable[[object, object], object], object, bool
]
"""The name of a field; the type whose values need no reading; the value that means the default;
the reader and its argument; whether the field is required."""


def _create_field_reader(field: Any, shape: Any, *, required: bool) -> _FieldReader:
    field_shape = field.type
    if getattr(field_shape, "__parameters__", ()):  # the type variable of a generic model
        field_shape = field_shape[get_args(shape)]
    inner = _without_null(field_shape) if _is_nullable(field_shape) else field_shape
    plain = inner if inner in {str, int, float, bool} else None
    if field.default is None:
        read = _converter.get_structure_hook(inner)
        return field.name, plain, None, read, inner, required
    read = _converter.get_structure_hook(field_shape)
    return field.name, plain, _MISSING, read, field_shape, required


_MISSING = object()


def _create_reader(shape: Any) -> Callable[[object, object], object]:
    """Create a reader for objects.

    One loop without generated code: as fast as the code that cattrs generates (measured), and the
    only way to continue after a field that cannot be read.
    """
    model = attrs.resolve_types(_class_of(shape))
    needed = required_fields(model)
    has_extra = "extra" in attrs.fields_dict(model)
    fields = [
        _create_field_reader(field, shape, required=field.name in needed)
        for field in attrs.fields(model)
        if field.name != "extra"
    ]
    names = frozenset(name for name, *_ in fields)

    def read(value: object, _: object) -> object:
        received = read_mapping(value, None)
        arguments: dict[str, object] = {}
        has_unread = False
        for name, plain, ignored, read_field, field_shape, required in fields:
            item = received.get(name, ignored)
            if type(item) is plain:
                arguments[name] = item
            elif item is ignored:
                if required:
                    raise DecodeError("required field missing", f".{name}")
            else:
                try:
                    arguments[name] = read_field(item, field_shape)
                except _READ_ERRORS as error:
                    if required or not has_extra:
                        raise DecodeError.inside(f".{name}", error) from error
                    arguments[name] = None
                    has_unread = True
                    _log_ignored_value(model, name, error)
        if has_extra and (has_unread or not received.keys() <= names):
            arguments["extra"] = {
                name: item
                for name, item in received.items()
                if name not in names or (item is not None and arguments.get(name) is None)
            }
        return model(**arguments)

    return read


_logged_fields: set[tuple[str, str]] = set()


def _log_ignored_value(model: type[object], name: str, error: Exception) -> None:
    """Log the first ignored value of a field: a page may have the same in each of its rows."""
    field = (model.__name__, name)
    if field not in _logged_fields and _log.isEnabledFor(logging.DEBUG):
        _logged_fields.add(field)
        _log.debug(
            "Ignored %s.%s of a response: %s. Its value is in `extra`.",
            *field,
            DecodeError.inside("", error).reason,
        )


def _needs_no_writing(shape: object) -> bool:
    return get_origin(shape) in {Union, UnionType} and {*get_args(shape)} <= _PLAIN_TYPES


_PLAIN_TYPES = frozenset({str, int, float, bool, NoneType})
"""The types of values that are the same in JSON."""


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
    converter = cattrs.Converter(detailed_validation=False)
    for shape, read in {
        str: read_text,
        OpenEnum: read_enum,
        int: read_integer,
        float: read_number,
        bool: read_bool,
        datetime: read_time,
    }.items():
        converter.register_structure_hook(shape, read)
    converter.register_structure_hook_factory(_is_nullable, _create_nullable_reader)
    converter.register_structure_hook_func(lambda shape: shape is object, lambda value, _: value)
    converter.register_structure_hook_func(lambda s: s == Mapping[str, object], read_mapping)
    converter.register_structure_hook_func(lambda s: s == MetadataScalar, read_scalar)
    converter.register_structure_hook_func(lambda s: s == FilterValue, read_filter_value)
    converter.register_structure_hook_factory(
        lambda shape: cast("object", get_origin(shape)) is Sequence, _create_list_reader
    )
    converter.register_structure_hook_factory(_can_be_unset, _create_optional_reader)
    converter.register_structure_hook_factory(
        lambda shape: attrs.has(_class_of(shape)), _create_reader
    )
    converter.register_unstructure_hook(datetime, write_time)
    converter.register_unstructure_hook_factory(_needs_no_writing, lambda _: identity)
    converter.register_unstructure_hook_factory(attrs.has, _create_writer)
    return converter


_converter = _create_converter()

_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
