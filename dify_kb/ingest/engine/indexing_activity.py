"""What was seen to move on the server: by this load, and by other loads and people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import anyio
from attrs import define, field

from dify_kb.ingest.planning.remote_document import AddedDocuments

SKEW = timedelta(seconds=2)
"""By so much later than ours another document must have been created to count as later: the server
rounds times to seconds."""


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
    """When the newest document that was seen indexed was created, by the server's clock."""

    _others: Mapping[str, object] | None = None
    _queued: int | None = None

    @property
    def has_counters(self) -> bool:
        """Whether there is something that the next counters can be compared with."""
        return self._others is not None

    def move(self) -> None:
        """Record that something moved."""
        self.moved_at = anyio.current_time()

    def record_indexed(self, accepted_at: float) -> None:
        """Record that a document of this run is indexed, which was accepted then."""
        self.indexed += 1
        self.indexed_at = self.moved_at = anyio.current_time()
        self.latest_indexed = max(self.latest_indexed, accepted_at)

    def record_newest(self, created_at: datetime | None) -> None:
        """Record when an indexed document, of anybody, was created."""
        if created_at and (self.newest_indexed is None or created_at > self.newest_indexed):
            self.newest_indexed = created_at

    def record_queue(self, queued: int) -> bool:
        """Record how many documents of the dataset wait; return whether they became fewer."""
        moved = self._queued is not None and queued < self._queued
        self._queued = queued
        if moved:
            self.move()
        return moved

    def record_others(self, counters: Mapping[str, object]) -> list[str]:
        """Record counters of all datasets; return the datasets in which something moved."""
        before, self._others = self._others, counters
        if before is None:
            return []
        moved = [name for name, counts in counters.items() if before.get(name, counts) != counts]
        if moved:
            self.move()
        return moved

    def is_passed_over(self, accepted_at: float, queued_at: datetime | None) -> bool:
        """Return whether a document that was queued later than this one is indexed already.

        Dify's workers take documents in the order of their creation, so that the task of one that
        still waits then was lost: a worker that is killed loses the tasks that it had taken.

        Args:
            accepted_at: when its create was answered in this run, -1 for an earlier run.
            queued_at: when it was queued at the latest, by the server's clock.
        """
        if self.latest_indexed > accepted_at:
            return True
        newest = self.newest_indexed
        return newest is not None and queued_at is not None and newest - queued_at > SKEW
