"""Distinguish lost documents from a busy server and from one that does not index."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets, Documents
from dify_kb.transport.clock import loop_time

from .activity_probe import ActivityProbe
from .followed_documents import FollowedDocument, FollowedDocuments

if TYPE_CHECKING:
    from .indexing_activity import IndexingActivity

LOST = "lost by the server's worker"
"""Prefix of the reason of a stalled document if others were indexed meanwhile."""

CHECK_WORKER = (
    "check that the server's Celery worker is running and takes the queues `dataset` and"
    " `priority_dataset`"
)

LONGEST_WAIT = 96
"""Multiple of `stall_after` after which a document without progress is finished as stalled, even
while documents of other datasets are indexed: a day by default, so that every load ends."""


@define
class StallDetector:
    """Detector of stalled documents, and of a server that does not index.

    As long as any document makes progress, waiting documents may be queued behind those of other
    datasets and users. A document still waiting after one queued later was indexed is lost: a
    killed worker loses the tasks that it had taken (measured on 1.4.3 and 1.14.2).
    """

    documents: Documents
    datasets: Datasets
    dataset_id: str
    followed: FollowedDocuments
    stall_after: float
    recent: float
    """`stall_after` of a document that stalled in an earlier run."""

    _probe: ActivityProbe = field(init=False)
    _probed_at: float = -math.inf
    """When the datasets were last probed."""

    _has_compared: bool = False
    """Whether the latest probe compared them and found no progress."""

    def __attrs_post_init__(self) -> None:
        self._probe = ActivityProbe(
            self.documents, self.datasets, self.dataset_id, self.followed.activity
        )

    @property
    def is_quiet(self) -> bool:
        """Whether there was no progress for half of the time after which documents stall."""
        return self._quiet_for > 2 * self.longest_interval

    @property
    def is_still(self) -> bool:
        """Whether there was no progress for so long that the server is not indexing.

        The latest documents get some time to show that a worker is running.
        """
        longest = max(map(self._patience, self.followed), default=self.stall_after)
        if self._quiet_for <= longest or not self._has_compared:
            return False
        if any(map(self._is_uncounted, self.followed)):
            return False
        newest = max((followed.added_at for followed in self.followed), default=-math.inf)
        shown = loop_time() - newest > min(longest, self.recent) / 2
        return shown or self._quiet_for > 2 * longest

    @property
    def longest_interval(self) -> float:
        """Maximum seconds between two polls, to notice stalled documents in time."""
        return min(map(self._patience, self.followed), default=self.stall_after) / 4

    async def look_elsewhere(self) -> bool:
        """Probe all datasets; return whether any makes progress. True at first.

        Returns True without a probe if the last one was recent.
        """
        now, self._has_compared = loop_time(), False
        if now - self._probed_at < self.longest_interval:
            return True
        self._probed_at = now
        moves = await self._probe.look()
        self._has_compared = self._probe.has_compared
        return moves

    def needs_asking(self, followed: FollowedDocument) -> bool:
        """Return whether a document has to be requested individually before it counts as stalled.

        The progress of a long document shows only in its segments, which are counted twice.
        """
        return self.is_late(followed) or self._is_uncounted(followed)

    def is_late(self, followed: FollowedDocument) -> bool:
        """Return whether a document has stalled: it made no progress for too long, and either its
        indexing had begun, or it was passed over, or it stalled before.
        """
        now, patience = loop_time(), self._patience(followed)
        if _unmoved_for(followed, self.followed.activity) > LONGEST_WAIT * self.stall_after:
            return True
        if now - followed.since <= patience:
            return False
        if followed.waits:
            still = self._quiet_for > patience and self._has_compared
            return self.is_passed_over(followed) or (_stalled_before(followed) and still)
        if followed.document.batch is None:
            return True
        return followed.counted_at is not None and now - followed.counted_at >= patience / 4

    def is_passed_over(self, followed: FollowedDocument) -> bool:
        """Return whether a document that was queued later is already indexed."""
        document, activity = followed.document, self.followed.activity
        accepted_at = -1.0 if document.remembered else document.accepted_at
        if activity.is_passed_over(accepted_at, document.queued_at):
            return True
        # Other datasets may have separate queues: they count only if this load makes no progress.
        indexed_at = -math.inf if activity.indexed_at is None else activity.indexed_at
        ours_move = loop_time() - indexed_at <= self._patience(followed)
        return not ours_move and activity.is_passed_over_elsewhere(document.queued_at)

    def concerns_all(self, followed: FollowedDocument) -> bool:
        """Return whether a document without progress shows that the server is not indexing.

        It does not if it was lost, stalled before, was paused by a person or is already indexed.
        """
        known = followed.status in {IndexingStatus.PAUSED, IndexingStatus.COMPLETED}
        return not (known or _stalled_before(followed) or self.is_passed_over(followed))

    def describe(self, followed: FollowedDocument) -> str:
        """Return why a document stalled: its last status, and the progress of others."""
        activity = self.followed.activity
        status = followed.status or IndexingStatus.WAITING
        still = f"stayed {status} for {format_duration(self._patience(followed))}"
        if status == IndexingStatus.PAUSED:
            return f"{still}: resume indexing in Dify's console"
        if status == IndexingStatus.COMPLETED:
            return (
                f"two indexing runs overlapped: {still} with {followed.segments} of"
                f" {followed.total_segments} chunks indexed; send it again"
            )
        others_move = self._quiet_for <= self._patience(followed)
        if self.is_passed_over(followed) or (others_move and not followed.waits):
            were = "1 other was" if activity.indexed == 1 else f"{activity.indexed:,} others were"
            return f"{LOST}: {still} while {were if activity.indexed else 'others were'} indexed"
        if others_move:
            waited = format_duration(_unmoved_for(followed, activity))
            return f"stayed {status} for {waited} while documents of other datasets were indexed"
        return f"{still}, and no document of any dataset made progress; {CHECK_WORKER}"

    def describe_still(self) -> str:
        """Return why the run stops if the server indexes nothing any more."""
        activity, after = self.followed.activity, format_duration(self.stall_after)
        if activity.indexed_at is None:
            return f"No document of any dataset made progress for {after}: {CHECK_WORKER}."
        ago = format_duration(loop_time() - activity.indexed_at)
        were = "1 document was" if activity.indexed == 1 else f"{activity.indexed:,} documents were"
        return (
            f"Indexing stopped: {were} indexed, the last {ago} ago,"
            f" and no document of any dataset made progress since: {CHECK_WORKER}."
        )

    @property
    def _quiet_for(self) -> float:
        return loop_time() - self.followed.activity.moved_at

    def _patience(self, followed: FollowedDocument) -> float:
        return min(self.stall_after, self.recent) if _stalled_before(followed) else self.stall_after

    def _is_uncounted(self, followed: FollowedDocument) -> bool:
        """Return whether a document being indexed needs its first count of segments."""
        if followed.waits or followed.document.batch is None or followed.counted_at is not None:
            return False
        return loop_time() - followed.since > self._patience(followed) / 2


def _unmoved_for(followed: FollowedDocument, activity: IndexingActivity) -> float:
    """Return the seconds since the progress of this or any document of the load, with outages."""
    moved_at = max(followed.moved_at, activity.indexed_at or followed.moved_at)
    return loop_time() - moved_at


def _stalled_before(followed: FollowedDocument) -> bool:
    return followed.file.planned.stalled_before


def format_duration(seconds: float) -> str:
    """Format a duration in s, min or h."""
    if seconds >= 2 * 3600:
        return f"{round(seconds / 3600, 1):g} h"
    return f"{seconds / 60:.0f} min" if seconds >= 2 * 60 else f"{round(seconds, 1):g} s"
