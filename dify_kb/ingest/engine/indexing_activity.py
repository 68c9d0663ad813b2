"""What was seen to move on the server: by this load, and by other loads and people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import anyio
from attrs import define, field, frozen

from dify_kb.ingest.remote_document import AddedDocuments

SKEW = timedelta(seconds=2)
"""By so much later than ours another document must have been created to count as later: the server
rounds times to seconds."""


@frozen
class DatasetCounters:
    """The counters of a dataset that change as its documents are indexed."""

    words: int | None
    available: int | None
    """Documents that can be found. Only indexing raises it; words also change as chunks are
    edited."""


@define
class IndexingActivity:
    """Whether the server indexes anything. Times are of the event loop.

    `indexed` documents of this run were seen indexed.
    """

    added: AddedDocuments = field(factory=AddedDocuments)
    """The documents that the run has added to the dataset."""

    moved_at: float = 0.0
    """When any document of any dataset was last seen to move."""

    indexed_at: float | None = None
    """When a document of this load was last seen indexed."""

    indexed: int = 0
    latest_indexed: float = -1.0
    """When the latest of the indexed documents of this run was accepted."""

    newest_indexed: datetime | None = None
    """When the newest document of the dataset that was seen indexed was created, by the server's
    clock."""

    newest_elsewhere: datetime | None = None
    """The same for documents of other datasets."""

    _counters: Mapping[str, DatasetCounters] | None = None
    _queued: dict[str, int] = field(factory=dict)

    def move(self) -> None:
        """Record that something moved."""
        self.moved_at = anyio.current_time()

    def record_indexed(self, accepted_at: float) -> None:
        """Record that a document of this run is indexed, which was accepted then."""
        self.indexed += 1
        self.indexed_at = self.moved_at = anyio.current_time()
        self.latest_indexed = max(self.latest_indexed, accepted_at)

    def record_newest(self, created_at: datetime | None) -> None:
        """Record when an indexed document of the dataset was created."""
        self.newest_indexed = _later(self.newest_indexed, created_at)

    def record_newest_elsewhere(self, created_at: datetime) -> None:
        """Record when an indexed document of another dataset was created."""
        self.newest_elsewhere = _later(self.newest_elsewhere, created_at)

    def record_queue(self, dataset_id: str, queued: int) -> bool:
        """Record how many documents of a dataset wait; return whether they became fewer."""
        moved = queued < self._queued.get(dataset_id, queued)
        self._queued[dataset_id] = queued
        if moved:
            self.move()
        return moved

    def record_counters(self, counters: Mapping[str, DatasetCounters]) -> tuple[bool, list[str]]:
        """Record the counters of all datasets.

        Returns:
            Whether documents became available or went away anywhere, and the datasets of which any
            counter changed.
        """
        before, self._counters = self._counters or {}, counters
        changed = [name for name, now in counters.items() if before.get(name, now) != now]
        moved = any(before[name].available != counters[name].available for name in changed)
        if moved:
            self.move()
        return moved, changed

    def is_passed_over(self, accepted_at: float, queued_at: datetime | None) -> bool:
        """Return whether a later document of the same dataset is indexed already.

        Dify's workers take documents in the order of their creation, so that the task of one that
        still waits then was lost: a worker that is killed loses the tasks that it had taken.

        Args:
            accepted_at: when its create was answered in this run, -1 for an earlier run.
            queued_at: when it was queued at the latest, by the server's clock.
        """
        return self.latest_indexed > accepted_at or _is_later(self.newest_indexed, queued_at)

    def is_passed_over_elsewhere(self, queued_at: datetime | None) -> bool:
        """Return whether a later document of another dataset is indexed already."""
        return _is_later(self.newest_elsewhere, queued_at)


def _later(known: datetime | None, other: datetime | None) -> datetime | None:
    if known is None or other is None:
        return known or other
    return max(known, other)


def _is_later(newest: datetime | None, queued_at: datetime | None) -> bool:
    return newest is not None and queued_at is not None and newest - queued_at > SKEW
