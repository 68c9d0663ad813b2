"""Segments: the chunks of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor

from ._base import UNSET, OpenEnum, Unset
from .child_chunk import ChildChunk
from .dataset import DocForm


class SegmentStatus(OpenEnum):
    """The indexing status of a chunk."""

    WAITING = "waiting"
    INDEXING = "indexing"
    COMPLETED = "completed"
    ERROR = "error"
    RE_SEGMENT = "re_segment"


SegmentStatusName = Literal["waiting", "indexing", "completed", "error", "re_segment"]
"""The values of `SegmentStatus`."""


@frozen(kw_only=True)
class Segment:
    """A chunk. `word_count` is in characters. Checked against recordings 500 to 560."""

    id: str
    document_id: str | None = None
    position: int | None = None
    content: str
    answer: str | None = None
    word_count: int | None = None
    tokens: int | None = None
    keywords: Sequence[str] | None = None
    index_node_id: str | None = None
    index_node_hash: str | None = None
    hit_count: int | None = None
    enabled: bool | None = None
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    status: SegmentStatus
    created_by: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    updated_by: str | None = None
    indexing_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    stopped_at: datetime | None = None
    sign_content: str | None = None
    child_chunks: Sequence[ChildChunk] | None = None
    attachments: Sequence[Mapping[str, object]] | None = None
    summary: str | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class SegmentResponse:
    """The response to a get or an update: one chunk."""

    data: Segment
    doc_form: DocForm | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class CreatedSegments:
    """The response to a create: the new chunks, in the order of the request."""

    data: Sequence[Segment]
    doc_form: DocForm | None = None
    extra: Mapping[str, object] = field(factory=dict)


@check_constructor
@frozen(kw_only=True)
class NewSegment:
    """A chunk to create. `answer` is required for `qa_model` documents and ignored for others."""

    content: str
    answer: str | Unset = UNSET
    keywords: Sequence[str] | Unset = UNSET
    attachment_ids: Sequence[str] | Unset = UNSET


@frozen(kw_only=True)
class CreateSegments:
    """The request body to append chunks."""

    segments: Sequence[NewSegment]


@frozen(kw_only=True)
class ListSegments:
    """The query parameters of the chunk list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
    status: Sequence[str] | Unset = UNSET


@frozen(kw_only=True)
class SegmentChanges:
    """The changes to a chunk; omitted fields stay unchanged."""

    content: str | Unset = UNSET
    answer: str | Unset = UNSET
    keywords: Sequence[str] | Unset = UNSET
    enabled: bool | Unset = UNSET
    regenerate_child_chunks: bool | Unset = UNSET
    attachment_ids: Sequence[str] | Unset = UNSET
    summary: str | Unset | None = UNSET


@frozen(kw_only=True)
class UpdateSegment:
    """The request body to update a chunk."""

    segment: SegmentChanges
