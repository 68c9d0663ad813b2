"""Distinguish lost documents from a server that is busy, and from one that does not index."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets, Documents

from .activity_probe import ActivityProbe
from .followed_documents import FollowedDocument, FollowedDocuments

if TYPE_CHECKING:
    from .indexing_activity import IndexingActivity

LOST = "lost by the server's worker"
"""What the reason of a stalled document begins with when others were indexed meanwhile."""

CHECK_WORKER = (
    "check that the server's Celery worker is running and takes the queues `dataset` and"
    " `priority_dataset`"
)

LONGEST_WAIT = 96
"""A document that moves no more ends after so many times `stall_after`, also while documents of
other datasets are indexed: a day by default, so that a load always ends."""


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

    _probe: ActivityProbe = field(init=False)
    _probed_at: float = -math.inf
    """When other datasets were last looked at."""

    _has_compared: bool = False
    """Whether the latest look compared them, and nothing had moved."""

    def __attrs_post_init__(self) -> None:
        self._probe = ActivityProbe(
            self.documents, self.datasets, self.dataset_id, self.followed.activity
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was seen to move for half of the time after which documents stall."""
        return self._quiet_for > 2 * self.longest_interval

    @property
    def is_still(self) -> bool:
        """Whether nothing at all moved for so long that the server is not indexing.

        The documents that were added last are given some time to show that a worker is there.
        """
        longest = max(map(self._patience, self.followed), default=self.stall_after)
        if self._quiet_for <= longest or not self._has_compared:
            return False
        if any(map(self._is_uncounted, self.followed)):
            return False
        newest = max((followed.added_at for followed in self.followed), default=-math.inf)
        shown = anyio.current_time() - newest > min(longest, self.recent) / 2
        return shown or self._quiet_for > 2 * longest

    @property
    def longest_interval(self) -> float:
        """Seconds between looks at most, for stalled documents to be noticed in time."""
        return min(map(self._patience, self.followed), default=self.stall_after) / 4

    async def look_elsewhere(self) -> bool:
        """Return whether anything moves in any dataset, as far as is known; True at first.

        It does nothing when the last look was shortly before.
        """
        now, self._has_compared = anyio.current_time(), False
        if now - self._probed_at < self.longest_interval:
            return True
        self._probed_at = now
        moves = await self._probe.look()
        self._has_compared = self._probe.has_compared
        return moves

    def needs_asking(self, followed: FollowedDocument) -> bool:
        """Return whether a document is to be asked for by itself before it counts as stalled.

        A long document moves by its segments alone, so that they are counted twice.
        """
        return self.is_late(followed) or self._is_uncounted(followed)

    def is_late(self, followed: FollowedDocument) -> bool:
        """Return whether a document has stalled: it did not move for too long, and either was
        begun, or was passed over, or stalled before.
        """
        now, patience = anyio.current_time(), self._patience(followed)
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
        """Return whether a document that was queued later is indexed already."""
        document, activity = followed.document, self.followed.activity
        accepted_at = -1.0 if document.remembered else document.accepted_at
        if activity.is_passed_over(accepted_at, document.queued_at):
            return True
        # Others may have queues of their own, so that they count only while nothing of ours moves.
        indexed_at = -math.inf if activity.indexed_at is None else activity.indexed_at
        ours_move = anyio.current_time() - indexed_at <= self._patience(followed)
        return not ours_move and activity.is_passed_over_elsewhere(document.queued_at)

    def concerns_all(self, followed: FollowedDocument) -> bool:
        """Return whether a document that stands still shows that the server does not index.

        It does not if it was lost, stalled before, was paused by somebody, or is indexed already.
        """
        known = followed.status in {IndexingStatus.PAUSED, IndexingStatus.COMPLETED}
        return not (known or _stalled_before(followed) or self.is_passed_over(followed))

    def describe(self, followed: FollowedDocument) -> str:
        """Return why a document stalled: what was seen of it, and of others meanwhile."""
        activity = self.followed.activity
        status = followed.status or IndexingStatus.WAITING
        still = f"it stays {status} for {format_duration(self._patience(followed))}"
        if status == IndexingStatus.PAUSED:
            return f"{still}: resume its indexing in Dify's console"
        if status == IndexingStatus.COMPLETED:
            return (
                f"two runs of its indexing overlapped: {still} with {followed.segments} of"
                f" {followed.total_segments} chunks indexed; send it again"
            )
        others_move = self._quiet_for <= self._patience(followed)
        if self.is_passed_over(followed) or (others_move and not followed.waits):
            were = "1 other was" if activity.indexed == 1 else f"{activity.indexed:,} others were"
            return f"{LOST}: {still} while {were if activity.indexed else 'others are'} indexed"
        if others_move:
            waited = format_duration(_unmoved_for(followed, activity))
            return f"it stays {status} for {waited}, though documents of other datasets are indexed"
        return f"{still}, and no document of any dataset moves; {CHECK_WORKER}"

    def describe_still(self) -> str:
        """Return why the run stops when nothing is indexed any more."""
        activity, after = self.followed.activity, format_duration(self.stall_after)
        if activity.indexed_at is None:
            return f"No document of any dataset moved for {after}: {CHECK_WORKER}."
        ago = format_duration(anyio.current_time() - activity.indexed_at)
        were = "1 document was" if activity.indexed == 1 else f"{activity.indexed:,} documents were"
        return (
            f"Indexing stopped: {were} indexed, the last {ago} ago,"
            f" and no document of any dataset moved since: {CHECK_WORKER}."
        )

    @property
    def _quiet_for(self) -> float:
        return anyio.current_time() - self.followed.activity.moved_at

    def _patience(self, followed: FollowedDocument) -> float:
        return min(self.stall_after, self.recent) if _stalled_before(followed) else self.stall_after

    def _is_uncounted(self, followed: FollowedDocument) -> bool:
        """Return whether the segments of a begun document have to be counted for the first time."""
        if followed.waits or followed.document.batch is None or followed.counted_at is not None:
            return False
        return anyio.current_time() - followed.since > self._patience(followed) / 2


def _unmoved_for(followed: FollowedDocument, activity: IndexingActivity) -> float:
    """Return the seconds since it or another document of this load moved, outages included."""
    moved_at = max(followed.moved_at, activity.indexed_at or followed.moved_at)
    return anyio.current_time() - moved_at


def _stalled_before(followed: FollowedDocument) -> bool:
    return followed.file.planned.stalled_before


def format_duration(seconds: float) -> str:
    """Format a time for people."""
    if seconds >= 2 * 3600:
        return f"{round(seconds / 3600, 1):g} h"
    return f"{seconds / 60:.0f} min" if seconds >= 2 * 60 else f"{round(seconds, 1):g} s"
