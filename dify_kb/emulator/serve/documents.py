from __future__ import annotations

from typing import Final

import attrs

from dify_kb.emulator import views
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.intake import take_in
from dify_kb.emulator.payload import Field, Payload, text
from dify_kb.emulator.refused import RefusedError, not_found
from dify_kb.models import (
    CreateByFile,
    CreateByText,
    Document,
    DocumentCreated,
    DocumentDetail,
    DocumentStatuses,
    GetDocument,
    ListDocuments,
    Page,
)
from dify_kb.wire import catalog, codec

from .fields import PAGING, bounds, page_of
from .forms import file_upload, read_file, read_text, text_upload

_LIST = Payload("DocumentListQuery", PAGING | {"keyword": Field(text()), "status": Field(text())})

_METADATA: Final = frozenset({"id", "doc_type", "doc_metadata"})

_FIELDS: Final = frozenset(attribute.name for attribute in attrs.fields(DocumentDetail))

_SHOWN: Final = {
    "all": _FIELDS,
    "only": _METADATA,
    "without": _FIELDS - {"doc_type", "doc_metadata"},
}
"""The fields by the query's `metadata` (recordings 240 to 243)."""


def _read_list(context: Context, raw: object) -> ListDocuments:
    return codec.decode(ListDocuments, _LIST.read(raw, context.profile))


def _read_get(_: Context, raw: object) -> GetDocument:
    return codec.decode(GetDocument, raw)


@serves(catalog.CREATE_DOCUMENT_BY_TEXT, read_text)
def create_by_text(context: Context, body: CreateByText) -> DocumentCreated:
    """Make a document of a text, or replace the one of its name."""
    return take_in(context, text_upload(body.name, body.text), body)


@serves(catalog.CREATE_DOCUMENT_BY_FILE, read_file)
def create_by_file(context: Context, body: CreateByFile) -> DocumentCreated:
    """Make a document of a file, or replace the one of its name."""
    upload = file_upload(context, body.file, replaces=body.duplicate is not False)
    return take_in(context, upload, body)


@serves(catalog.LIST_DOCUMENTS, _read_list)
def list_(context: Context, query: ListDocuments) -> Page[Document]:
    """List documents, the newest first (measured)."""
    offset, size = bounds(query.page, query.limit)
    status = (query.status or "") if context.profile.status_filter else ""
    rows, total = context.store.documents.page(
        context.dataset.id,
        query.keyword or "",
        status,
        offset,
        size,
        as_of=context.notes.as_of,
    )
    documents = [views.document(context.store, context.profile, row) for row in rows]
    return page_of(documents, total, query.page, query.limit)


@serves(catalog.GET_DOCUMENT, _read_get)
def get(context: Context, query: GetDocument) -> DocumentDetail:
    """Show a document, with or without its metadata."""
    metadata = query.metadata if isinstance(query.metadata, str) else "all"
    if metadata not in _SHOWN:
        raise RefusedError(400, "invalid_metadata", f"Invalid metadata value: {metadata}")
    row = context.store.documents.get(context.dataset.id, context.slots["document_id"])
    if row is None:
        raise not_found("Document not found.")
    context.notes.only = _SHOWN[metadata]
    if context.profile.float_created:
        context.notes.floats = frozenset({"created_at"})
    return views.detail(context.store, row)


@serves(catalog.DELETE_DOCUMENT, nothing)
def delete(context: Context, _: None) -> None:
    """Delete a document in any state but archived (measured)."""
    row = context.store.documents.get(context.dataset.id, context.slots["document_id"])
    if row is None:
        raise not_found("Document Not Exists.")
    if row.archived:
        message = "The archived document is not editable."
        raise RefusedError(403, "archived_document_immutable", message)
    context.store.delete_document(row.id)


@serves(catalog.GET_INDEXING_STATUS, nothing)
def indexing_status(context: Context, _: None) -> DocumentStatuses:
    """Show how far a batch is; one that was overtaken by another create is gone."""
    rows = context.store.documents.of_batch(context.dataset.id, context.slots["batch"])
    if not rows:
        raise not_found("Documents not found.")
    return DocumentStatuses(data=[views.status(context.store, row) for row in rows])


HANDLERS = (create_by_text, create_by_file, list_, get, delete, indexing_status)
