"""The metadata fields of a dataset, and their values on documents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, cast

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset


class MetadataType(OpenEnum):
    """The type of a field's values; a time is a number of seconds since the epoch."""

    STRING = "string"
    NUMBER = "number"
    TIME = "time"


MetadataTypeName = Literal["string", "number", "time"]
"""The values of `MetadataType`."""

MetadataScalar = str | int | float | None
"""The types of metadata values. The server does not check them against the field (measured)."""


_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_MAX_NUMBER = 1e300
"""JSON readers turn larger numbers into infinity."""

_HINTS: Mapping[MetadataType, str] = {
    MetadataType.STRING: "Pass a string.",
    MetadataType.NUMBER: "Pass a number.",
    MetadataType.TIME: "Pass a date such as 2024-12-31 or 2024-12-31T18:00+01:00, or seconds since"
    " the epoch.",
}


def _parse_text(text: str, type_: MetadataType) -> str | int | float | datetime | None:
    """Return a text as a value of a field of this type; None if it is not one.

    A time is a date or time in ISO 8601, in UTC without an offset, or seconds since the epoch.
    """
    if type_ == MetadataType.STRING:
        return text
    text = text.strip()
    if type_ == MetadataType.TIME:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        number = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return None
    return number if abs(number) <= _MAX_NUMBER else None


@frozen(kw_only=True)
class MetadataField:
    """A metadata field. `count` is the number of documents that use it, only in lists."""

    id: str
    name: str
    type: MetadataType
    count: int | None = None
    extra: Mapping[str, object] = field(factory=dict)

    def make_value(self, value: MetadataScalar | datetime) -> MetadataValue:
        """Create a value of this field for `metadata.assign`.

        A text becomes a number or a time if the field is one: `2024`, `2024-12-31`,
        `2024-12-31T18:00+01:00` (UTC without an offset). A time is stored as seconds.

        Raises:
            ConfigError: the value does not fit the type of the field. The server would store it,
                but searches would never match.
        """
        stored: object = value
        if isinstance(value, str) and self.type in _HINTS and self.type != MetadataType.STRING:
            stored = _parse_text(value, self.type)
        if isinstance(stored, datetime):
            stored = stored.timestamp() if stored.tzinfo else value
        wanted = str if self.type == MetadataType.STRING else (int, float)
        if value is not None and (isinstance(stored, bool) or not isinstance(stored, wanted)):
            raise ConfigError(
                f"Invalid value for metadata field {self.name!r} of type {self.type}: {value!r}.",
                hint=_HINTS.get(self.type, _HINTS[MetadataType.NUMBER]),
            )
        return MetadataValue(id=self.id, name=self.name, value=cast("MetadataScalar", stored))


@frozen(kw_only=True)
class MetadataFields:
    """The fields of a dataset, and whether the built-in fields are enabled."""

    doc_metadata: Sequence[MetadataField]
    built_in_field_enabled: bool | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class BuiltInField:
    """A field that the server fills in automatically."""

    name: str
    type: MetadataType | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class BuiltInFields:
    """The list of built-in fields."""

    fields: Sequence[BuiltInField]


@frozen(kw_only=True)
class CreateMetadata:
    """The request body to create a field."""

    type: MetadataType
    name: str


@frozen(kw_only=True)
class RenameMetadata:
    """The request body to rename a field."""

    name: str


@frozen(kw_only=True)
class MetadataValue:
    """A value to assign. The server stores it under `name`; `id` is the field's id."""

    id: str
    name: str
    value: MetadataScalar


def read_values(
    entries: Sequence[Mapping[str, object]] | None, *, parse: bool
) -> Sequence[MetadataValue]:
    """Return the values in the `doc_metadata` of a document; `id` of built-in ones is `built-in`.

    Args:
        parse: convert text to the type of a number or time field. Lists of documents have all
            values as text up to 1.12.1, and in their JSON types since 1.14 (recording 712).
    """
    return [
        MetadataValue(id=id_, name=name, value=_parse_value(entry) if parse else _get_value(entry))
        for entry in entries or ()
        if isinstance(id_ := entry.get("id"), str) and isinstance(name := entry.get("name"), str)
    ]


def _get_value(entry: Mapping[str, object]) -> MetadataScalar:
    return cast("MetadataScalar", entry.get("value"))


def _parse_value(entry: Mapping[str, object]) -> MetadataScalar:
    value = _get_value(entry)
    if not isinstance(value, str) or entry.get("type") in {MetadataType.STRING, None}:
        return value
    number = _NUMBER.fullmatch(value)
    if number is None:
        return value
    return float(value) if number[1] or number[2] else int(value)


@check_constructor
@frozen(kw_only=True)
class DocumentMetadata:
    """The values to assign to a document.

    Without `partial_update` they replace all its values; servers before 1.11 always replace all.
    """

    document_id: str
    metadata_list: Sequence[MetadataValue]
    partial_update: bool | Unset = UNSET


@frozen(kw_only=True)
class AssignMetadata:
    """The request body to assign values to documents."""

    operation_data: Sequence[DocumentMetadata]
