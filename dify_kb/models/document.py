"""Documents: what is uploaded, and how far its indexing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from attrs import field, frozen

from ._base import UNSET, OpenEnum, Unset
from .dataset import DocForm, IndexingTechnique
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
"""What create-by-file takes with the default extractor; any case (recordings 187 to 204)."""


class IndexingStatus(OpenEnum):
    """How far the worker is. `completed` and `error` are final until the next call."""

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
        """Whether the worker is done with the document."""
        return self in {IndexingStatus.COMPLETED, IndexingStatus.ERROR}


class DisplayStatus(OpenEnum):
    """What the console shows."""

    QUEUING = "queuing"
    INDEXING = "indexing"
    PAUSED = "paused"
    ERROR = "error"
    AVAILABLE = "available"
    DISABLED = "disabled"
    ARCHIVED = "archived"


@frozen(kw_only=True)
class File:
    """What a multipart file part is made of, opened afresh for each attempt.

    `content` is a path, the bytes, or a binary file that can seek, read from `start`. `size` is
    what will be promised to the server, in bytes; None is that of the path when it is first opened.
    """

    name: str
    content: Path | bytes | BinaryIO = field(repr=False)
    size: int | None = None
    start: int = 0


@frozen(kw_only=True)
class UploadFile:
    """The stored file of a document; `size` in bytes."""

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
    """Where a document came from: the id of its file, or (in `documents.get`) the file itself."""

    upload_file_id: str | None = None
    upload_file: UploadFile | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class SourceDetail:
    """The stored file, in lists and in answers to create."""

    upload_file: UploadFile | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Document:
    """A document, as lists and creates answer it. `word_count` counts characters.

    `indexing_status` alone tells how far it is: after a re-index by the same name, `error`,
    `word_count` and the times stay those of the run before until the worker overwrites them
    (issue 27763 of Dify). Checked against recordings of 1.4.3, 1.8.1 and 1.12.1.
    """

    id: str
    name: str
    position: int
    data_source_type: str
    data_source_info: SourceInfo | None
    dataset_process_rule_id: str | None
    created_from: str
    created_by: str
    created_at: datetime
    tokens: int | None
    indexing_status: IndexingStatus
    error: str | None
    enabled: bool
    disabled_at: datetime | None
    disabled_by: str | None
    archived: bool
    display_status: DisplayStatus | None
    word_count: int | None
    hit_count: int | None
    doc_form: DocForm | None
    doc_metadata: Sequence[Mapping[str, object]] | None
    data_source_detail_dict: SourceDetail | None = None
    summary_index_status: str | None = None
    need_summary: bool | None = None
    extra: Mapping[str, object] = field(factory=dict)

    @property
    def upload_file(self) -> UploadFile | None:
        """The stored file, wherever this answer holds it."""
        if self.data_source_detail_dict and self.data_source_detail_dict.upload_file:
            return self.data_source_detail_dict.upload_file
        return self.data_source_info.upload_file if self.data_source_info else None


@frozen(kw_only=True)
class DocumentDetail:
    """One document in full; since 1.8 (1.4.3 answers 405). Checked against recording 129."""

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
    summary_index_status: str | None = None
    need_summary: bool | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class CreatedDocument:
    """Answer of a create. `batch` is told nowhere else and asks for the indexing status."""

    document: Document
    batch: str


@frozen(kw_only=True)
class CreateByText:
    """Request: a document from a text. The server insists on `indexing_technique`."""

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
    """Request: a document from a file. All but `file` travels as JSON in the form field `data`."""

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
    """Query of the document list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
    status: DisplayStatus | Unset = UNSET


@frozen(kw_only=True)
class GetDocument:
    """Query of one document: `metadata` is all, only or without."""

    metadata: str | Unset = UNSET


@frozen(kw_only=True)
class DocumentStatus:
    """How far a document's indexing is. Segments are counted; times are of the current run once
    `indexing_status` has left `waiting`.
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
    stopped_at: datetime | None = None
    completed_segments: int | None = None
    total_segments: int | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class DocumentStatuses:
    """Answer of the indexing status of a batch: one entry, as one create is one batch."""

    data: Sequence[DocumentStatus]


@frozen(kw_only=True)
class UpdateByText:
    """Request: another text for a document; `name` is needed with it."""

    name: str
    text: str
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET


@frozen(kw_only=True)
class UpdateByFile:
    """Request: another file for a document. `name`, in `data`, wins over the file's own."""

    file: File
    name: str | Unset = UNSET
    doc_form: DocForm | Unset = UNSET
    doc_language: str | Unset = UNSET
    process_rule: ProcessRule | Unset = UNSET


@frozen(kw_only=True)
class DocumentIds:
    """Request: the documents that are meant."""

    document_ids: Sequence[str]


@frozen(kw_only=True)
class DownloadUrl:
    """Where a document's file can be fetched, without a key, for some minutes."""

    url: str


@frozen(kw_only=True)
class StoredFile:
    """A document's file, as servers up to 1.8 tell of it (recording 1101)."""

    id: str
    name: str
    size: int
    extension: str
    url: str | None = None
    download_url: str | None = None
    mime_type: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)
