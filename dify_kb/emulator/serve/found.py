"""What a path names inside of a dataset, or that it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.emulator.refused import not_found

if TYPE_CHECKING:
    from dify_kb.emulator.context import Context
    from dify_kb.emulator.store import DocumentRow, SegmentRow


def document_of(context: Context) -> DocumentRow:
    """Find the document."""
    row = context.store.documents.get(context.dataset.id, context.slots["document_id"])
    if row is None:
        raise not_found("Document not found.")
    return row


def segment_of(context: Context) -> SegmentRow:
    """Find the chunk; up to 1.12 also one of another document (measured)."""
    document = document_of(context)
    row = context.store.segments.get(context.slots["segment_id"])
    if row is None or (
        row.document_id != document.id and context.profile.quirks.segment_in_document
    ):
        raise not_found("Segment not found.")
    return row
