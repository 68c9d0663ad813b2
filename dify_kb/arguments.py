"""Parse arguments written as strings, durations and sizes, and check arguments."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from .errors import ConfigError

Duration = float | str | timedelta
"""A duration: seconds as a number, a string such as `90`, `500ms`, `30s`, `10m`, `2h`, `1h30m` or
`1d`, or a `timedelta`."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?(ms|s|min|m|h|d) ?", re.ASCII)


def parse_duration(value: Duration, name: str = "duration") -> float:
    """Return a duration in seconds.

    Raises:
        ConfigError: the text is not a duration, or the duration is negative, infinite or NaN.
        TypeError: the argument `name` has another type.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _parse_duration_text(value.strip().lower())
    else:
        check_type(value, float | int, name, "seconds, a string such as '30s' or a timedelta")
        seconds = value
    if not 0 <= seconds <= timedelta.max.total_seconds():
        raise ConfigError(
            f"Invalid duration {value!r} for {name}.", hint="Pass 90s, 30m, 2h or 1d."
        )
    return float(seconds)


def parse_optional_duration(value: Duration | None, name: str = "duration") -> float | None:
    """Return a duration in seconds, or None; see `parse_duration`."""
    return None if value is None else parse_duration(value, name)


def _parse_duration_text(text: str) -> float:
    """Return the seconds of a text; NaN if it is not a duration."""
    if re.fullmatch(r"\d{1,15}(\.\d{1,15})?", text, re.ASCII):
        return float(text)
    if not re.fullmatch(f"(?:{_PART.pattern})+", text, re.ASCII):
        return math.nan
    return math.fsum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


MIB = 2**20

_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": MIB, "gb": 10**9}
_SIZE_UNITS |= {"gib": 2**30}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([kmg]?i?b)?", re.ASCII)


def format_size(size: float) -> str:
    """Return a size as `512 bytes`, `48.8 KiB` or `1,024.0 MiB`."""
    if size >= MIB:
        return f"{size / MIB:,.1f} MiB"
    return f"{size / 1024:.1f} KiB" if size >= 1024 else f"{size:.0f} bytes"  # noqa: PLR2004 -- a KiB


def parse_size(value: int | str, name: str = "size", *, default_unit: int = 1) -> int:
    """Return a size in bytes: of a number, or a string such as `15MB`, `500 kB` or `1.5GiB`.

    Args:
        default_unit: the bytes that a number without a unit counts.

    Raises:
        ConfigError: the text is not a size, or less than one byte.
        TypeError: the argument `name` has another type.
    """
    check_type(value, int | str, name, "a number of bytes or a string such as '15MB'")
    text = str(value).strip().lower()
    match = _SIZE.fullmatch(text)
    unit = (match[2] or "") if match else "?"
    factor = default_unit if unit == "" else _SIZE_UNITS.get(unit, 0)
    size = int(float(match[1]) * factor) if match else 0
    if size < 1:
        raise ConfigError(f"Invalid size {value!r} for {name}.", hint="Pass 15MB, 500kB or 1.5GiB.")
    return size


def check_type(value: object, expected: Any, name: str, words: str) -> None:
    """Check the type of an argument. A bool is not a number.

    Raises:
        TypeError: the value of the argument `name` is not an `expected`, described by `words`.
    """
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise TypeError(f"{name} must be {words}, not {type(value).__name__}")


def check_unicode(text: str, name: str) -> None:
    """Check that a string can be encoded.

    Raises:
        ConfigError: the argument `name` contains an unpaired surrogate, which UTF-8 cannot encode.
    """
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is not valid Unicode: it contains an unpaired surrogate.",
            hint="Decode the text with the correct encoding, or remove these characters.",
        ) from error


def find_encoding_error(value: object, path: str) -> ConfigError | None:
    """Return the error of the first string, number or object in `value` that JSON cannot encode."""
    match value:
        case dict():
            prefix = f"{path}." if path else ""
            items = [(f"{prefix}{name}", each) for name, each in value.items()]
        case list() | tuple():
            items = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
        case str():
            try:
                check_unicode(value, path)
            except ConfigError as error:
                return error
            return None
        case None | bool() | int():
            return None
        case float() if math.isfinite(value):
            return None
        case _:
            return ConfigError(
                f"{path} has a value that JSON cannot represent: {value!r}.",
                hint="Pass strings, finite numbers, booleans, None, lists and dicts.",
            )
    return next(filter(None, (find_encoding_error(each, name) for name, each in items)), None)
