"""Child chunks: the small pieces by which a parent-child segment is found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from attrs import field, frozen

from ._base import UNSET, Unset


@frozen(kw_only=True)
class ChildChunk:
    """One child chunk; `type` is automatic or customized. Checked against recordings 600 to 620."""

    id: str
    segment_id: str
    content: str
    position: int
    word_count: int
    type: str
    created_at: datetime
    updated_at: datetime | None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ChildChunkResponse:
    """Answer of a create or an update."""

    data: ChildChunk


@frozen(kw_only=True)
class WriteChildChunk:
    """Request: the content of a new or changed child chunk."""

    content: str


@frozen(kw_only=True)
class ListChildChunks:
    """Query of the child chunk list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
