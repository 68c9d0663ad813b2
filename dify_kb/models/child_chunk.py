"""Child chunks: the parts of a segment that parent-child datasets are searched by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from attrs import field, frozen

from ._base import UNSET, Unset


@frozen(kw_only=True)
class ChildChunk:
    """A child chunk; `type` is automatic or customized. Checked against recordings 600 to 620."""

    id: str
    segment_id: str | None = None
    content: str
    position: int | None = None
    word_count: int | None = None
    type: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ChildChunkResponse:
    """The response to a create or an update."""

    data: ChildChunk


@frozen(kw_only=True)
class WriteChildChunk:
    """The request body of a create or an update."""

    content: str


@frozen(kw_only=True)
class ListChildChunks:
    """The query parameters of the child chunk list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
