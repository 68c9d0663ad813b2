"""Metadata: the fields of a dataset, and their values on its documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import field, frozen

from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset


class MetadataType(OpenEnum):
    """What the values of a field are; a time is a number of seconds since the epoch."""

    STRING = "string"
    NUMBER = "number"
    TIME = "time"


MetadataScalar = str | int | float | None
"""What a value can be. The server does not compare it with its field's type (measured)."""


@frozen(kw_only=True)
class MetadataField:
    """A field. `count` is the number of documents that have a value, in lists only."""

    id: str
    name: str
    type: MetadataType
    count: int | None = None
    extra: Mapping[str, object] = field(factory=dict)

    def make_value(self, value: MetadataScalar | datetime) -> MetadataValue:
        """Make a value of this field, for `metadata.assign`; a `datetime` becomes seconds.

        Raises:
            ConfigError: a value of another type than the field's, which the server would store
                and searches would never match.
        """
        if isinstance(value, datetime):
            value = value.timestamp()
        wanted = str if self.type == MetadataType.STRING else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, wanted)):
            raise ConfigError(
                f"{self.name} is a field of type {self.type}; the value is {value!r}.",
                hint="Pass a text." if wanted is str else "Pass a number (a time in seconds).",
            )
        return MetadataValue(id=self.id, name=self.name, value=value)


@frozen(kw_only=True)
class MetadataFields:
    """Answer of the list: the dataset's own fields, and whether built-in ones are shown too."""

    doc_metadata: Sequence[MetadataField]
    built_in_field_enabled: bool


@frozen(kw_only=True)
class BuiltInField:
    """A field that the server fills in by itself."""

    name: str
    type: MetadataType


@frozen(kw_only=True)
class BuiltInFields:
    """Answer of the list of built-in fields."""

    fields: Sequence[BuiltInField]


@frozen(kw_only=True)
class CreateMetadata:
    """Request: a new field."""

    type: MetadataType
    name: str


@frozen(kw_only=True)
class RenameMetadata:
    """Request: another name for a field."""

    name: str


@frozen(kw_only=True)
class MetadataValue:
    """A value to set. The server stores it under `name`; `id` ties it to the field."""

    id: str
    name: str
    value: MetadataScalar


@frozen(kw_only=True)
class DocumentMetadata:
    """The values of one document. Without `partial_update` they replace all that it has; servers
    before 1.11 replace them in any case.
    """

    document_id: str
    metadata_list: Sequence[MetadataValue]
    partial_update: bool | Unset = UNSET


@frozen(kw_only=True)
class AssignMetadata:
    """Request: values for documents."""

    operation_data: Sequence[DocumentMetadata]
