"""Track indexing progress observed in this dataset and in others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import define, field, frozen

from dify_kb.ingest.remote_document import AddedDocuments
from dify_kb.transport.clock import loop_time

SKEW = timedelta(seconds=2)
"""Minimum difference of creation times for a document to count as later: the server rounds times to
seconds."""


@frozen
class DatasetCounters:
    """Counters of a dataset that change while its documents are indexed."""

    words: int | None
    available: int | None
    """Searchable documents. Only indexing increases this number; words also change when chunks are
    edited."""


@define
class IndexingActivity:
    """Indexing progress on the server. Times are those of the event loop.

    `indexed` is the number of documents of this run that were indexed.
    """

    added: AddedDocuments = field(factory=AddedDocuments)
    """The number of documents added to the dataset by this run."""

    moved_at: float = 0.0
    """When progress was last observed in any dataset."""

    indexed_at: float | None = None
    """When a document of this load was last observed to be indexed."""

    indexed: int = 0
    latest_indexed: float = -1.0
    """The latest time at which an indexed document of this run was accepted."""

    newest_indexed: datetime | None = None
    """The creation time, by the server's clock, of the newest indexed document of the dataset."""

    newest_elsewhere: datetime | None = None
    """The same for other datasets."""

    _counters: Mapping[str, DatasetCounters] | None = None
    _queued: dict[str, int] = field(factory=dict)

    def move(self) -> None:
        """Record progress."""
        self.moved_at = loop_time()

    def record_indexed(self, accepted_at: float) -> None:
        """Record that a document of this run, accepted at `accepted_at`, is indexed."""
        self.indexed += 1
        self.indexed_at = self.moved_at = loop_time()
        self.latest_indexed = max(self.latest_indexed, accepted_at)

    def record_newest(self, created_at: datetime | None) -> None:
        """Record the creation time of an indexed document of the dataset."""
        self.newest_indexed = _later(self.newest_indexed, created_at)

    def record_newest_elsewhere(self, created_at: datetime) -> None:
        """Record the creation time of an indexed document of another dataset."""
        self.newest_elsewhere = _later(self.newest_elsewhere, created_at)

    def record_queue(self, dataset_id: str, queued: int) -> bool:
        """Record the number of waiting documents of a dataset; return whether it decreased."""
        moved = queued < self._queued.get(dataset_id, queued)
        self._queued[dataset_id] = queued
        if moved:
            self.move()
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
            self.move()
        return moved, changed

    def is_passed_over(self, accepted_at: float, queued_at: datetime | None) -> bool:
        """Return whether a later document of the same dataset is already indexed.

        Dify's workers take documents in the order of creation, so that a document still waiting is
        lost: a killed worker loses the tasks that it had taken.

        Args:
            accepted_at: when its create was answered in this run; -1 for an earlier run.
            queued_at: the latest time at which it can have been queued, by the server's clock.
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
    return newest is not None and queued_at is not None and newest - queued_at > SKEW
