"""Request handlers for metadata fields and the values of documents."""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

from dify_kb.emulator import serializers
from dify_kb.emulator.errors import (
    EmulatedError,
    UnvalidatedInputError,
    invalid_param_error,
    parse_uuid,
)
from dify_kb.emulator.request_context import RequestContext, handles, ignore_body
from dify_kb.emulator.store import DocumentRow, MetadataRow
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    FieldPath,
    LegacyField,
    ValidationErrors,
    accept_any,
    choice_validator,
    list_validator,
    object_validator,
    string_validator,
    validate_boolean,
)
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

_MAX_NAME_LENGTH: Final = 255

_SCALAR_TYPES: Final = (
    ("str", "string", "string_type"),
    ("int", "integer", "int_type"),
    ("float", "number", "float_type"),
)


def _check_scalar(value: object, path: FieldPath, problems: ValidationErrors) -> object:
    """Check a value; servers do not compare it with the type of its field (measured)."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str | int | float):
        for type_name, description, type_ in _SCALAR_TYPES:
            problems.add((*path, type_name), f"Input should be a valid {description}", type_, value)
    return value


_CREATE = BodySchema(
    "MetadataArgs",
    {
        "type": BodyField(
            choice_validator(["string", "number", "time"]),
            required=True,
            legacy=LegacyField(check=accept_any),
        ),
        "name": BodyField(
            string_validator(), required=True, legacy=LegacyField(help="Metadata name")
        ),
    },
)

_RENAME = BodySchema(
    "MetadataUpdatePayload",
    {
        "name": BodyField(
            string_validator(), required=True, legacy=LegacyField(help="Metadata name")
        )
    },
)

_VALUE = object_validator(
    {
        "id": BodyField(string_validator(), required=True),
        "name": BodyField(string_validator(), required=True),
        "value": BodyField(_check_scalar),
    }
)

_OPERATIONS = list_validator(
    object_validator(
        {
            "document_id": BodyField(string_validator(), required=True),
            "metadata_list": BodyField(list_validator(_VALUE), required=True),
            "partial_update": BodyField(validate_boolean),
        }
    )
)

_ASSIGN = BodySchema(
    "MetadataOperationData",
    {
        "operation_data": BodyField(
            _OPERATIONS,
            required=True,
            legacy=LegacyField(
                help="Metadata operation data", pydantic_model="MetadataOperationData"
            ),
        )
    },
)


def _read_create(context: RequestContext, raw: object) -> CreateMetadata:
    # Every version checks the type with pydantic (recording 646).
    fields = _CREATE.validate_with_pydantic(_CREATE.validate(raw, context.profile), context.profile)
    return codec.decode(CreateMetadata, fields)


def _read_rename(context: RequestContext, raw: object) -> RenameMetadata:
    return codec.decode(RenameMetadata, _RENAME.validate(raw, context.profile))


def _read_assign(context: RequestContext, raw: object) -> AssignMetadata:
    fields: dict[str, Any] = _ASSIGN.validate(raw, context.profile)
    for operation in fields["operation_data"]:
        for value in operation["metadata_list"]:
            value.setdefault("value", None)
    return codec.decode(AssignMetadata, fields)


@handles(catalog.CREATE_METADATA, _read_create)
def create(context: RequestContext, body: CreateMetadata) -> MetadataField:
    """Create a field; an empty name is accepted (recording 648)."""
    _check_name(context, body.name)
    if len(body.name) > _MAX_NAME_LENGTH:
        raise ValueError("the metadata name exceeds the database column")
    row = MetadataRow(str(uuid.uuid4()), context.dataset.id, body.type, body.name)
    context.store.metadata.add(row)
    return serializers.serialize_metadata_field(row)


def _check_name(context: RequestContext, name: str) -> None:
    """Refuse an invalid name; the checks are in the server's order."""
    if len(name) > _MAX_NAME_LENGTH and context.profile.quirks.checks_field_length:
        raise invalid_param_error(f"Metadata name cannot exceed {_MAX_NAME_LENGTH} characters.")
    rows = context.store.metadata.list_by_dataset(context.dataset.id)
    if not context.notes.overlooks_name and any(name == row.name for row in rows):
        raise invalid_param_error("Metadata name already exists.")
    if name in serializers.BUILT_IN_FIELD_TYPES:
        raise invalid_param_error("Metadata name already exists in Built-in fields.")


@handles(catalog.LIST_METADATA, ignore_body)
def list_(context: RequestContext, _: None) -> MetadataFields:
    """List the custom fields of a dataset."""
    return serializers.serialize_metadata_fields(context.store, context.dataset)


@handles(catalog.RENAME_METADATA, _read_rename)
def rename(context: RequestContext, body: RenameMetadata) -> MetadataField:
    """Rename a field, also in the documents.

    For an unknown field, every value in the response is null, up to 1.12 (recording 660).
    """
    _check_name(context, body.name)
    store = context.store
    row = store.metadata.get(context.dataset.id, context.path_parameters["metadata_id"])
    # The server swallows the database error about a name that is too long (recording 664).
    if row is None and not context.profile.quirks.sends_null_field:
        raise _build_null_field_error(context)
    if row is None or len(body.name) > _MAX_NAME_LENGTH:
        return MetadataField(
            id="",
            name="",
            type=MetadataType.STRING,
            extra={"id": None, "type": None, "name": None},
        )
    with store.transaction():
        store.metadata.rename(row.id, body.name)
        for document in _documents_with_field(context, row.id):
            values = serializers.read_metadata_values(document) or {}
            if row.name in values:
                values[body.name] = values.pop(row.name)
                _write_values(context, document, values)
    return serializers.serialize_metadata_field(
        MetadataRow(row.id, row.dataset_id, row.type, body.name)
    )


def _build_null_field_error(context: RequestContext) -> EmulatedError:
    """Return the 400 of a server that cannot serialize the field that it did not find."""
    problems = ValidationErrors(context.profile)
    text = "Input should be a valid dictionary or object to extract fields from"
    problems.add((), text, "model_attributes_type", None)
    return problems.to_error("DatasetMetadataResponse")


@handles(catalog.DELETE_METADATA, ignore_body)
def delete(context: RequestContext, _: None) -> None:
    """Delete a field and its values; an unknown id succeeds, too (recording 807)."""
    store = context.store
    row = store.metadata.get(context.dataset.id, context.path_parameters["metadata_id"])
    if row is None:
        return
    with store.transaction():
        for document in _documents_with_field(context, row.id):
            values = serializers.read_metadata_values(document) or {}
            values.pop(row.name, None)
            _write_values(context, document, values)
        store.metadata.delete(row.id)


@handles(catalog.LIST_BUILT_IN_FIELDS, ignore_body)
def list_built_in_fields(_context: RequestContext, _: None) -> BuiltInFields:
    """List the fields that the server fills in."""
    return BuiltInFields(
        fields=[
            BuiltInField(name=name, type=MetadataType(type_))
            for name, type_ in serializers.BUILT_IN_FIELD_TYPES.items()
        ]
    )


@handles(catalog.SET_BUILT_IN_FIELDS, ignore_body)
def set_built_in_fields(context: RequestContext, _: None) -> None:
    """Add the built-in values to all available documents, or remove them.

    Any other action does nothing (recording 741).
    """
    action = context.path_parameters["action"]
    if action not in {"enable", "disable"} or (action == "enable") == bool(
        context.dataset.built_in
    ):
        return
    store = context.store
    with store.transaction():
        store.datasets.update(context.dataset.id, built_in=int(action == "enable"))
        for document in store.documents.list_available(context.dataset.id):
            values = {
                name: value
                for name, value in (serializers.read_metadata_values(document) or {}).items()
                if name not in serializers.BUILT_IN_FIELD_TYPES
            }
            if action == "enable":
                values |= serializers.build_built_in_values(document)
            _write_values(context, document, values)


@handles(catalog.ASSIGN_METADATA, _read_assign)
def assign(context: RequestContext, body: AssignMetadata) -> None:
    """Assign values, one document after another.

    Up to 1.12 an unknown document is skipped silently (recording 703). Later versions refuse it,
    but documents before it keep their new values.
    """
    for operation in body.operation_data:
        if operation.document_id in context.notes.locked_ids:
            raise invalid_param_error(
                "Another document metadata operation is running, please wait a moment."
            )
        document_id = parse_uuid(operation.document_id)
        document = context.store.documents.get(context.dataset.id, document_id)
        if document is not None:
            _assign_values(context, document, operation)
        elif context.profile.quirks.refuses_unknown_document:
            raise invalid_param_error("Document not found.")


def _assign_values(
    context: RequestContext, document: DocumentRow, operation: DocumentMetadata
) -> None:
    store, assignments, quirks = context.store, operation.metadata_list, context.profile.quirks
    if any("\0" in str(value.value) for value in assignments):
        if quirks.ignores_nul_metadata:
            return
        raise UnvalidatedInputError("PostgreSQL stores no NUL in a text")
    merge = bool(operation.partial_update) and quirks.has_partial_update
    values = (serializers.read_metadata_values(document) or {}) if merge else {}
    values |= {value.name: value.value for value in assignments}
    if context.dataset.built_in:
        values |= serializers.build_built_in_values(document)
    with store.transaction():
        _write_values(context, document, values)
        if not merge:
            store.metadata.unbind(document.id)
        ids = [
            value.id if quirks.binds_any_metadata_id else parse_uuid(value.id)
            for value in assignments
        ]
        bound_ids = store.metadata.list_ids(document.id)
        store.metadata.bind(document.id, [id_ for id_ in ids if id_ not in bound_ids])


def _documents_with_field(context: RequestContext, metadata_id: str) -> list[DocumentRow]:
    documents = map(
        context.store.documents.get_by_id, context.store.metadata.document_ids_with(metadata_id)
    )
    return [document for document in documents if document is not None]


def _write_values(
    context: RequestContext, document: DocumentRow, values: dict[str, object]
) -> None:
    changes: dict[str, object] = {"doc_metadata": json.dumps(values) if values else None}
    if context.profile.quirks.touches_document:
        changes["updated_at"] = context.clock.now()
    context.store.documents.update(document.id, **changes)


HANDLERS = (create, list_, rename, delete, list_built_in_fields, set_built_in_fields, assign)
