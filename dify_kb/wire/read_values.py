"""Read single JSON values: each function returns a value of its type, or raises TypeError."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.models import OpenEnum

_TYPE_NAMES = {
    NoneType: "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def describe_type(value: object) -> str:
    """Return the JSON type of a value, for error messages."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def read_text(value: object, _: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {describe_type(value)}")
    return value


def read_enum(value: object, shape: type[OpenEnum]) -> OpenEnum:
    """Return a member of an enum; an unknown one for an unknown word."""
    word = read_text(value, shape)
    return _members_by_value(shape).get(word) or shape(word)


@functools.cache
def _members_by_value(shape: type[OpenEnum]) -> Mapping[str, OpenEnum]:
    return {str(word): word for word in shape}


def read_integer(value: object, _: object) -> int:
    """Return an integer, which some versions send as text."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"expected a number, got {describe_type(value)}")
    return int(value)


def read_number(value: object, _: object) -> float:
    """Return a number, which some versions send as text."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"expected a number, got {describe_type(value)}")
    return float(value)


def read_bool(value: object, _: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {describe_type(value)}")
    return value


def read_mapping(value: object, _: object) -> Mapping[str, object]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {describe_type(value)}")
    return cast("Mapping[str, object]", value)


def read_scalar(value: object, _: object) -> object:
    """Return a text, a number or None."""
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"expected text, a number or null, got {describe_type(value)}")
    return value


def read_filter_value(value: object, _: object) -> object:
    """Return a scalar, or a tuple of texts."""
    if isinstance(value, list | tuple):
        return tuple(read_text(item, str) for item in value)
    return read_scalar(value, _)


def read_time(value: object, _: object) -> datetime:
    """Return a time from seconds since the epoch or ISO text."""
    if isinstance(value, str) and "-" in value[1:]:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return datetime.fromtimestamp(read_number(value, float), UTC)


def write_time(value: datetime) -> int | float:
    """Return a time in seconds since the epoch."""
    seconds = value.timestamp()
    return int(seconds) if seconds.is_integer() else seconds
