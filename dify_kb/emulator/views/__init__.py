"""Rows as the models that answers are made of."""

from __future__ import annotations

from . import metadata
from .datasets import dataset, stored_retrieval
from .documents import detail, display_status, document, found_segment, status
from .segments import child_chunk, segment
from .tags import tag, tags_of

__all__ = [
    "child_chunk",
    "dataset",
    "detail",
    "display_status",
    "document",
    "found_segment",
    "metadata",
    "segment",
    "status",
    "stored_retrieval",
    "tag",
    "tags_of",
]
