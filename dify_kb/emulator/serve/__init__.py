"""The handlers, one module for each noun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import datasets, documents, retrieve, server, workspace

if TYPE_CHECKING:
    from dify_kb.emulator.context import Served

HANDLERS: tuple[Served[Any, Any], ...] = (
    *server.HANDLERS,
    *datasets.HANDLERS,
    *retrieve.HANDLERS,
    *documents.HANDLERS,
    *workspace.HANDLERS,
)
"""Who answers what; a test compares it with the catalogue."""
