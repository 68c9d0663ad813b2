"""What a knowledge base holds under a name."""

from __future__ import annotations

from attrs import define, frozen

from dify_kb.models import Document, IndexingStatus


@define
class AddedDocuments:
    """How many documents a run has added to the list so far: by so much older ones have moved."""

    count: int = 0


@frozen(kw_only=True)
class RemoteDocument:
    """A document that the knowledge base holds, as it was last seen.

    `place` is its place in the list less the documents added since
    the run began, from 0 for the newest; None is not known.
    """

    document_id: str
    enabled: bool
    archived: bool = False
    status: IndexingStatus
    upload_file_id: str | None
    size: int | None = None
    place: int | None = None

    @property
    def final(self) -> bool:
        """Whether nothing indexes it."""
        return self.status.final

    @classmethod
    def of(cls, document: Document, place: int | None = None) -> RemoteDocument:
        """Keep what a plan needs of a listed document."""
        file = document.upload_file
        return cls(
            document_id=document.id,
            enabled=document.enabled,
            archived=document.archived,
            status=document.indexing_status,
            upload_file_id=file.id if file else None,
            size=file.size if file else None,
            place=place,
        )
