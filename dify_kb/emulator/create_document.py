"""Create, replace and update documents, then queue them for indexing."""

from __future__ import annotations

import json
import secrets
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

import attrs
from attrs import frozen

from dify_kb.models import (
    UNSET,
    CreateByFile,
    CreateByText,
    CreatedDocument,
    DisplayStatus,
    ProcessRule,
    UpdateByFile,
    UpdateByText,
)
from dify_kb.wire import codec

from . import serializers, stub_models
from .errors import invalid_param_error, not_found_error
from .store import DocumentRow, RuleRow

if TYPE_CHECKING:
    from .request_context import RequestContext

_AUTOMATIC_RULES: Final = {
    "pre_processing_rules": [
        {"id": "remove_extra_spaces", "enabled": True},
        {"id": "remove_urls_emails", "enabled": False},
    ],
    "segmentation": {"delimiter": "\n", "max_tokens": 500, "chunk_overlap": 50},
}
"""The rules that the server stores for mode `automatic` (recording 129)."""


@frozen(kw_only=True)
class DocumentUpload:
    """An uploaded document; with `replaces` it replaces a document of the same name."""

    name: str
    content: bytes
    size: int
    extension: str
    mime_type: str | None
    replaces: bool = True


def create_document(
    context: RequestContext, upload: DocumentUpload, body: CreateByText | CreateByFile
) -> CreatedDocument:
    """Store and queue a document; a document of the same name is replaced in place (measured)."""
    store, dataset = context.store, context.dataset
    with store.transaction():
        _validate_request(context, body)
        if context.notes.replaced_document_id is not None:
            return update_document(context, context.notes.replaced_document_id, upload, body)
        rule = _resolve_process_rule(context, body)
        _initialize_dataset(context, body)
        row = _build_row(context, upload, body, rule)
        if dataset.built_in:
            row = attrs.evolve(row, doc_metadata=json.dumps(serializers.build_built_in_values(row)))
        old = _find_replaced(context, upload)
        if old is None:
            store.documents.add(row, upload.content)
        else:
            row = _replace_document(context, old, row, upload.content)
    _record_notes(context, row, old)
    context.enqueue(row.id)
    return CreatedDocument(
        document=serializers.serialize_document(store, context.profile, dataset, row),
        batch=row.batch,
    )


def update_document(
    context: RequestContext,
    document_id: str,
    upload: DocumentUpload | None,
    body: CreateByText | CreateByFile | UpdateByText | UpdateByFile,
    *,
    name: str | None = None,
) -> CreatedDocument:
    """Replace the text or the process rule of a document; its batch id stays (measured).

    Searches stop finding the old content immediately. A create of the same name differs: the old
    content is found until the indexer starts (measured, all versions).
    """
    store, dataset, now = context.store, context.dataset, context.clock.now()
    with store.transaction():
        _check_doc_form(context, body)
        old = store.documents.get(dataset.id, document_id)
        if old is None:
            raise not_found_error("Document not found")
        if serializers.get_display_status(old) != DisplayStatus.AVAILABLE:
            raise invalid_param_error("Document is not available")
        changes = dict.fromkeys(_CLEARED_COLUMNS) | {
            "indexing_status": "waiting",
            "updated_at": now,
        }
        changes |= {"created_from": "web", "doc_form": body.doc_form or "text_model"}
        if body.process_rule:
            changes["process_rule_id"] = _resolve_process_rule(context, body).id
        if upload is not None:
            changes |= _file_columns(upload, now)
            store.documents.set_content(old.id, upload.content)
        if name:
            changes["name"] = name
        store.documents.update(old.id, **changes)
        chunks = store.retire_segments(old.id)
        row = store.documents.get_by_id(old.id) or old
        _record_notes(context, row, old)
    context.enqueue(row.id, hangs=_update_hangs(context) and chunks > 0)
    return CreatedDocument(
        document=serializers.serialize_document(store, context.profile, dataset, row),
        batch=row.batch,
    )


def _record_notes(context: RequestContext, row: DocumentRow, old: DocumentRow | None) -> None:
    notes = context.notes
    notes.document_id, notes.file_id = row.id, row.file_id
    notes.replaced_status = None if old is None else old.indexing_status


_CLEARED_COLUMNS: Final = (
    "processing_started_at", "parsing_completed_at", "splitting_completed_at", "completed_at",
)  # fmt: skip
"""Columns that an update clears immediately, unlike a create of the same name."""


def _update_hangs(context: RequestContext) -> bool:
    return context.profile.update_hangs and context.settings.update_hangs


def _file_columns(upload: DocumentUpload, now: float) -> dict[str, object]:
    return {
        "name": upload.name,
        "file_id": str(uuid.uuid4()),
        "file_name": upload.name,
        "file_size": upload.size,
        "file_extension": upload.extension,
        "file_mime_type": upload.mime_type,
        "file_created_at": now,
    }


def _validate_request(context: RequestContext, body: CreateByText | CreateByFile) -> None:
    dataset = context.dataset
    if dataset.provider == "external" and isinstance(body, CreateByFile):
        # A text is accepted (2136, 2137).
        raise invalid_param_error("External datasets are not supported.")
    stub_models.check_provider(context, body.embedding_model_provider, body.embedding_model or "-")
    stub_models.check_reranking_model(context, body.retrieval_model)
    _check_doc_form(context, body)
    if not dataset.indexing_technique and body.indexing_technique == "high_quality":
        _select_embedding_model(context, body)


def _check_doc_form(
    context: RequestContext, body: CreateByText | CreateByFile | UpdateByText | UpdateByFile
) -> None:
    """Refuse a form unlike that of the dataset's documents, also for updates (157, 1398)."""
    doc_form = context.store.datasets.get_doc_form(context.dataset.id)
    other = doc_form and doc_form != (body.doc_form or "text_model")
    if other and context.profile.checks_doc_form:
        raise invalid_param_error("doc_form is different from the dataset doc_form.")


def _select_embedding_model(
    context: RequestContext, body: CreateByText | CreateByFile
) -> tuple[str, str]:
    return stub_models.select_embedding_model(
        context,
        body.embedding_model_provider,
        body.embedding_model,
        code="provider_not_initialize",
    )


def _resolve_process_rule(
    context: RequestContext, body: CreateByText | CreateByFile | UpdateByText | UpdateByFile
) -> RuleRow:
    """Return the rule of a request, the dataset's latest rule, or for a text an automatic one.

    A rule from a request becomes the dataset's latest rule (measured).
    """
    datasets = context.store.datasets
    sent = body.process_rule
    by_text = not isinstance(body, CreateByFile)
    if sent is UNSET and by_text and not context.profile.has_default_rule:
        raise LookupError("a text needs a process rule")
    if sent is UNSET:
        latest = datasets.get_latest_rule(context.dataset.id)
        if latest is not None:
            return latest
        if not by_text:
            raise invalid_param_error("process_rule is required.")
        sent = ProcessRule.automatic()
    rule = RuleRow(str(uuid.uuid4()), context.dataset.id, sent.mode, _rules_to_json(sent))
    datasets.add_rule(rule)
    return rule


def _rules_to_json(rule: ProcessRule) -> str:
    """Return the rules as JSON, with null for fields that were not sent (recording 153)."""
    if not rule.rules:
        return json.dumps(_AUTOMATIC_RULES)
    sent = cast("dict[str, object]", codec.encode(rule.rules))
    return json.dumps(dict.fromkeys(("parent_mode", "subchunk_segmentation")) | sent)


def _initialize_dataset(context: RequestContext, body: CreateByText | CreateByFile) -> None:
    """Set the dataset fields that the first document determines."""
    dataset = context.dataset
    changes: dict[str, object] = {}
    if not dataset.data_source_type:
        changes["data_source_type"] = "upload_file"
    if not dataset.indexing_technique:
        changes["indexing_technique"] = body.indexing_technique
        if body.indexing_technique == "high_quality":
            names = ("embedding_provider", "embedding_model")
            changes |= zip(names, _select_embedding_model(context, body), strict=True)
        if body.retrieval_model and not dataset.retrieval_model:
            changes["retrieval_model"] = json.dumps(codec.encode(body.retrieval_model))
    if changes:
        context.store.datasets.update(dataset.id, **changes, updated_at=context.clock.now())


def _build_row(
    context: RequestContext,
    upload: DocumentUpload,
    body: CreateByText | CreateByFile,
    rule: RuleRow,
) -> DocumentRow:
    now = context.clock.now()
    return DocumentRow(
        id=str(uuid.uuid4()),
        dataset_id=context.dataset.id,
        position=context.store.documents.next_position(context.dataset.id),
        name=upload.name,
        batch=_create_batch_id(now),
        process_rule_id=rule.id,
        created_from="api",
        # Rounded, so up to half a second in the future (measured).
        created_at=round(now),
        updated_at=now,
        doc_form=body.doc_form or "text_model",
        doc_language=body.doc_language or "English",
        file_id=str(uuid.uuid4()),
        file_name=upload.name,
        file_size=upload.size,
        file_extension=upload.extension,
        file_mime_type=upload.mime_type,
        file_created_at=now,
    )


def _find_replaced(context: RequestContext, upload: DocumentUpload) -> DocumentRow | None:
    """Return the document that a create replaces, if any.

    Of several it is the newest. 1.4 takes the first in storage, which is the oldest unless it was
    replaced before (measured; 178).
    """
    if not upload.replaces:
        return None
    documents, dataset_id = context.store.documents, context.dataset.id
    if context.profile.replaces_as_stored:
        oldest = documents.get_by_name(dataset_id, upload.name, oldest=True)
        if oldest is not None and not oldest.replaced:
            return oldest
    return documents.get_by_name(dataset_id, upload.name)


_REPLACED_COLUMNS: Final = (
    "batch", "process_rule_id", "created_from", "updated_at", "doc_form", "doc_language",
    "file_id", "file_name", "file_size", "file_extension", "file_mime_type", "file_created_at",
    "indexing_status",
)  # fmt: skip
"""Columns that a create of the same name changes. All others, such as the times and the error of
the previous run, stay until the indexer overwrites them (server source)."""


def _replace_document(
    context: RequestContext, old: DocumentRow, new: DocumentRow, content: bytes
) -> DocumentRow:
    documents = context.store.documents
    changes = {name: getattr(new, name) for name in _REPLACED_COLUMNS}
    documents.update(old.id, **changes, replaced=1)
    documents.set_content(old.id, content)
    return documents.get_by_id(old.id) or old


def _create_batch_id(now: float) -> str:
    """Create a batch id: the UTC time to the second and six random digits (measured)."""
    second = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%S")
    return f"{second}{100_000 + secrets.randbelow(900_000)}"
