"""What people write behind an option, as the values that it means."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from dify_kb.errors import ConfigError

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d)?")

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def seconds(option: str, text: str) -> float:
    """Read a time: `90`, `90s`, `30m`, `2h`, `1d`.

    Raises:
        ConfigError: it is none.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"{option} is {text!r}, which is no time.", hint="Write it like 90, 90s, 30m or 2h."
        )
    return float(match[1]) * _UNITS[match[2] or ""]


def number(text: str) -> int | float | None:
    """Read a number: `2024`, `2.5`; None where it is none."""
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return None


def moment(what: str, text: str) -> datetime:
    """Read a point in time: `2024-12-31`, `2024-12-31T18:00+01:00`; UTC if it does not say.

    Raises:
        ConfigError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{what} is {text!r}, which is no time.",
            hint="Write it like 2024-12-31 or 2024-12-31T18:00+01:00.",
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def bounds(option: str, text: str) -> int | tuple[int, int]:
    """Read a number, which fixes it, or two, which bound it: `4`, `2-16`.

    Raises:
        ConfigError: it is neither.
    """
    match = _RANGE.fullmatch(text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise ConfigError(
            f"{option} is {text!r}.",
            hint="Write a number from 1, or two of them with a dash, like 2-16.",
        )
    return (low, high) if match and match[2] else low


def values(option: str, pairs: Sequence[str]) -> dict[str, object]:
    """Read pairs of a name and a text (`team=infra`) or a number (`year:=2024`).

    Raises:
        ConfigError: one is no such pair, or a name comes twice.
    """
    read: dict[str, object] = {}
    for pair in pairs:
        name, value = _pair(option, pair)
        if name in read:
            raise ConfigError(f"{option} names {name!r} twice.", hint="A field has one value.")
        read[name] = value
    return read


def _pair(option: str, pair: str) -> tuple[str, str | int | float]:
    name, equals, text = pair.partition("=")
    numeric = name.endswith(":")
    name = name.removesuffix(":").strip()
    if not equals or not name:
        raise ConfigError(
            f"{option} is {pair!r}.", hint="Write NAME=TEXT, or NAME:=NUMBER for a number."
        )
    return name, _number(option, name, text) if numeric else text


def _number(option: str, name: str, text: str) -> int | float:
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"{option} gives {name!r} {text!r}, which is no number.",
            hint=f"Write {name}={text} for a text.",
        )
    return value
