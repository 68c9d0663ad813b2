"""Row classes of the tables: the attributes are the columns, in order."""

from __future__ import annotations

import json

from attrs import field, frozen


@frozen
class DatasetRow:
    """A dataset. `retrieval_model` is JSON, `members` a JSON list of ids."""

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
    built_in: int = 0
    """Whether its documents get the built-in metadata fields."""

    pipeline_id: str | None = None

    members: str = "[]"

    embedding_provider: str | None = None
    embedding_model: str | None = None
    """The embedding model of a high-quality dataset, otherwise null."""

    summary_setting: str | None = None
    """The settings of the summary index, as JSON; stored without effect."""

    @property
    def is_high_quality(self) -> bool:
        """Whether segments are searched by vectors, too."""
        return self.indexing_technique == "high_quality"

    @property
    def has_summaries(self) -> bool:
        """Whether its documents get a summary index."""
        setting = json.loads(self.summary_setting or "null")
        return isinstance(setting, dict) and setting.get("enable") is True


@frozen
class RuleRow:
    """A process rule; every create that sends a rule adds another. `rules` is JSON."""

    id: str
    dataset_id: str
    mode: str
    rules: str


@frozen
class DocumentRow:
    """A document and its file. Flags are 0 or 1, times are seconds since the epoch."""

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
    doc_metadata: str | None = None
    """Values by field name, as JSON."""

    locked_until: float = 0.0
    """The time from which its status may be changed again."""

    replaced: int = 0
    """Whether a create of its name has replaced its content."""

    error_details: str | None = None
    """Fields that accompany `error` in the indexing status, as JSON."""


@frozen
class DocumentState:
    """The state of a document: indexing status, flags and segment counts."""

    id: str
    dataset_id: str
    name: str
    status: str
    error: str | None
    enabled: bool = field(converter=bool)
    archived: bool = field(converter=bool)
    batch: str
    file_id: str
    size: int
    """File size in bytes; for a text, its length in characters."""

    chunks: int
    completed: int = field(converter=int)
    """Number of segments that are indexed."""


@frozen
class SegmentRow:
    """A segment. `keywords` is a JSON list; `edited` is 1 after a manual change."""

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
    answer: str | None = None
    enabled: int = 1
    disabled_at: float | None = None
    updated_at: float | None = None
    edited: int = 0
    tokens: int = 0
    error: str | None = None
    summary: str | None = None

    @property
    def word_count(self) -> int:
        """Number of characters of the content and, in Q&A documents, of the answer."""
        return len(self.content) + len(self.answer or "")


@frozen
class ChildChunkRow:
    """A child chunk of a segment."""

    id: str
    segment_id: str
    position: int
    content: str
    type: str
    created_at: float
    updated_at: float


@frozen
class MetadataRow:
    """A metadata field of a dataset."""

    id: str
    dataset_id: str
    type: str
    name: str


@frozen
class TagRow:
    """A tag for datasets."""

    id: str
    name: str


@frozen
class PipelineFileRow:
    """A file uploaded for pipeline runs."""

    id: str
    name: str
    size: int
    extension: str
    mime_type: str | None
    created_at: float
    content: bytes


@frozen
class ExternalApiRow:
    """An external knowledge API: its URL without `/retrieval`, and its key."""

    id: str
    name: str
    endpoint: str
    api_key: str = field(repr=False)


@frozen
class ExternalBindingRow:
    """The API and the knowledge id that an external dataset queries."""

    dataset_id: str
    api_id: str
    knowledge_id: str


@frozen
class DatasetCounts:
    """Totals of a dataset. `words` counts characters."""

    documents: int
    available: int
    words: int
