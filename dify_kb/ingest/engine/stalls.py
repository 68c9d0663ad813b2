"""Tell documents that were lost from a server that is busy, and from one that does not index."""

from __future__ import annotations

import anyio
from attrs import define

from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets, Documents

from .followed_documents import PAGE, FollowedDocument, FollowedDocuments

LOST = "lost by the server's worker"
"""What the reason of a stalled document begins with when others were indexed meanwhile."""

CHECK_WORKER = (
    "check that the server's Celery worker is running and takes the queues `dataset` and"
    " `priority_dataset`"
)

MOVED_DATASETS = 3
"""Datasets whose newest documents are looked at, of those in which something moved."""


@define
class StallDetector:
    """Finds out what moves on the server while the followed documents do not.

    Documents that wait are queued behind those of other datasets and people, for as long as
    something moves. One that waits while a document is indexed that was queued later was lost: a
    worker that is killed loses the tasks that it had taken (measured on 1.4.3 and 1.14.2).
    """

    documents: Documents
    datasets: Datasets
    dataset_id: str
    followed: FollowedDocuments
    stall_after: float
    recent: float
    """Seconds without movement after which a document stalls again that stalled in an earlier run.
    """

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was seen to move for half of the time after which documents stall."""
        return self._quiet_for > self._longest_patience / 2

    @property
    def is_still(self) -> bool:
        """Whether nothing at all moved for so long that the server is not indexing."""
        return self._quiet_for > self._longest_patience

    async def look_elsewhere(self) -> bool:
        """Return whether anything moves in any dataset, as far as is known; True at first.

        One request, one per 100 datasets, and one for the newest documents of each of up to four.
        """
        activity = self.followed.activity
        first = not activity.has_counters
        waiting = await self.documents.list(self.dataset_id, status="queuing", limit=1)
        moved = activity.record_queue(waiting.total)
        counters: dict[str, object] = {}
        async for dataset in self.datasets.iter():
            counters[dataset.id] = (dataset.word_count, dataset.total_available_documents)
        others = [name for name in activity.record_others(counters) if name != self.dataset_id]
        for dataset_id in [self.dataset_id, *others[:MOVED_DATASETS]]:
            newest = await self.documents.list(dataset_id, limit=PAGE)
            for row in newest.data:
                if row.indexing_status is IndexingStatus.COMPLETED:
                    activity.record_newest(row.created_at)
        return first or moved or bool(others)

    def is_late(self, followed: FollowedDocument) -> bool:
        """Return whether a document did not move for `stall_after`, begun or passed over."""
        if anyio.current_time() - followed.since <= self._patience(followed):
            return False
        return not followed.waits or self.is_passed_over(followed)

    def is_passed_over(self, followed: FollowedDocument) -> bool:
        """Return whether a document that was queued later is indexed already."""
        document = followed.document
        accepted_at = -1.0 if document.remembered else document.accepted_at
        return self.followed.activity.is_passed_over(accepted_at, document.queued_at)

    def describe(self, followed: FollowedDocument) -> str:
        """Return why a document stalled: what was seen of it, and of others meanwhile."""
        activity = self.followed.activity
        status = followed.status or IndexingStatus.WAITING
        still = f"stays {status} for {told_seconds(self.stall_after)}"
        if self.is_passed_over(followed) or activity.moved_at > followed.since:
            others = f"{activity.indexed:,} others were" if activity.indexed else "others are"
            return f"{LOST}: it {still} while {others} indexed"
        return f"it {still}, and no document of any dataset moves; {CHECK_WORKER}"

    def describe_still(self) -> str:
        """Return why the run stops when nothing is indexed any more."""
        activity, after = self.followed.activity, told_seconds(self.stall_after)
        if activity.indexed_at is None:
            return f"No document of any dataset moved for {after}: {CHECK_WORKER}."
        ago = told_seconds(anyio.current_time() - activity.indexed_at)
        return (
            f"Indexing stopped: {activity.indexed:,} documents were indexed, the last {ago} ago,"
            f" and no document of any dataset moved since: {CHECK_WORKER}."
        )

    @property
    def _quiet_for(self) -> float:
        return anyio.current_time() - self.followed.activity.moved_at

    @property
    def _longest_patience(self) -> float:
        return max(map(self._patience, self.followed), default=self.stall_after)

    def _patience(self, followed: FollowedDocument) -> float:
        return min(self.stall_after, self.recent) if _stalled_before(followed) else self.stall_after


def _stalled_before(followed: FollowedDocument) -> bool:
    return followed.file.planned.stalled_before


def told_seconds(seconds: float) -> str:
    """Write a time for people."""
    return f"{seconds / 60:.0f} min" if seconds >= 2 * 60 else f"{seconds:g} s"
