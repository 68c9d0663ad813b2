"""Validate metadata names and values before they are sent."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_LENGTH = 255
"""Characters of a field's name."""

AssignableValue = str | int | float | datetime
"""What a field of a document can be set to; a `datetime` is stored as seconds since the epoch."""

BUILT_IN = frozenset({"document_name", "uploader", "upload_date", "last_update_date", "source"})
"""Fields that the server fills in by itself (recording 730)."""


def validate_metadata(metadata: Mapping[str, object]) -> dict[str, AssignableValue]:
    """Return the names and values if the server stores them unchanged.

    Raises:
        ConfigError: a name that is no text of 1 to 255 characters, or a built-in field's; a value
            that is neither text, number nor `datetime` with a time zone. True is refused because
            the server makes 1 of it (recording 692), None because it has no type and the server
            would keep the field on the document all the same (recording 688).
    """
    return {_check_name(name): _check_value(name, value) for name, value in metadata.items()}


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"The name of a metadata field is {name!r}.", hint="Pass a text.")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ConfigError(
            f"The name of a metadata field has {len(name)} characters: {name[:20]!r}.",
            hint=f"The server takes 1 to {MAX_NAME_LENGTH}.",
        )
    if name in BUILT_IN:
        raise ConfigError(
            f"{name!r} is a built-in metadata field.",
            hint="The server fills it in by itself; choose another name.",
        )
    return _check_text(name, "The name of a metadata field")


def _check_value(name: object, value: object) -> AssignableValue:
    label = f"The metadata value of {name!r}"
    match value:
        case None | bool():
            pass
        case str():
            return _check_text(value, label)
        case datetime() if value.tzinfo is None:
            raise ConfigError(
                f"{label} is {value!r}, a time of no time zone.",
                hint="Pass an aware datetime, such as datetime.now(UTC).",
            )
        case int() | datetime():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            pass
    raise ConfigError(
        f"{label} is {value!r}.",
        hint="Pass a text, a finite number or a datetime; leave out what a document does not have.",
    )


def _check_text(text: str, label: str) -> str:
    """Let a text through that PostgreSQL can hold: where it cannot, servers up to 1.12 say
    nothing.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{label} holds a NUL or half of a surrogate pair: {text[:40]!r}.",
            hint="Leave those characters out, or read the text with its right encoding.",
        )
    return text
