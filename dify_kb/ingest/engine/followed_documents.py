"""The accepted documents whose indexing is followed, with their positions in the server's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.ingest.planning.document_lookup import FEW
from dify_kb.models import IndexingStatus
from dify_kb.transport.clock import loop_time

from .indexing_activity import IndexingActivity
from .tracked_file import TrackedFile, UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


PAGE = 100
"""Rows per page of the list."""

PART = 10
"""One poll requests at least one in `PART` of the documents to be requested individually: polls
become rarer during a load, so that a fixed number would not suffice."""


@define(eq=False)
class FollowedDocument:
    """A followed document.

    Its position in the list is `base` plus the number of documents created so far; None if unknown.
    """

    file: TrackedFile
    document: UploadedDocument
    base: int | None
    added_at: float
    since: float
    """The time of its last progress, or of the end of a later outage."""

    moved_at: float
    """The time of its last progress, or when it was added."""

    seen_at: float
    asked_at: float
    """When it was last requested individually."""

    status: str = ""
    statuses: set[str] = field(factory=set)
    segments: int | None = None
    total_segments: int | None = None
    counted_at: float | None = None
    """When its segments were first counted."""

    missed: int = 0
    missed_at: float = 0.0
    to_ask: bool = False
    """Whether its batch has to be requested: its row in the list is not sufficient."""

    final_at: float | None = None
    """When it was first seen indexed or failed while another indexing run may be active."""

    @property
    def waits(self) -> bool:
        """Whether no worker has started to index it, as far as is known."""
        return self.status in {"", IndexingStatus.WAITING}

    @property
    def is_undecided(self) -> bool:
        """Whether one poll showed it finished or missing, which the next has to confirm."""
        return self.final_at is not None or self.missed == 1

    def move(self) -> None:
        """Record progress."""
        self.since = self.moved_at = loop_time()

    def count_miss(self, apart: float) -> None:
        """Count a poll that did not find it; those less than `apart` seconds apart count once."""
        now = loop_time()
        if not self.missed or now - self.missed_at >= apart:
            self.missed, self.missed_at = self.missed + 1, now


@define(eq=False)
class FollowedDocuments:
    """The followed documents by id, in the order in which they were accepted."""

    activity: IndexingActivity = field(factory=IndexingActivity)
    _by_id: dict[str, FollowedDocument] = field(factory=dict)
    _more: anyio.Event = field(factory=anyio.Event)
    began: float = 0.0
    """When a document was last added while none was followed."""

    ended: int = 0
    """Number of documents that have finished since then."""

    _displaced: list[TrackedFile] = field(factory=list)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def unplaced(self) -> list[FollowedDocument]:
        """The documents whose position in the list is not known."""
        return [followed for followed in self._by_id.values() if followed.base is None]

    def __iter__(self) -> Iterator[FollowedDocument]:
        return iter(list(self._by_id.values()))

    def get(self, document_id: str) -> FollowedDocument | None:
        """Return the followed document with this id, if any."""
        return self._by_id.get(document_id)

    def add(self, file: TrackedFile) -> None:
        """Follow the document of a file; a new one is expected at the head of the list."""
        document, existing = file.document, file.planned.replaces
        if document is None:
            return
        now = loop_time()
        if not self._by_id:
            self.began, self.ended, self.activity.moved_at = now, 0, now
        if file.is_new_document:
            base: int | None = -self.activity.added.count
        else:
            base = existing.place if existing else None
        if document.id in self._by_id:
            self._displaced.append(self._by_id[document.id].file)
        self._by_id[document.id] = FollowedDocument(
            file, document, base, added_at=now, since=now, moved_at=now, seen_at=now, asked_at=now
        )
        self._more.set()

    def remove(self, file: TrackedFile) -> None:
        """Stop following the document of a file."""
        followed = self._by_id.get(file.document.id) if file.document else None
        if followed is not None and followed.file is file:
            del self._by_id[followed.document.id]
            self.ended += 1

    def take_displaced(self) -> list[TrackedFile]:
        """Return and remove the files whose documents were replaced by those of other files.

        This happens with names that differ only in case, in databases that ignore it.
        """
        displaced, self._displaced = self._displaced, []
        return displaced

    async def wait(self) -> None:
        """Wait until a document is followed."""
        while not self._by_id:
            self._more = anyio.Event()
            await self._more.wait()

    def page_of(self, followed: FollowedDocument) -> int | None:
        """Return the expected page of a document in the list; None if not known."""
        if followed.base is None:
            return None
        return max(0, followed.base + self.activity.added.count) // PAGE


def least_recently_asked(documents: Iterable[FollowedDocument]) -> list[FollowedDocument]:
    """Return the documents to request individually in one poll: a few, or a part of many."""
    by_time = sorted(documents, key=lambda followed: followed.asked_at)
    return by_time[: max(FEW, len(by_time) // PART)]
