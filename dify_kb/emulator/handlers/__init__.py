"""Request handlers, one module for each resource."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import (
    child_chunks,
    datasets,
    documents,
    metadata,
    pipeline,
    retrieve,
    segments,
    server_info,
    tags,
)

if TYPE_CHECKING:
    from dify_kb.emulator.request_context import EndpointHandler

HANDLERS: tuple[EndpointHandler[Any, Any], ...] = (
    *server_info.HANDLERS,
    *datasets.HANDLERS,
    *retrieve.HANDLERS,
    *documents.HANDLERS,
    *segments.HANDLERS,
    *child_chunks.HANDLERS,
    *metadata.HANDLERS,
    *tags.HANDLERS,
    *pipeline.HANDLERS,
)
"""The handlers of all endpoints; a test compares them with the catalog."""
