"""Validate metadata names and values before they are sent."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_LENGTH = 255
"""Maximum characters of a field's name."""

AssignableValue = str | int | float | datetime
"""The types of values that can be assigned; a `datetime` is stored as seconds since the epoch."""

BUILT_IN = frozenset({"document_name", "uploader", "upload_date", "last_update_date", "source"})
"""Fields that the server fills in automatically (recording 730)."""


def validate_metadata(metadata: Mapping[str, object]) -> dict[str, AssignableValue]:
    """Return the names and values if the server can store them unchanged.

    Raises:
        ConfigError: a name is not a string of 1 to 255 characters, or is that of a built-in field;
            or a value is not a string, a number or a `datetime` with a time zone. Booleans are
            rejected because the server stores 1 for True (recording 692), None because it has no
            type and would not remove the field from the document (recording 688).
    """
    return {_check_name(name): _check_value(name, value) for name, value in metadata.items()}


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"Invalid metadata field name: {name!r}.", hint="Pass a string.")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ConfigError(
            f"Invalid metadata field name of {len(name)} characters: {name[:20]!r}.",
            hint=f"Pass 1 to {MAX_NAME_LENGTH} characters.",
        )
    if name in BUILT_IN:
        raise ConfigError(
            f"{name!r} is the name of a built-in metadata field.",
            hint="Choose another name: the server fills in this field automatically.",
        )
    return check_text(name, "metadata field name")


def _check_value(name: object, value: object) -> AssignableValue:
    label = f"value for metadata field {name!r}"
    match value:
        case None | bool():
            pass
        case str():
            return check_text(value, label)
        case datetime() if value.tzinfo is None:
            raise ConfigError(
                f"Invalid {label}: {value!r} has no time zone.",
                hint="Pass an aware datetime, such as datetime.now(UTC).",
            )
        case int() | datetime():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            pass
    raise ConfigError(
        f"Unsupported {label}: {value!r}.",
        hint="Pass a string, a finite number or a datetime; omit fields without a value.",
    )


def check_text(text: str, label: str) -> str:
    """Return `text` if PostgreSQL can store it; servers up to 1.12 would not report an error."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"Invalid {label}: it contains NUL or an unpaired surrogate: {text[:40]!r}.",
            hint="Remove these characters, or decode the text with the correct encoding.",
        )
    return text
