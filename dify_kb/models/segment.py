"""Segments: the chunks of a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import field, frozen


@frozen(kw_only=True)
class Segment:
    """One chunk. `word_count` counts characters. Checked against recordings 500 to 560."""

    id: str
    document_id: str
    position: int
    content: str
    answer: str | None
    word_count: int
    tokens: int
    keywords: Sequence[str] | None
    index_node_id: str | None
    index_node_hash: str | None
    hit_count: int
    enabled: bool
    disabled_at: datetime | None
    disabled_by: str | None
    status: str
    created_by: str
    created_at: datetime
    updated_at: datetime | None
    updated_by: str | None
    indexing_at: datetime | None
    completed_at: datetime | None
    error: str | None
    stopped_at: datetime | None
    sign_content: str | None = None
    child_chunks: Sequence[Mapping[str, object]] | None = None
    attachments: Sequence[Mapping[str, object]] | None = None
    summary: str | None = None
    extra: Mapping[str, object] = field(factory=dict)
