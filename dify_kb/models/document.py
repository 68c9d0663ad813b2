"""Documents, their files, and their indexing status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal

from attrs import field, frozen

from ._base import UNSET, OpenEnum, Unset
from .dataset import DocForm, IndexingTechnique
from .metadata import MetadataScalar, read_values
from .process_rule import ProcessRule
from .retrieval import RetrievalModel

DOCUMENT_EXTENSIONS = frozenset(
    [
        "txt",
        "markdown",
        "md",
        "mdx",
        "pdf",
        "html",
        "htm",
        "xlsx",
        "xls",
        "docx",
        "csv",
        "vtt",
        "properties",
    ]
)
"""The extensions that create-by-file accepts by default, ignoring case (recordings 187 to 204)."""


class IndexingStatus(OpenEnum):
    """The indexing status of a document. `completed` and `error` are final until it changes."""

    WAITING = "waiting"
    PARSING = "parsing"
    CLEANING = "cleaning"
    SPLITTING = "splitting"
    INDEXING = "indexing"
    PAUSED = "paused"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def is_final(self) -> bool:
        """Whether indexing has finished, successfully or not."""
        return self in {IndexingStatus.COMPLETED, IndexingStatus.ERROR}


class DisplayStatus(OpenEnum):
    """The status of a document as shown in the console."""

    QUEUING = "queuing"
    INDEXING = "indexing"
    PAUSED = "paused"
    ERROR = "error"
    AVAILABLE = "available"
    DISABLED = "disabled"
    ARCHIVED = "archived"


class SummaryIndexStatus(OpenEnum):
    """The state of a document's summaries; None when they are done or not wanted."""

    SUMMARIZING = "SUMMARIZING"


class IndexingErrorCode(OpenEnum):
    """The code of an indexing error, sent by Dify Cloud since 1.16 next to the message."""

    VECTOR_SPACE_ESTIMATE_EXCEEDED = "vector_space_estimate_exceeded"
    """The document does not fit into the vector space of the plan."""


DisplayStatusName = Literal[
    "queuing", "indexing", "paused", "error", "available", "disabled", "archived"
]
"""The values of `DisplayStatus`."""

MetadataSelection = Literal["all", "only", "without"]
"""The parts of a document that `documents.get` returns: all, only metadata, or the rest."""


@frozen(kw_only=True)
class File:
    """A file to upload, opened anew for each attempt.

    `content` is a path, bytes, or a binary file object, which is read from `start`. `size` is in
    bytes; None uses the size when it is first opened, and the current position of a file object.
    """

    name: str
    content: Path | bytes | BinaryIO = field(repr=False)
    size: int | None = None
    start: int = 0


@frozen(kw_only=True)
class UploadFile:
    """The stored file of a document; `size` is in bytes."""

    id: str
    name: str | None = None
    size: int | None = None
    extension: str | None = None
    mime_type: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class SourceInfo:
    """The source of a document: the id of its file, or, in `documents.get`, the file itself."""

    upload_file_id: str | None = None
    upload_file: UploadFile | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class SourceDetail:
    """The stored file of a document, in lists and in responses to a create."""

    upload_file: UploadFile | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Document:
    """A document, as returned by lists and creates. `word_count` is in characters.

    Rely only on `indexing_status` for progress: when a document is indexed again, `error`,
    `word_count` and the times keep their old values until the worker overwrites them (Dify issue
    27763). Only ids, name and statuses are certain; other fields may be None. Checked against
    recordings of 1.4.3, 1.8.1, 1.12.1 and 1.14.2.
    """

    id: str
    name: str
    position: int | None = None
    data_source_type: str | None = None
    data_source_info: SourceInfo | None = None
    dataset_process_rule_id: str | None = None
    created_from: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    tokens: int | None = None
    indexing_status: IndexingStatus
    error: str | None = None
    enabled: bool
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    archived: bool | None = None
    display_status: DisplayStatus | None = None
    word_count: int | None = None
    hit_count: int | None = None
    doc_form: DocForm | None = None
    doc_metadata: Sequence[Mapping[str, object]] | None = None
    data_source_detail_dict: SourceDetail | None = None
    summary_index_status: SummaryIndexStatus | None = None
    need_summary: bool | None = None
    extra: Mapping[str, object] = field(factory=dict)

    @property
    def is_archived(self) -> bool:
        """Whether the document is archived, by its display status if `archived` is None."""
        if self.archived is None:
            return self.display_status is DisplayStatus.ARCHIVED
        return self.archived

    @property
    def metadata_values(self) -> Mapping[str, MetadataScalar]:
        """The metadata values by field name, typed by their fields.

        `doc_metadata` has them as the server sends them: up to 1.12.1, all as text.
        """
        return {value.name: value.value for value in read_values(self.doc_metadata, parse=True)}

    @property
    def upload_file(self) -> UploadFile | None:
        """The stored file, from either of the two fields that may contain it."""
        if self.data_source_detail_dict and self.data_source_detail_dict.upload_file:
            return self.data_source_detail_dict.upload_file
        return self.data_source_info.upload_file if self.data_source_info else None


@frozen(kw_only=True)
class DocumentDetail:
    """A document with all its fields; since 1.8 (1.4.3 returns 405). Checked with recording 129."""

    id: str
    name: str | None = None
    position: int | None = None
    data_source_type: str | None = None
    data_source_info: SourceInfo | None = None
    dataset_process_rule_id: str | None = None
    dataset_process_rule: Mapping[str, object] | None = None
    document_process_rule: Mapping[str, object] | None = None
    created_from: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    tokens: int | None = None
    indexing_status: IndexingStatus | None = None
    completed_at: datetime | None = None
    updated_at: datetime | None = None
    indexing_latency: float | None = None
    error: str | None = None
    enabled: bool | None = None
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    archived: bool | None = None
    doc_type: str | None = None
    doc_metadata: Sequence[Mapping[str, object]] | None = None
    segment_count: int | None = None
    average_segment_length: float | None = None
    hit_count: int | None = None
    display_status: DisplayStatus | None = None
    doc_form: DocForm | None = None
    doc_language: str | None = None
    summary_index_status: SummaryIndexStatus | None = None
    need_summary: bool | None = None
    extra: Mapping[str, object] = field(factory=dict)

    @property
    def metadata_values(self) -> Mapping[str, MetadataScalar]:
        """The metadata values by field name."""
        return {value.name: value.value for value in read_values(self.doc_metadata, parse=False)}


@frozen(kw_only=True)
class CreatedDocument:
    """The response to a create. `batch` is required by `documents.indexing_status`."""

    document: Document
    batch: str


@frozen(kw_only=True)
class CreateByText:
    """The request body to create a document from a text. Requires `indexing_technique`."""

    name: str
    text: str
    indexing_technique: IndexingTechnique | Unset = UNSET
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET
    retrieval_model: RetrievalModel | Unset = UNSET
    embedding_model: str | Unset = UNSET
    embedding_model_provider: str | Unset = UNSET


@frozen(kw_only=True)
class CreateByFile:
    """The multipart request to create a document from a file; other fields are sent as JSON."""

    file: File
    indexing_technique: IndexingTechnique | Unset = UNSET
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET
    retrieval_model: RetrievalModel | Unset = UNSET
    embedding_model: str | Unset = UNSET
    embedding_model_provider: str | Unset = UNSET
    duplicate: bool | Unset = UNSET


@frozen(kw_only=True)
class ListDocuments:
    """The query parameters of the document list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
    status: DisplayStatus | Unset = UNSET


@frozen(kw_only=True)
class GetDocument:
    """The query parameters of `documents.get`; `metadata` is all, only or without."""

    metadata: str | Unset = UNSET


@frozen(kw_only=True)
class DocumentStatus:
    """The indexing progress of a document, with numbers of segments.

    The times belong to the current run once `indexing_status` is no longer `waiting`.
    `estimated_vector_space_mb` and `vector_space_limit_mb` come with an `error_code`, in MiB.
    """

    id: str
    indexing_status: IndexingStatus
    processing_started_at: datetime | None = None
    parsing_completed_at: datetime | None = None
    cleaning_completed_at: datetime | None = None
    splitting_completed_at: datetime | None = None
    completed_at: datetime | None = None
    paused_at: datetime | None = None
    error: str | None = None
    error_code: IndexingErrorCode | None = None
    estimated_vector_space_mb: int | None = None
    vector_space_limit_mb: int | None = None
    stopped_at: datetime | None = None
    completed_segments: int | None = None
    total_segments: int | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class DocumentStatuses:
    """The indexing status of a batch; one entry, as each create has its own batch."""

    data: Sequence[DocumentStatus]


@frozen(kw_only=True)
class UpdateByText:
    """The request body to replace a document's text, or without a text its name and rule."""

    name: str
    text: str | Unset = UNSET
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET


@frozen(kw_only=True)
class UpdateByFile:
    """The multipart request to replace a document's file; `name` overrides the file's name."""

    file: File
    name: str | Unset = UNSET
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET


@frozen(kw_only=True)
class DocumentIds:
    """The request body of an operation on several documents."""

    document_ids: Sequence[str]


@frozen(kw_only=True)
class DownloadUrl:
    """The download URL of a document's file; needs no API key, valid for some minutes."""

    url: str


@frozen(kw_only=True)
class StoredFile:
    """A document's file, as returned by servers up to 1.8 (recording 1101)."""

    id: str
    name: str
    size: int | None = None
    extension: str | None = None
    url: str | None = None
    download_url: str | None = None
    mime_type: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)
