from __future__ import annotations

import json
import uuid
from typing import Any, Final

from dify_kb.emulator import built_in, views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.payload import (
    Before,
    Field,
    Payload,
    Problems,
    Where,
    anything,
    flag,
    items,
    record,
    text,
    words,
)
from dify_kb.emulator.refused import invalid_param
from dify_kb.emulator.store import DocumentRow, MetadataRow
from dify_kb.models import (
    AssignMetadata,
    BuiltInField,
    BuiltInFields,
    CreateMetadata,
    DocumentMetadata,
    MetadataField,
    MetadataFields,
    MetadataType,
    RenameMetadata,
)
from dify_kb.wire import catalog, codec

_MOST: Final = 255

_ARMS: Final = (
    ("str", "string", "string_type"),
    ("int", "integer", "int_type"),
    ("float", "number", "float_type"),
)


def _scalar(value: object, where: Where, problems: Problems) -> object:
    """Check a value; nobody compares it with the type of its field (measured)."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str | int | float):
        for arm, what, kind in _ARMS:
            problems.add((*where, arm), f"Input should be a valid {what}", kind, value)
    return value


_CREATE = Payload(
    "MetadataArgs",
    {
        "type": Field(
            words(["string", "number", "time"]), required=True, before=Before(check=anything)
        ),
        "name": Field(text(), required=True, before=Before(help="Metadata name")),
    },
)

_RENAME = Payload(
    "MetadataUpdatePayload",
    {"name": Field(text(), required=True, before=Before(help="Metadata name"))},
)

_VALUE = record(
    {
        "id": Field(text(), required=True),
        "name": Field(text(), required=True),
        "value": Field(_scalar),
    }
)

_OPERATIONS = items(
    record(
        {
            "document_id": Field(text(), required=True),
            "metadata_list": Field(items(_VALUE), required=True),
            "partial_update": Field(flag),
        }
    )
)

_ASSIGN = Payload(
    "MetadataOperationData",
    {
        "operation_data": Field(
            _OPERATIONS,
            required=True,
            before=Before(help="Metadata operation data", model="MetadataOperationData"),
        )
    },
)


def _read_create(context: Context, raw: object) -> CreateMetadata:
    # Every version checks the type with pydantic (recording 646).
    fields = _CREATE.validate(_CREATE.read(raw, context.profile), context.profile)
    return codec.decode(CreateMetadata, fields)


def _read_rename(context: Context, raw: object) -> RenameMetadata:
    return codec.decode(RenameMetadata, _RENAME.read(raw, context.profile))


def _read_assign(context: Context, raw: object) -> AssignMetadata:
    fields: dict[str, Any] = _ASSIGN.read(raw, context.profile)
    for operation in fields["operation_data"]:
        for value in operation["metadata_list"]:
            value.setdefault("value", None)
    return codec.decode(AssignMetadata, fields)


@serves(catalog.CREATE_METADATA, _read_create)
def create(context: Context, body: CreateMetadata) -> MetadataField:
    """Make a field; an empty name is one, too (recording 648)."""
    _check(context, body.name)
    if len(body.name) > _MOST:
        raise ValueError("the name is too long for the database")
    row = MetadataRow(str(uuid.uuid4()), context.dataset.id, body.type, body.name)
    context.store.metadata.add(row)
    return views.metadata.field(row)


def _check(context: Context, name: str) -> None:
    """Refuse a name, in the server's order."""
    if len(name) > _MOST and context.profile.quirks.checks_field_length:
        raise invalid_param(f"Metadata name cannot exceed {_MOST} characters.")
    if any(name == row.name for row in context.store.metadata.of(context.dataset.id)):
        raise invalid_param("Metadata name already exists.")
    if name in built_in.TYPES:
        raise invalid_param("Metadata name already exists in Built-in fields.")


@serves(catalog.LIST_METADATA, nothing)
def list_(context: Context, _: None) -> MetadataFields:
    """List the fields of the dataset's own."""
    return views.metadata.fields(context.store, context.dataset)


@serves(catalog.RENAME_METADATA, _read_rename)
def rename(context: Context, body: RenameMetadata) -> MetadataField:
    """Give a field another name, in the documents too; an unknown one is an answer full of nulls
    (recording 660).
    """
    _check(context, body.name)
    store = context.store
    row = store.metadata.get(context.dataset.id, context.slots["metadata_id"])
    # What the name is too long for is the database, whose error is swallowed (recording 664).
    if row is None or len(body.name) > _MOST:
        return MetadataField(
            id="",
            name="",
            type=MetadataType.STRING,
            extra={"id": None, "type": None, "name": None},
        )
    with store.transaction():
        store.metadata.rename(row.id, body.name)
        for document in _holders(context, row.id):
            values = views.metadata.raw(document) or {}
            if row.name in values:
                values[body.name] = values.pop(row.name)
                _write(context, document, values)
    return views.metadata.field(MetadataRow(row.id, row.dataset_id, row.type, body.name))


@serves(catalog.DELETE_METADATA, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a field and its values; an unknown one is a success, too (recording 807)."""
    store = context.store
    row = store.metadata.get(context.dataset.id, context.slots["metadata_id"])
    if row is None:
        return
    with store.transaction():
        for document in _holders(context, row.id):
            values = views.metadata.raw(document) or {}
            values.pop(row.name, None)
            _write(context, document, values)
        store.metadata.delete(row.id)


@serves(catalog.LIST_BUILT_IN_FIELDS, nothing)
def list_built_in(_context: Context, _: None) -> BuiltInFields:
    """List the fields that the server fills in."""
    return BuiltInFields(
        fields=[
            BuiltInField(name=name, type=MetadataType(kind))
            for name, kind in built_in.TYPES.items()
        ]
    )


@serves(catalog.SET_BUILT_IN_FIELDS, nothing)
def set_built_in(context: Context, _: None) -> None:
    """Write the built-in values into the documents that are available, or take them out; any
    other action does nothing (recording 741).
    """
    action = context.slots["action"]
    if action not in {"enable", "disable"} or (action == "enable") == bool(
        context.dataset.built_in
    ):
        return
    store = context.store
    with store.transaction():
        store.datasets.update(context.dataset.id, built_in=int(action == "enable"))
        for document in store.documents.searched(context.dataset.id):
            values = {
                name: value
                for name, value in (views.metadata.raw(document) or {}).items()
                if name not in built_in.TYPES
            }
            if action == "enable":
                values |= built_in.values(document)
            _write(context, document, values)


@serves(catalog.ASSIGN_METADATA, _read_assign)
def assign(context: Context, body: AssignMetadata) -> None:
    """Write values document after document. Up to 1.12 an unknown one is passed over in silence
    (recording 703); later it is refused, and those before it keep their values.
    """
    for operation in body.operation_data:
        document = context.store.documents.get(context.dataset.id, operation.document_id)
        if document is not None:
            _assign(context, document, operation)
        elif context.profile.quirks.refuses_unknown_document:
            raise invalid_param("Document not found.")


def _assign(context: Context, document: DocumentRow, operation: DocumentMetadata) -> None:
    store, more = context.store, operation.metadata_list
    merge = bool(operation.partial_update) and context.profile.quirks.partial_metadata
    values = (views.metadata.raw(document) or {}) if merge else {}
    values |= {value.name: value.value for value in more}
    if context.dataset.built_in:
        values |= built_in.values(document)
    with store.transaction():
        _write(context, document, values)
        if not merge:
            store.metadata.unbind(document.id)
        store.metadata.bind(document.id, [value.id for value in more])


def _holders(context: Context, metadata_id: str) -> list[DocumentRow]:
    found = map(context.store.documents.find, context.store.metadata.holders(metadata_id))
    return [document for document in found if document is not None]


def _write(context: Context, document: DocumentRow, values: dict[str, object]) -> None:
    context.store.documents.update(
        document.id,
        doc_metadata=json.dumps(values) if values else None,
        updated_at=context.clock.now(),
    )


HANDLERS = (create, list_, rename, delete, list_built_in, set_built_in, assign)
