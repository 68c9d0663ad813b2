"""Request handlers for documents: create, update, list, delete, statuses and files."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, cast

import attrs

from dify_kb.emulator import serializers
from dify_kb.emulator.clocks import to_datetime
from dify_kb.emulator.create_document import create_document, update_document
from dify_kb.emulator.errors import (
    EmulatedError,
    UnvalidatedInputError,
    not_found_error,
    parse_uuid,
)
from dify_kb.emulator.request_context import RequestContext, handles, ignore_body
from dify_kb.emulator.validation import (
    BodyField,
    BodySchema,
    ValidationErrors,
    list_validator,
    string_validator,
)
from dify_kb.models import (
    CreateByFile,
    CreateByText,
    CreatedDocument,
    Document,
    DocumentDetail,
    DocumentIds,
    DocumentStatuses,
    DownloadUrl,
    GetDocument,
    ListDocuments,
    Page,
    StoredFile,
    UpdateByFile,
    UpdateByText,
)
from dify_kb.wire import catalog, codec

from .common_fields import PAGING, build_page, compute_page_bounds
from .document_bodies import (
    MAX_NAME,
    read_create_by_file,
    read_create_by_text,
    read_update_by_file,
    read_update_by_text,
    upload_from_file,
    upload_from_text,
)

if TYPE_CHECKING:
    from dify_kb.emulator.store import DocumentRow

_LIST = BodySchema(
    "DocumentListQuery",
    PAGING | {"keyword": BodyField(string_validator()), "status": BodyField(string_validator())},
)

_METADATA_FIELDS: Final = frozenset({"id", "doc_type", "doc_metadata"})

_DETAIL_FIELDS: Final = frozenset(attribute.name for attribute in attrs.fields(DocumentDetail))

_FIELDS_BY_METADATA: Final = {
    "all": _DETAIL_FIELDS,
    "only": _METADATA_FIELDS,
    "without": _DETAIL_FIELDS - {"doc_type", "doc_metadata"},
}
"""Response fields by value of the query parameter `metadata` (recordings 240 to 243)."""

_ACTIONS: Final = ("enable", "disable", "archive", "un_archive")

_MAX_ZIP_DOCUMENTS: Final = 100
"""Maximum number of documents in one archive (server source)."""


def _read_list(context: RequestContext, raw: object) -> ListDocuments:
    return codec.decode(ListDocuments, _LIST.validate(raw, context.profile))


def _read_get(_: RequestContext, raw: object) -> GetDocument:
    return codec.decode(GetDocument, raw)


def _read_ids(_: RequestContext, raw: object) -> DocumentIds:
    """Parse the ids; no version validates them before the lookup (recordings 383 to 400)."""
    if not isinstance(raw, dict):
        raise UnvalidatedInputError("the body is not an object (1294, 1315)")
    raw_ids = raw.get("document_ids")
    return DocumentIds(document_ids=cast("list[str]", raw_ids or []))


def _check_uuid(value: object, path: tuple[str, ...], problems: ValidationErrors) -> object:
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        problems.add(path, "Input should be a valid UUID", "uuid_parsing", value)
        return value


_ZIP = BodySchema(
    "DocumentBatchDownloadZipPayload",
    {
        "document_ids": BodyField(
            list_validator(_check_uuid, min_length=1, max_length=_MAX_ZIP_DOCUMENTS), required=True
        )
    },
)


def _read_zip(context: RequestContext, raw: object) -> DocumentIds:
    return codec.decode(DocumentIds, _ZIP.validate(raw, context.profile))


@handles(catalog.CREATE_DOCUMENT_BY_TEXT, read_create_by_text)
def create_by_text(context: RequestContext, body: CreateByText) -> CreatedDocument:
    """Create a document from a text, or replace the one with the same name."""
    return create_document(context, upload_from_text(body.name, body.text), body)


@handles(catalog.CREATE_DOCUMENT_BY_FILE, read_create_by_file)
def create_by_file(context: RequestContext, body: CreateByFile) -> CreatedDocument:
    """Create a document from a file, or replace the one with the same name."""
    upload = upload_from_file(context, body.file, replaces=body.duplicate is not False)
    return create_document(context, upload, body)


@handles(catalog.LIST_DOCUMENTS, _read_list)
def list_(context: RequestContext, query: ListDocuments) -> Page[Document]:
    """List documents, newest first (measured)."""
    offset, size = compute_page_bounds(query.page, query.limit)
    status = (query.status or "") if context.profile.has_status_filter else ""
    rows, total = context.store.documents.list_page(
        context.dataset.id,
        query.keyword or "",
        status,
        offset,
        size,
        as_of=context.notes.as_of,
    )
    documents = [
        serializers.serialize_document(context.store, context.profile, context.dataset, row)
        for row in rows
    ]
    return build_page(documents, total, query.page, query.limit)


@handles(catalog.GET_DOCUMENT, _read_get)
def get(context: RequestContext, query: GetDocument) -> DocumentDetail:
    """Return a document, with or without its metadata."""
    metadata = query.metadata if isinstance(query.metadata, str) else "all"
    if metadata not in _FIELDS_BY_METADATA:
        raise EmulatedError(400, "invalid_metadata", f"Invalid metadata value: {metadata}")
    row = context.store.documents.get(context.dataset.id, context.path_parameters["document_id"])
    if row is None:
        raise not_found_error("Document not found.")
    context.notes.response_fields = _FIELDS_BY_METADATA[metadata]
    if context.profile.sends_float_created_at:
        context.notes.float_fields = frozenset({"created_at"})
    return serializers.serialize_document_detail(context.store, context.dataset, row)


@handles(catalog.DELETE_DOCUMENT, ignore_body)
def delete(context: RequestContext, _: None) -> None:
    """Delete a document, unless it is archived (measured)."""
    row = context.store.documents.get(context.dataset.id, context.path_parameters["document_id"])
    if row is None:
        raise not_found_error("Document Not Exists.")
    if row.archived:
        message = "The archived document is not editable."
        raise EmulatedError(403, "archived_document_immutable", message)
    context.store.delete_document(row.id)


@handles(catalog.GET_INDEXING_STATUS, ignore_body)
def get_indexing_status(context: RequestContext, _: None) -> DocumentStatuses:
    """Return the progress of a batch; a batch replaced by a later create is not found."""
    rows = context.store.documents.list_by_batch(
        context.dataset.id, context.path_parameters["batch"]
    )
    if not rows:
        raise not_found_error("Documents not found.")
    return DocumentStatuses(
        data=[serializers.serialize_document_status(context.store, row) for row in rows]
    )


@handles(catalog.UPDATE_DOCUMENT_BY_TEXT, read_update_by_text)
def update_by_text(context: RequestContext, body: UpdateByText) -> CreatedDocument:
    """Replace the text of a document, or only its process rule; also set its name (measured)."""
    upload = None if context.notes.rule_only else upload_from_text(body.name, body.text or "")
    name = body.name[:MAX_NAME] or None
    return update_document(context, context.path_parameters["document_id"], upload, body, name=name)


@handles(catalog.UPDATE_DOCUMENT_BY_FILE, read_update_by_file)
def update_by_file(context: RequestContext, body: UpdateByFile) -> CreatedDocument:
    """Replace the file of a document; `name` in the data overrides the file name."""
    upload = None if context.notes.rule_only else upload_from_file(context, body.file)
    return update_document(
        context, context.path_parameters["document_id"], upload, body, name=body.name or None
    )


@handles(catalog.SET_DOCUMENT_STATUS, _read_ids)
def set_status(context: RequestContext, body: DocumentIds) -> None:
    """Change the status of all given documents, or of none (measured)."""
    if not body.document_ids:
        return
    action = context.path_parameters["action"]
    if action not in _ACTIONS:
        message = f"Invalid action: {action}. Must be one of {[*_ACTIONS]}"
        raise EmulatedError(400, "invalid_action", message)
    store = context.store
    with store.transaction():
        requested_rows = [
            store.documents.get(context.dataset.id, parse_uuid(document_id))
            for document_id in body.document_ids
        ]
        rows = [row for row in requested_rows if row is not None]
        changes = [(row, _collect_status_changes(context, action, row)) for row in rows]
        for row, change in changes:
            if not change:
                continue
            until = context.clock.now() + context.settings.status_lock
            store.documents.update(row.id, **change, locked_until=until)
            is_searchable = _will_be_searchable(row, change)
            if is_searchable is not None:
                store.set_segments_enabled(row.id, enabled=is_searchable, now=context.clock.now())


def _collect_status_changes(
    context: RequestContext, action: str, row: DocumentRow
) -> dict[str, object]:
    """Return the columns that an action changes; empty if the status is already set."""
    now = context.clock.now()
    if now < row.locked_until:
        message = f"Document:{row.name} is being indexed, please try again later"
        raise EmulatedError(400, "invalid_action", message)
    match action:
        case "enable" if not row.enabled:
            return {"enabled": 1, "disabled_at": None, "updated_at": now}
        case "disable" if row.indexing_status != "completed":
            message = f"Document: {row.name} is not completed."
            raise EmulatedError(400, "invalid_action", message)
        case "disable" if row.enabled:
            return {"enabled": 0, "disabled_at": now, "updated_at": now}
        case "archive" if not row.archived:
            return {"archived": 1, "updated_at": now}
        case "un_archive" if row.archived:
            return {"archived": 0, "updated_at": now}
        case _:
            return {}


def _will_be_searchable(row: DocumentRow, change: dict[str, object]) -> bool | None:
    """Return whether a change makes a document searchable; None if that does not change.

    Archiving removes an enabled document from the index once, and un_archive adds it again. Content
    indexed in between is therefore found, although the document is archived (measured).
    """
    if "enabled" in change:
        return bool(change["enabled"])
    if row.indexing_status != "completed" or not row.enabled:
        return None
    return not change["archived"]


@handles(catalog.GET_UPLOAD_FILE, ignore_body)
def get_upload_file(context: RequestContext, _: None) -> StoredFile:
    """Return the details of a document's file, with signed URLs (recording 1101)."""
    row = _require_document_by_id(context, context.path_parameters["document_id"])
    return StoredFile(
        id=row.file_id,
        name=row.file_name,
        size=row.file_size,
        extension=row.file_extension,
        url=_sign_url(context, row),
        download_url=_sign_url(context, row, attachment=True),
        mime_type=row.file_mime_type,
        created_by=context.store.account,
        created_at=to_datetime(row.file_created_at),
    )


@handles(catalog.GET_DOWNLOAD_URL, ignore_body)
def get_download_url(context: RequestContext, _: None) -> DownloadUrl:
    """Return a signed URL of a document's file."""
    row = _require_document_by_id(context, context.path_parameters["document_id"])
    return DownloadUrl(url=_sign_url(context, row, attachment=True))


@handles(catalog.DOWNLOAD_ZIP, _read_zip)
def download_zip(context: RequestContext, body: DocumentIds) -> bytes:
    """Return a ZIP archive of documents' files; an unknown id fails the whole request."""
    rows = [
        _require_document_by_id(context, document_id)
        for document_id in dict.fromkeys(body.document_ids)
    ]
    buffer, name_counts = io.BytesIO(), Counter[str]()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            name = PurePath(row.file_name)
            suffix = f" ({name_counts[row.file_name]})" if name_counts[row.file_name] else ""
            name_counts[row.file_name] += 1
            content = context.store.documents.get_content(row.id) or b""
            archive.writestr(f"{name.stem}{suffix}{name.suffix}", content)
    return buffer.getvalue()


def _require_document_by_id(context: RequestContext, document_id: str) -> DocumentRow:
    row = context.store.documents.get(context.dataset.id, document_id)
    if row is None:
        raise not_found_error("Document not found.")
    return row


def _sign_url(context: RequestContext, row: DocumentRow, *, attachment: bool = False) -> str:
    now = context.clock.now()
    return context.signed_urls.create(
        str(context.url.origin()), row.file_id, now, attachment=attachment
    )


HANDLERS = (
    create_by_text,
    create_by_file,
    list_,
    get,
    delete,
    get_indexing_status,
    update_by_text,
    update_by_file,
    set_status,
    get_upload_file,
    get_download_url,
    download_zip,
)
