"""Accepted documents whose indexing is followed, and the indexing progress of the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
from attrs import define, field, frozen

from dify_kb.ingest.planning.document_lookup import MAX_NAME_QUERIES
from dify_kb.ingest.remote_document import AddedDocuments
from dify_kb.models import IndexingStatus
from dify_kb.transport.clock import loop_time

from .tracked_file import TrackedFile, UploadedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIN_TIME_DIFFERENCE = timedelta(seconds=2)
"""Minimum difference between the creation times of two documents to count one as later: the server
rounds times to seconds."""


@frozen
class DatasetCounters:
    """Counters of a dataset that change while its documents are indexed."""

    words: int | None
    available: int | None
    """Number of searchable documents. Only indexing increases it, whereas `words` also changes when
    chunks are edited."""


@define
class IndexingActivity:
    """Indexing progress on the server. Times are those of the event loop.

    `indexed` is the number of indexed documents of this run.
    """

    added: AddedDocuments = field(factory=AddedDocuments)
    """The number of documents added to the dataset by this run."""

    last_progress_at: float = 0.0
    """Time of the last observed progress in any dataset."""

    indexed_at: float | None = None
    """Time when a document of this load was last found to be indexed."""

    indexed: int = 0
    latest_indexed: float = -1.0
    """The latest time at which an indexed document of this run was accepted."""

    newest_indexed: datetime | None = None
    """The creation time, by the server's clock, of the newest indexed document of the dataset."""

    newest_elsewhere: datetime | None = None
    """The creation time of the newest indexed document of other datasets."""

    _counters: Mapping[str, DatasetCounters] | None = None
    _queued: dict[str, int] = field(factory=dict)

    def record_progress(self) -> None:
        """Record progress."""
        self.last_progress_at = loop_time()

    def record_indexed(self, accepted_at: float) -> None:
        """Record that a document of this run, accepted at `accepted_at`, is indexed."""
        self.indexed += 1
        self.indexed_at = self.last_progress_at = loop_time()
        self.latest_indexed = max(self.latest_indexed, accepted_at)

    def record_newest(self, created_at: datetime | None) -> None:
        """Record the creation time of an indexed document of the dataset."""
        self.newest_indexed = _later(self.newest_indexed, created_at)

    def record_newest_elsewhere(self, created_at: datetime | None) -> None:
        """Record the creation time of an indexed document of another dataset."""
        self.newest_elsewhere = _later(self.newest_elsewhere, created_at)

    def record_queue(self, dataset_id: str, queued: int) -> bool:
        """Record the number of waiting documents of a dataset; return whether it decreased."""
        moved = queued < self._queued.get(dataset_id, queued)
        self._queued[dataset_id] = queued
        if moved:
            self.record_progress()
        return moved

    def record_counters(self, counters: Mapping[str, DatasetCounters]) -> tuple[bool, list[str]]:
        """Record the counters of all datasets.

        Returns:
            Whether the number of available documents changed in any dataset, and the datasets with
            any changed counter.
        """
        before, self._counters = self._counters or {}, counters
        changed = [name for name, now in counters.items() if before.get(name, now) != now]
        moved = any(before[name].available != counters[name].available for name in changed)
        if moved:
            self.record_progress()
        return moved, changed

    def is_passed_over(self, accepted_at: float, queued_at: datetime | None) -> bool:
        """Return whether a later document of the same dataset is already indexed.

        Dify's workers process documents in the order of creation, so that a document that is still
        waiting was lost: a killed worker loses the tasks that it has received.

        Args:
            accepted_at: time of the response to its create in this run; -1 for an earlier run.
            queued_at: latest possible time of its queuing, by the server's clock.
        """
        return self.latest_indexed > accepted_at or _is_later(self.newest_indexed, queued_at)

    def is_passed_over_elsewhere(self, queued_at: datetime | None) -> bool:
        """Return whether a later document of another dataset is already indexed."""
        return _is_later(self.newest_elsewhere, queued_at)


def _later(known: datetime | None, other: datetime | None) -> datetime | None:
    if known is None or other is None:
        return known or other
    return max(known, other)


def _is_later(newest: datetime | None, queued_at: datetime | None) -> bool:
    return newest is not None and queued_at is not None and newest - queued_at > MIN_TIME_DIFFERENCE


PAGE_SIZE = 100
"""Rows per page of the list."""

POLL_ROUNDS = 10
"""Each poll requests at least 1 in `POLL_ROUNDS` of the documents to be requested individually:
polls become less frequent during a load, so that a fixed number would not suffice."""


@define(eq=False)
class FollowedDocument:
    """A document whose indexing is followed.

    Its position in the list is `base` plus the number of documents created so far. `base` is None
    if the position is not known.
    """

    file: TrackedFile
    document: UploadedDocument
    base: int | None
    added_at: float
    since: float
    """Time of the last progress of the document, or of the end of a later outage."""

    last_progress_at: float
    """Time of the last progress of the document, or when it was added."""

    polled_at: float
    requested_at: float
    """Time of the last individual status request."""

    status: str = ""
    statuses: set[str] = field(factory=set)
    segments: int | None = None
    total_segments: int | None = None
    counted_at: float | None = None
    """Time of the first segment count."""

    missed: int = 0
    missed_at: float = 0.0
    needs_status_request: bool = False
    """Whether the batch has to be requested, because the row in the list is not sufficient."""

    final_at: float | None = None
    """Time of the first final status, while another indexing run may be active."""

    @property
    def is_waiting(self) -> bool:
        """Whether no worker is known to have started indexing the document."""
        return self.status in {"", IndexingStatus.WAITING}

    @property
    def is_undecided(self) -> bool:
        """Whether the next poll has to confirm that the document is finished or missing."""
        return self.final_at is not None or self.missed == 1

    def record_progress(self) -> None:
        """Record progress."""
        self.since = self.last_progress_at = loop_time()

    def count_miss(self, min_interval: float) -> None:
        """Count a poll that did not find the document, at most once per `min_interval` seconds."""
        now = loop_time()
        if not self.missed or now - self.missed_at >= min_interval:
            self.missed, self.missed_at = self.missed + 1, now


@define(eq=False)
class FollowedDocuments:
    """The followed documents by id, in the order in which they were accepted."""

    activity: IndexingActivity = field(factory=IndexingActivity)
    _by_id: dict[str, FollowedDocument] = field(factory=dict)
    _more: anyio.Event = field(factory=anyio.Event)
    began: float = 0.0
    """Time when a document was last added while no other was followed."""

    ended: int = 0
    """Number of documents that have finished since then."""

    _displaced: list[TrackedFile] = field(factory=list)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def documents_without_position(self) -> list[FollowedDocument]:
        """Documents whose position in the list is not known."""
        return [followed for followed in self._by_id.values() if followed.base is None]

    def __iter__(self) -> Iterator[FollowedDocument]:
        return iter(list(self._by_id.values()))

    def get(self, document_id: str) -> FollowedDocument | None:
        """Return the followed document with this id, if any."""
        return self._by_id.get(document_id)

    def add(self, file: TrackedFile) -> None:
        """Follow the document of a file; a new document is expected at the head of the list."""
        document, existing = file.document, file.planned.replaces
        if document is None:
            return
        now = loop_time()
        if not self._by_id:
            self.began, self.ended, self.activity.last_progress_at = now, 0, now
        if file.is_new_document:
            base: int | None = -self.activity.added.count
        else:
            base = existing.place if existing else None
        if document.id in self._by_id:
            self._displaced.append(self._by_id[document.id].file)
        self._by_id[document.id] = FollowedDocument(
            file,
            document,
            base,
            added_at=now,
            since=now,
            last_progress_at=now,
            polled_at=now,
            requested_at=now,
        )
        self._more.set()

    def remove(self, file: TrackedFile) -> None:
        """Stop following the document of a file."""
        followed = self._by_id.get(file.document.id) if file.document else None
        if followed is not None and followed.file is file:
            del self._by_id[followed.document.id]
            self.ended += 1

    def pop_displaced(self) -> list[TrackedFile]:
        """Return and remove the files whose documents were replaced by those of other files.

        This happens if names differ only in case and the database of the server ignores case.
        """
        displaced, self._displaced = self._displaced, []
        return displaced

    async def wait(self) -> None:
        """Wait until at least one document is followed."""
        while not self._by_id:
            self._more = anyio.Event()
            await self._more.wait()

    def expected_page(self, followed: FollowedDocument) -> int | None:
        """Return the expected page of a document in the list; None if not known."""
        if followed.base is None:
            return None
        return max(0, followed.base + self.activity.added.count) // PAGE_SIZE


def select_least_recently_requested(
    documents: Iterable[FollowedDocument],
) -> list[FollowedDocument]:
    """Return the documents to request individually in one poll."""
    by_time = sorted(documents, key=lambda followed: followed.requested_at)
    return by_time[: max(MAX_NAME_QUERIES, len(by_time) // POLL_ROUNDS)]
