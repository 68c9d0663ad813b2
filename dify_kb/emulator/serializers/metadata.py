"""Serialize metadata fields and the metadata values of documents; built-in fields."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from dify_kb.models import MetadataField, MetadataFields, MetadataType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import DatasetRow, DocumentRow, MetadataRow, Store

_BUILT_IN_ID = "built-in"

OWNER_NAME: Final = "admin"
"""The name of the workspace owner, on whose behalf the server acts."""

BUILT_IN_FIELD_TYPES: Final[Mapping[str, str]] = {
    "document_name": "string",
    "uploader": "string",
    "upload_date": "time",
    "last_update_date": "time",
    "source": "string",
}
"""The built-in fields, whose values the server sets, in the order of recording 730."""


def serialize_metadata_field(row: MetadataRow, count: int | None = None) -> MetadataField:
    """Serialize a field; in lists, with the number of its documents."""
    return MetadataField(id=row.id, type=MetadataType(row.type), name=row.name, count=count)


def serialize_metadata_fields(store: Store, row: DatasetRow) -> MetadataFields:
    """Serialize the fields of a dataset."""
    counts = store.metadata.count_documents(row.id)
    return MetadataFields(
        doc_metadata=[
            serialize_metadata_field(field, counts.get(field.id, 0))
            for field in store.metadata.list_by_dataset(row.id)
        ],
        built_in_field_enabled=bool(row.built_in),
    )


def serialize_dataset_metadata(store: Store, row: DatasetRow) -> list[Mapping[str, object]]:
    """Serialize the fields for a dataset's details, with built-in fields if enabled (measured)."""
    fields = [
        (field.id, field.name, field.type) for field in store.metadata.list_by_dataset(row.id)
    ]
    if row.built_in:
        fields += [(_BUILT_IN_ID, name, type_) for name, type_ in BUILT_IN_FIELD_TYPES.items()]
    return [{"id": key, "name": name, "type": type_} for key, name, type_ in fields]


def serialize_document_metadata(
    store: Store, row: DocumentRow
) -> list[Mapping[str, object]] | None:
    """Serialize the values of a document, followed by the built-in ones.

    Return None while no value is set (measured).
    """
    values = read_metadata_values(row)
    if not values:
        return None
    fields = store.metadata.list_by_document(row.dataset_id, row.id)
    own_values = [
        _build_value(field.id, field.name, field.type, values.get(field.name)) for field in fields
    ]
    # Built-in times are strings, although custom times are numbers (recording 681).
    built_in_values = build_built_in_values(row)
    return own_values + [
        _build_value(_BUILT_IN_ID, name, type_, str(built_in_values[name]))
        for name, type_ in BUILT_IN_FIELD_TYPES.items()
    ]


def serialize_document_metadata_as_text(
    store: Store, row: DocumentRow
) -> list[Mapping[str, object]] | None:
    """Serialize the values of a document as strings, for lists (measured)."""
    metadata_values = serialize_document_metadata(store, row)
    return metadata_values and [
        {**value, "value": None if value["value"] is None else str(value["value"])}
        for value in metadata_values
    ]


def read_metadata_values(row: DocumentRow) -> dict[str, object] | None:
    """Return the values by field name, as searches do."""
    values: dict[str, object] | None = json.loads(row.doc_metadata) if row.doc_metadata else None
    return values


def build_built_in_values(row: DocumentRow) -> dict[str, object]:
    """Return the values of the built-in fields for a document."""
    return {
        "document_name": row.name,
        "uploader": OWNER_NAME,
        "upload_date": float(row.created_at),
        "last_update_date": float(row.updated_at),
        "source": "file_upload",
    }


def _build_value(key: str, name: str, type_: str, value: object) -> Mapping[str, object]:
    return {"id": key, "name": name, "type": type_, "value": value}
