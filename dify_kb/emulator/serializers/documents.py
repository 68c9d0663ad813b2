"""Serialize documents, segments and child chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dify_kb.emulator.clocks import to_datetime, to_optional_whole_seconds, to_whole_seconds
from dify_kb.models import (
    ChildChunk,
    DisplayStatus,
    DocForm,
    Document,
    DocumentDetail,
    DocumentStatus,
    IndexingStatus,
    RecordDocument,
    RecordSegment,
    Segment,
    SegmentStatus,
    SourceDetail,
    SourceInfo,
    UploadFile,
)

from . import metadata

if TYPE_CHECKING:
    from dify_kb.emulator.server_profile import ServerProfile
    from dify_kb.emulator.store import (
        ChildChunkRow,
        DatasetRow,
        DocumentRow,
        RuleRow,
        SegmentRow,
        Store,
    )

_INDEXING_STATUSES = frozenset({"parsing", "cleaning", "splitting", "indexing"})


def serialize_document(
    store: Store, profile: ServerProfile, dataset: DatasetRow, row: DocumentRow
) -> Document:
    """Serialize a document as lists and creates return it."""
    serialize_values = (
        metadata.serialize_document_metadata
        if profile.sends_typed_metadata
        else metadata.serialize_document_metadata_as_text
    )
    return Document(
        id=row.id,
        position=row.position,
        data_source_type="upload_file",
        data_source_info=SourceInfo(upload_file_id=row.file_id),
        data_source_detail_dict=SourceDetail(upload_file=_serialize_file(store, row)),
        dataset_process_rule_id=row.process_rule_id,
        name=row.name,
        created_from=row.created_from,
        created_by=store.account,
        created_at=to_datetime(row.created_at),
        tokens=profile.unset_count if row.tokens is None else row.tokens,
        indexing_status=IndexingStatus(row.indexing_status),
        error=row.error,
        enabled=bool(row.enabled),
        disabled_at=to_optional_whole_seconds(row.disabled_at),
        disabled_by=store.account if row.disabled_at is not None else None,
        archived=bool(row.archived),
        display_status=get_display_status(row),
        word_count=profile.unset_count if row.word_count is None else row.word_count,
        hit_count=0,
        doc_form=DocForm(row.doc_form),
        doc_metadata=serialize_values(store, row) or profile.empty_doc_metadata,
        need_summary=dataset.has_summaries,
    )


def serialize_document_detail(
    store: Store, dataset: DatasetRow, row: DocumentRow
) -> DocumentDetail:
    """Serialize a document with all details."""
    _, segments = store.segments.count_completed_and_all(row.id)
    rule = store.datasets.get_rule(row.process_rule_id)
    latest = store.datasets.get_latest_rule(row.dataset_id)
    return DocumentDetail(
        id=row.id,
        position=row.position,
        data_source_type="upload_file",
        data_source_info=SourceInfo(upload_file=_serialize_file(store, row)),
        dataset_process_rule_id=row.process_rule_id,
        dataset_process_rule=_serialize_rule(latest) if latest else None,
        document_process_rule=_serialize_rule(rule, id=rule.id, dataset_id=rule.dataset_id)
        if rule
        else {},
        name=row.name,
        created_from=row.created_from,
        created_by=store.account,
        created_at=to_datetime(row.created_at),
        tokens=row.tokens,
        indexing_status=IndexingStatus(row.indexing_status),
        completed_at=to_optional_whole_seconds(row.completed_at),
        updated_at=to_whole_seconds(row.updated_at),
        indexing_latency=row.indexing_latency,
        error=row.error,
        enabled=bool(row.enabled),
        disabled_at=to_optional_whole_seconds(row.disabled_at),
        disabled_by=store.account if row.disabled_at is not None else None,
        archived=bool(row.archived),
        segment_count=segments,
        average_segment_length=(row.word_count or 0) // segments if segments else 0,
        hit_count=0,
        display_status=get_display_status(row),
        doc_form=DocForm(row.doc_form),
        doc_language=row.doc_language,
        doc_metadata=metadata.serialize_document_metadata(store, row),
        need_summary=dataset.has_summaries,
    )


def serialize_document_status(store: Store, row: DocumentRow) -> DocumentStatus:
    """Serialize the indexing progress of a document."""
    completed, total = store.segments.count_completed_and_all(row.id)
    return DocumentStatus(
        id=row.id,
        indexing_status=IndexingStatus(row.indexing_status),
        processing_started_at=to_optional_whole_seconds(row.processing_started_at),
        parsing_completed_at=to_optional_whole_seconds(row.parsing_completed_at),
        # The server sets both at the same time (server source).
        cleaning_completed_at=to_optional_whole_seconds(row.splitting_completed_at),
        splitting_completed_at=to_optional_whole_seconds(row.splitting_completed_at),
        completed_at=to_optional_whole_seconds(row.completed_at),
        error=row.error,
        stopped_at=to_optional_whole_seconds(row.stopped_at),
        completed_segments=completed,
        total_segments=total,
        **json.loads(row.error_details or "{}"),
    )


def get_display_status(row: DocumentRow) -> DisplayStatus | None:
    """Return the status that the console displays (server source)."""
    if row.indexing_status == "waiting":
        return DisplayStatus.QUEUING
    if row.indexing_status in _INDEXING_STATUSES:
        return DisplayStatus.INDEXING
    if row.indexing_status == "error":
        return DisplayStatus.ERROR
    if row.archived:
        return DisplayStatus.ARCHIVED
    return DisplayStatus.AVAILABLE if row.enabled else DisplayStatus.DISABLED


def serialize_record_segment(
    store: Store, profile: ServerProfile, row: SegmentRow, parent: DocumentRow
) -> RecordSegment:
    """Serialize a segment as searches return it."""
    return RecordSegment(
        id=row.id,
        position=row.position,
        document_id=row.document_id,
        content=row.content,
        sign_content=row.content if profile.signs_records else None,
        answer=row.answer,
        word_count=row.word_count,
        tokens=row.tokens,
        keywords=json.loads(row.keywords) if row.keywords else profile.empty_items,
        index_node_id=row.index_node_id,
        index_node_hash=row.index_node_hash,
        hit_count=0,
        enabled=True,
        status=row.status,
        created_by=store.account,
        created_at=to_whole_seconds(row.created_at),
        indexing_at=to_optional_whole_seconds(row.indexing_at),
        completed_at=to_optional_whole_seconds(row.completed_at),
        document=RecordDocument(
            id=parent.id,
            name=parent.name,
            data_source_type="upload_file",
            doc_metadata=metadata.read_metadata_values(parent),
        ),
    )


def _serialize_file(store: Store, row: DocumentRow) -> UploadFile:
    return UploadFile(
        id=row.file_id,
        name=row.file_name,
        size=row.file_size,
        extension=row.file_extension,
        mime_type=row.file_mime_type,
        created_by=store.account,
        created_at=to_datetime(row.file_created_at),
    )


def _serialize_rule(row: RuleRow, **ids: str) -> dict[str, object]:
    return {**ids, "mode": row.mode, "rules": json.loads(row.rules)}


def serialize_segment(store: Store, row: SegmentRow) -> Segment:
    """Serialize a segment as the segment endpoints return it."""
    return Segment(
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
        enabled=bool(row.enabled),
        disabled_at=to_optional_whole_seconds(row.disabled_at),
        # Nobody disabled a chunk that failed (2008).
        disabled_by=store.account if row.disabled_at is not None and not row.error else None,
        status=SegmentStatus(row.status),
        created_by=store.account,
        created_at=to_whole_seconds(row.created_at),
        updated_at=to_whole_seconds(row.updated_at or row.created_at),
        updated_by=store.account if row.edited else None,
        indexing_at=to_optional_whole_seconds(row.indexing_at),
        completed_at=to_optional_whole_seconds(row.completed_at),
        error=row.error,
        stopped_at=None,
        child_chunks=_serialize_children(store, row),
        attachments=[],
        summary=row.summary,
    )


def serialize_child_chunk(row: ChildChunkRow) -> ChildChunk:
    """Serialize a child chunk."""
    return ChildChunk(
        id=row.id,
        segment_id=row.segment_id,
        content=row.content,
        position=row.position,
        word_count=len(row.content),
        type=row.type,
        created_at=to_whole_seconds(row.created_at),
        updated_at=to_whole_seconds(row.updated_at),
    )


def _serialize_children(store: Store, row: SegmentRow) -> list[ChildChunk]:
    """Serialize child chunks, which only hierarchical documents in paragraph mode list."""
    parent = store.documents.get_by_id(row.document_id)
    if parent is None or parent.doc_form != DocForm.HIERARCHICAL:
        return []
    rule = store.datasets.get_rule(parent.process_rule_id)
    if rule is None or json.loads(rule.rules).get("parent_mode") == "full-doc":
        return []
    return [serialize_child_chunk(child) for child in store.child_chunks.list_by_segment(row.id)]
