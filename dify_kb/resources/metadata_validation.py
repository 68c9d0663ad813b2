"""Validate metadata names and values before they are sent."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.models import MetadataField, MetadataType

from ._arguments import check_id, check_not_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dify_kb.models import DocumentMetadata, MetadataValue

MAX_NAME_LENGTH = 255
"""Maximum characters of a field's name."""

AssignableValue = str | int | float | datetime
"""The types of values that can be assigned; a `datetime` is stored as seconds since the epoch."""

BUILT_IN = frozenset({"document_name", "uploader", "upload_date", "last_update_date", "source"})
"""Fields that the server fills in automatically (recording 730)."""


@frozen
class MetadataWarning:
    """A message about metadata of a document that were not set.

    `kind` is equal for the same problem of other documents.
    """

    message: str
    kind: str

    @classmethod
    def from_error(cls, name: object, error: KnowledgeError) -> MetadataWarning:
        """Create from the reason why a field was not set."""
        summary = error.summary.rstrip(".")
        return cls(f"{summary}; the field was not set", f"{name}: {error.hint or summary}")


def validate_metadata(metadata: Mapping[str, object]) -> dict[str, AssignableValue]:
    """Return the names and values if the server can store them unchanged.

    Raises:
        ConfigError: a name is not a string of 1 to 255 characters, or is that of a built-in field;
            or a value is not a string, a number, a `date` or a `datetime` with a time zone.
            Booleans are rejected because the server stores 1 for True (recording 692), None because
            it has no type and would not remove the field from the document (recording 688).
    """
    return {check_field_name(name): _check_value(name, value) for name, value in metadata.items()}


def validate_each(
    metadata: Mapping[str, object],
) -> tuple[dict[str, AssignableValue], Sequence[MetadataWarning]]:
    """Return the values that the server can store, and a warning for each other.

    A name may end with a type, to which its value is converted: `year:number`.
    """
    values, warnings = dict[str, AssignableValue](), list[MetadataWarning]()
    for key, value in metadata.items():
        name = key
        try:
            name, type_ = split_type(key)
            checked = _check_value(check_field_name(name), value)
            values[name] = checked if type_ is None else _convert(name, checked, type_)
        except ConfigError as error:
            warnings.append(MetadataWarning.from_error(name, error))
    return values, warnings


def split_type(key: object) -> tuple[str, MetadataType | None]:
    """Return the name and the type of `name:type`; None if it does not end with a type.

    Raises:
        ConfigError: the key is not a string.
    """
    if not isinstance(key, str):
        raise ConfigError(f"Invalid metadata field name: {key!r}.", hint="Pass a string.")
    name, colon, type_ = key.rpartition(":")
    is_type = colon and name and MetadataType(type_).is_known
    return (name, MetadataType(type_)) if is_type else (key, None)


def _convert(name: str, value: AssignableValue, type_: MetadataType) -> AssignableValue:
    """Return a value as one of a type.

    Raises:
        ConfigError: it cannot be converted.
    """
    if type_ == MetadataType.STRING:
        return value.isoformat() if isinstance(value, datetime) else str(value)
    field = MetadataField(id="", name=name, type=type_)
    if isinstance(value, datetime) and type_ == MetadataType.TIME:
        return value
    stored = field.make_value(value).value
    if type_ == MetadataType.TIME and isinstance(stored, int | float):
        return _from_timestamp(field, stored)
    return stored if stored is not None else value


def _from_timestamp(field: MetadataField, seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"Invalid value for metadata field {field.name!r} of type time: {seconds!r}.",
            hint="Pass seconds since the epoch, up to the year 9999.",
        ) from None


def check_field_name(name: object) -> str:
    """Return the name of a field if a document can have such a field.

    Raises:
        ConfigError: it is not a string of 1 to 255 characters, or that of a built-in field.
    """
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
        case date():
            return datetime.combine(value, time(), UTC)
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


def check_assigned_values(documents: Sequence[DocumentMetadata]) -> None:
    """Check ids and values before they are sent.

    Raises:
        ConfigError: no documents, an invalid id, or a value that is neither a string that
            PostgreSQL can store, a number nor None.
    """
    check_not_empty(documents, "documents")
    for document in documents:
        check_id(document.document_id, "document_id")
        for value in document.metadata_list:
            _check_assigned_value(value)


def _check_assigned_value(value: MetadataValue) -> None:
    if isinstance(value.value, bool) or not isinstance(value.value, str | int | float | None):
        raise ConfigError(
            f"Unsupported value for metadata field {value.name!r}: {value.value!r}.",
            hint="Pass a string, a number (for a time: seconds since the epoch) or None.",
        )
    if isinstance(value.value, str):
        check_text(value.value, f"value for metadata field {value.name!r}")
