from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.models import (
    DisplayStatus,
    DocForm,
    Document,
    DocumentDetail,
    DocumentStatus,
    IndexingStatus,
    RecordDocument,
    RecordSegment,
    SourceDetail,
    SourceInfo,
    UploadFile,
)

from . import metadata
from .times import exact, maybe, whole

if TYPE_CHECKING:
    from dify_kb.emulator.profile import Profile
    from dify_kb.emulator.store import DocumentRow, RuleRow, SegmentRow, Store

_INDEXING = frozenset({"parsing", "cleaning", "splitting", "indexing"})


def document(store: Store, profile: Profile, row: DocumentRow) -> Document:
    """Show a document as lists and creates do."""
    return Document(
        id=row.id,
        position=row.position,
        data_source_type="upload_file",
        data_source_info=SourceInfo(upload_file_id=row.file_id),
        data_source_detail_dict=SourceDetail(upload_file=_file(store, row)),
        dataset_process_rule_id=row.process_rule_id,
        name=row.name,
        created_from=row.created_from,
        created_by=store.account,
        created_at=exact(row.created_at),
        tokens=profile.unset_count if row.tokens is None else row.tokens,
        indexing_status=IndexingStatus(row.indexing_status),
        error=row.error,
        enabled=bool(row.enabled),
        disabled_at=maybe(row.disabled_at),
        disabled_by=store.account if row.disabled_at is not None else None,
        archived=bool(row.archived),
        display_status=display_status(row),
        word_count=profile.unset_count if row.word_count is None else row.word_count,
        hit_count=0,
        doc_form=DocForm(row.doc_form),
        doc_metadata=metadata.of_document_as_text(store, row) or profile.no_doc_metadata,
        need_summary=False,
    )


def detail(store: Store, row: DocumentRow) -> DocumentDetail:
    """Show one document in full."""
    _, segments = store.segments.counts(row.id)
    rule = store.datasets.rule(row.process_rule_id)
    latest = store.datasets.latest_rule(row.dataset_id)
    return DocumentDetail(
        id=row.id,
        position=row.position,
        data_source_type="upload_file",
        data_source_info=SourceInfo(upload_file=_file(store, row)),
        dataset_process_rule_id=row.process_rule_id,
        dataset_process_rule=_rule(latest) if latest else None,
        document_process_rule=_rule(rule, id=rule.id, dataset_id=rule.dataset_id) if rule else {},
        name=row.name,
        created_from=row.created_from,
        created_by=store.account,
        created_at=exact(row.created_at),
        tokens=row.tokens,
        indexing_status=IndexingStatus(row.indexing_status),
        completed_at=maybe(row.completed_at),
        updated_at=whole(row.updated_at),
        indexing_latency=row.indexing_latency,
        error=row.error,
        enabled=bool(row.enabled),
        disabled_at=maybe(row.disabled_at),
        disabled_by=store.account if row.disabled_at is not None else None,
        archived=bool(row.archived),
        segment_count=segments,
        average_segment_length=(row.word_count or 0) // segments if segments else 0,
        hit_count=0,
        display_status=display_status(row),
        doc_form=DocForm(row.doc_form),
        doc_language=row.doc_language,
        doc_metadata=metadata.of_document(store, row),
        need_summary=False,
    )


def status(store: Store, row: DocumentRow) -> DocumentStatus:
    """Show how far a document's indexing is."""
    completed, total = store.segments.counts(row.id)
    return DocumentStatus(
        id=row.id,
        indexing_status=IndexingStatus(row.indexing_status),
        processing_started_at=maybe(row.processing_started_at),
        parsing_completed_at=maybe(row.parsing_completed_at),
        # Written together (server source).
        cleaning_completed_at=maybe(row.splitting_completed_at),
        splitting_completed_at=maybe(row.splitting_completed_at),
        completed_at=maybe(row.completed_at),
        error=row.error,
        stopped_at=maybe(row.stopped_at),
        completed_segments=completed,
        total_segments=total,
    )


def display_status(row: DocumentRow) -> DisplayStatus | None:
    """Tell the word of the console (server source)."""
    if row.indexing_status == "waiting":
        return DisplayStatus.QUEUING
    if row.indexing_status in _INDEXING:
        return DisplayStatus.INDEXING
    if row.indexing_status == "error":
        return DisplayStatus.ERROR
    if row.archived:
        return DisplayStatus.ARCHIVED
    return DisplayStatus.AVAILABLE if row.enabled else DisplayStatus.DISABLED


def found_segment(store: Store, row: SegmentRow, of: DocumentRow) -> RecordSegment:
    """Show a chunk as searches do."""
    return RecordSegment(
        id=row.id,
        position=row.position,
        document_id=row.document_id,
        content=row.content,
        sign_content=row.content,
        answer=row.answer,
        word_count=row.word_count,
        tokens=row.tokens,
        keywords=json.loads(row.keywords) if row.keywords else None,
        index_node_id=row.index_node_id,
        index_node_hash=row.index_node_hash,
        hit_count=0,
        enabled=True,
        status=row.status,
        created_by=store.account,
        created_at=whole(row.created_at),
        indexing_at=maybe(row.indexing_at),
        completed_at=maybe(row.completed_at),
        document=RecordDocument(
            id=of.id,
            name=of.name,
            data_source_type="upload_file",
            doc_metadata=metadata.raw(of),
        ),
    )


def _file(store: Store, row: DocumentRow) -> UploadFile:
    return UploadFile(
        id=row.file_id,
        name=row.file_name,
        size=row.file_size,
        extension=row.file_extension,
        mime_type=row.file_mime_type,
        created_by=store.account,
        created_at=exact(row.file_created_at),
    )


def _rule(row: RuleRow, **ids: str) -> dict[str, object]:
    return {**ids, "mode": row.mode, "rules": json.loads(row.rules)}
