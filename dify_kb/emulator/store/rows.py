"""Rows as values: the attributes are the columns, in their order."""

from __future__ import annotations

from attrs import frozen


@frozen
class DatasetRow:
    """A knowledge base. `retrieval_model` is JSON."""

    id: str
    name: str
    description: str | None
    provider: str
    permission: str
    data_source_type: str | None
    indexing_technique: str | None
    retrieval_model: str | None
    created_at: float
    updated_at: float


@frozen
class RuleRow:
    """A process rule; every create that sends one makes another. `rules` is JSON."""

    id: str
    dataset_id: str
    mode: str
    rules: str


@frozen
class DocumentRow:
    """A document and its file. Flags are 0 or 1, times seconds since the epoch."""

    id: str
    dataset_id: str
    position: int
    name: str
    batch: str
    process_rule_id: str
    created_from: str
    created_at: int
    updated_at: float
    doc_form: str
    doc_language: str
    file_id: str
    file_name: str
    file_size: int
    file_extension: str
    file_mime_type: str | None
    file_created_at: float
    indexing_status: str = "waiting"
    processing_started_at: float | None = None
    parsing_completed_at: float | None = None
    splitting_completed_at: float | None = None
    completed_at: float | None = None
    indexing_latency: float | None = None
    stopped_at: float | None = None
    error: str | None = None
    tokens: int | None = None
    word_count: int | None = None
    enabled: int = 1
    disabled_at: float | None = None
    archived: int = 0


@frozen
class SegmentRow:
    """A chunk. `keywords` is a JSON list."""

    id: str
    dataset_id: str
    document_id: str
    position: int
    content: str
    keywords: str | None
    index_node_id: str
    index_node_hash: str
    status: str
    created_at: float
    indexing_at: float | None = None
    completed_at: float | None = None


@frozen
class Counts:
    """What a dataset holds. `words` counts characters."""

    documents: int
    available: int
    words: int
