"""The accepted documents whose indexing is followed, and where they stand in the server's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.models import IndexingStatus

from .indexing_activity import IndexingActivity
from .tracked_file import TrackedFile, UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Iterator


PAGE = 100
"""Rows of a page of the list."""


@define(eq=False)
class FollowedDocument:
    """A followed document. `base` plus the documents created so far is its place in the list."""

    file: TrackedFile
    document: UploadedDocument
    base: int | None
    since: float
    seen_at: float
    status: str = ""
    statuses: set[str] = field(factory=set)
    segments: int | None = None
    missed: int = 0
    to_confirm: bool = False
    """Whether its batch is to be asked if it is completed: it counts the chunks."""

    completed_at: float | None = None
    """When it was first seen completed, while another run of it may be going on."""

    @property
    def waits(self) -> bool:
        """Whether no worker has begun with it, as far as was seen."""
        return self.status in {"", IndexingStatus.WAITING}


@define(eq=False)
class FollowedDocuments:
    """The documents that are followed, by their ids, in the order in which they were accepted."""

    activity: IndexingActivity = field(factory=IndexingActivity)
    _by_id: dict[str, FollowedDocument] = field(factory=dict)
    _more: anyio.Event = field(factory=anyio.Event)
    began: float = 0.0
    """When the first of those that are followed now was added."""

    ended: int = 0
    """How many have ended since then."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[FollowedDocument]:
        return iter(list(self._by_id.values()))

    def get(self, document_id: str) -> FollowedDocument | None:
        """Return one by its document's id."""
        return self._by_id.get(document_id)

    def add(self, file: TrackedFile) -> None:
        """Follow the document of a file; a new one has just come to the head of the list."""
        document, existing = file.document, file.planned.replaces
        if document is None:
            return
        now = anyio.current_time()
        if not self._by_id:
            self.began, self.ended, self.activity.moved_at = now, 0, now
        if file.is_new_document:
            base: int | None = -self.activity.added.count
        else:
            base = existing.place if existing else None
        self._by_id[document.id] = FollowedDocument(file, document, base, since=now, seen_at=now)
        self._more.set()

    def remove(self, file: TrackedFile) -> None:
        """Follow the document of a file no longer."""
        if file.document is not None and self._by_id.pop(file.document.id, None) is not None:
            self.ended += 1

    async def wait(self) -> None:
        """Wait until there is any."""
        while not self._by_id:
            self._more = anyio.Event()
            await self._more.wait()

    def page_of(self, followed: FollowedDocument) -> int | None:
        """Return the page of the list on which a document is expected; None if not known."""
        if followed.base is None:
            return None
        return max(0, followed.base + self.activity.added.count) // PAGE
