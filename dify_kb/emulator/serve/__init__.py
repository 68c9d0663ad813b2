"""The handlers, one module for each noun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import (
    child_chunks,
    datasets,
    documents,
    files,
    metadata,
    pipeline,
    retrieve,
    segments,
    server,
    tags,
    updates,
    workspace,
)

if TYPE_CHECKING:
    from dify_kb.emulator.context import Served

HANDLERS: tuple[Served[Any, Any], ...] = (
    *server.HANDLERS,
    *datasets.HANDLERS,
    *retrieve.HANDLERS,
    *documents.HANDLERS,
    *updates.HANDLERS,
    *files.HANDLERS,
    *segments.HANDLERS,
    *child_chunks.HANDLERS,
    *metadata.HANDLERS,
    *tags.HANDLERS,
    *workspace.HANDLERS,
    *pipeline.HANDLERS,
)
"""Who answers what; a test compares it with the catalogue."""
