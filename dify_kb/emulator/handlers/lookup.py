"""Find the document and the segment that the path of a request names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.emulator.errors import not_found_error

if TYPE_CHECKING:
    from dify_kb.emulator.request_context import RequestContext
    from dify_kb.emulator.store import DocumentRow, SegmentRow


def require_document(context: RequestContext) -> DocumentRow:
    """Return the document of the path."""
    row = context.store.documents.get(context.dataset.id, context.path_parameters["document_id"])
    if row is None:
        raise not_found_error("Document not found.")
    return row


def require_segment(context: RequestContext) -> SegmentRow:
    """Return the segment of the path; up to 1.12 it may belong to another document (measured)."""
    document = require_document(context)
    row = context.store.segments.get(context.path_parameters["segment_id"])
    if row is None or (
        row.document_id != document.id and context.profile.quirks.segment_in_document
    ):
        raise not_found_error("Segment not found.")
    return row
