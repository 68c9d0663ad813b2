from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.emulator import built_in
from dify_kb.models import MetadataField, MetadataFields, MetadataType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.emulator.store import DatasetRow, DocumentRow, MetadataRow, Store

_BUILT_IN_ID = "built-in"


def field(row: MetadataRow, count: int | None = None) -> MetadataField:
    """Show a field; lists count its documents."""
    return MetadataField(id=row.id, type=MetadataType(row.type), name=row.name, count=count)


def fields(store: Store, row: DatasetRow) -> MetadataFields:
    """Show the fields of a dataset."""
    counts = store.metadata.counts(row.id)
    return MetadataFields(
        doc_metadata=[field(known, counts.get(known.id, 0)) for known in store.metadata.of(row.id)],
        built_in_field_enabled=bool(row.built_in),
    )


def of_dataset(store: Store, row: DatasetRow) -> list[Mapping[str, object]]:
    """Show the fields as a dataset names them, the built-in ones if it has them (measured)."""
    known = [(field.id, field.name, field.type) for field in store.metadata.of(row.id)]
    if row.built_in:
        known += [(_BUILT_IN_ID, name, kind) for name, kind in built_in.TYPES.items()]
    return [{"id": key, "name": name, "type": kind} for key, name, kind in known]


def of_document(store: Store, row: DocumentRow) -> list[Mapping[str, object]] | None:
    """Show the values of a document, and the built-in ones after them; None while nothing is set
    (measured).
    """
    values = raw(row)
    if not values:
        return None
    bound = store.metadata.of_document(row.dataset_id, row.id)
    own = [_value(field.id, field.name, field.type, values.get(field.name)) for field in bound]
    # Times among them are texts, also where one's own are numbers (recording 681).
    ready = built_in.values(row)
    return own + [
        _value(_BUILT_IN_ID, name, kind, str(ready[name])) for name, kind in built_in.TYPES.items()
    ]


def of_document_as_text(store: Store, row: DocumentRow) -> list[Mapping[str, object]] | None:
    """Show the same with every value as a text, as lists do (measured)."""
    shown = of_document(store, row)
    return shown and [
        {**value, "value": None if value["value"] is None else str(value["value"])}
        for value in shown
    ]


def raw(row: DocumentRow) -> dict[str, object] | None:
    """Show the values by the names of their fields, as searches do."""
    values: dict[str, object] | None = json.loads(row.doc_metadata) if row.doc_metadata else None
    return values


def _value(key: str, name: str, kind: str, value: object) -> Mapping[str, object]:
    return {"id": key, "name": name, "type": kind, "value": value}
