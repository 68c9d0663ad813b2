"""The accepted documents whose indexing is followed, and where they stand in the server's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.ingest.planning.document_lookup import FEW
from dify_kb.models import IndexingStatus

from .indexing_activity import IndexingActivity
from .tracked_file import TrackedFile, UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


PAGE = 100
"""Rows of a page of the list."""

PART = 10
"""Of many documents that are asked for one by one, a look asks for one in so many: looks become
rarer as a load goes on, so that a fixed number of them would never be through."""


@define(eq=False)
class FollowedDocument:
    """A followed document. `base` plus the documents created so far is its place in the list."""

    file: TrackedFile
    document: UploadedDocument
    base: int | None
    added_at: float
    since: float
    """When it last moved; later if the server was away since."""

    moved_at: float
    """When it last moved, or was added."""

    seen_at: float
    asked_at: float
    """When it was last asked for by itself."""

    status: str = ""
    statuses: set[str] = field(factory=set)
    segments: int | None = None
    total_segments: int | None = None
    counted_at: float | None = None
    """When its segments were first counted."""

    missed: int = 0
    missed_at: float = 0.0
    to_ask: bool = False
    """Whether it is to be asked for by its batch: the row of a list does not tell enough of it."""

    final_at: float | None = None
    """Since when it was seen indexed or failed, while another run of it may be going on."""

    @property
    def waits(self) -> bool:
        """Whether no worker has begun with it, as far as was seen."""
        return self.status in {"", IndexingStatus.WAITING}

    @property
    def is_undecided(self) -> bool:
        """Whether one look showed that it ended or is gone, and the next one has to confirm it."""
        return self.final_at is not None or self.missed == 1

    def move(self) -> None:
        """Record that it moved."""
        self.since = self.moved_at = anyio.current_time()

    def count_miss(self, apart: float) -> None:
        """Count a look that did not find it; requests that are not `apart` seconds count once."""
        now = anyio.current_time()
        if not self.missed or now - self.missed_at >= apart:
            self.missed, self.missed_at = self.missed + 1, now


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

    _displaced: list[TrackedFile] = field(factory=list)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def unplaced(self) -> list[FollowedDocument]:
        """Those of which it is not known where they stand in the list."""
        return [followed for followed in self._by_id.values() if followed.base is None]

    def __iter__(self) -> Iterator[FollowedDocument]:
        return iter(list(self._by_id.values()))

    def get(self, document_id: str) -> FollowedDocument | None:
        """Return the followed document with an id."""
        return self._by_id.get(document_id)

    def add(self, file: TrackedFile) -> None:
        """Follow the document of a file. A new one is expected at the head of the list."""
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
        if document.id in self._by_id:
            self._displaced.append(self._by_id[document.id].file)
        self._by_id[document.id] = FollowedDocument(
            file, document, base, added_at=now, since=now, moved_at=now, seen_at=now, asked_at=now
        )
        self._more.set()

    def remove(self, file: TrackedFile) -> None:
        """Follow the document of a file no longer."""
        followed = self._by_id.get(file.document.id) if file.document else None
        if followed is not None and followed.file is file:
            del self._by_id[followed.document.id]
            self.ended += 1

    def take_displaced(self) -> list[TrackedFile]:
        """Return the files whose documents became those of other files, once.

        Databases that ignore case take two names for one.
        """
        displaced, self._displaced = self._displaced, []
        return displaced

    async def wait(self) -> None:
        """Wait until a document is followed."""
        while not self._by_id:
            self._more = anyio.Event()
            await self._more.wait()

    def page_of(self, followed: FollowedDocument) -> int | None:
        """Return the page of the list on which a document is expected; None if not known."""
        if followed.base is None:
            return None
        return max(0, followed.base + self.activity.added.count) // PAGE


def least_recently_asked(documents: Iterable[FollowedDocument]) -> list[FollowedDocument]:
    """Choose the documents that one look asks for by themselves: a few, or a part of many."""
    by_time = sorted(documents, key=lambda followed: followed.asked_at)
    return by_time[: max(FEW, len(by_time) // PART)]
