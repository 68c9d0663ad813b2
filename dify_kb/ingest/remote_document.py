"""Snapshots of documents on the server."""

from __future__ import annotations

from attrs import define, frozen

from dify_kb.models import Document, IndexingStatus


@define
class AddedDocuments:
    """The number of documents added by this run, by which older ones move down the list."""

    count: int = 0


@frozen(kw_only=True)
class RemoteDocument:
    """A snapshot of a document on the server.

    `place` is its position in the list, newest first, minus the number of documents added by this
    run; None if unknown.
    """

    document_id: str
    enabled: bool
    archived: bool = False
    status: IndexingStatus
    upload_file_id: str | None
    size: int | None = None
    place: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether indexing has ended."""
        return self.status.is_final

    @classmethod
    def from_document(cls, document: Document, place: int | None = None) -> RemoteDocument:
        """Create a snapshot of a listed document."""
        file = document.upload_file
        return cls(
            document_id=document.id,
            enabled=document.enabled,
            archived=document.is_archived,
            status=document.indexing_status,
            upload_file_id=file.id if file else None,
            size=file.size if file else None,
            place=place,
        )
