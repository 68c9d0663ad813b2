"""Detect stalled documents, and a server that does not index."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classification import is_transient
from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets, Documents
from dify_kb.transport.clock import loop_time

from .followed_documents import (
    PAGE_SIZE,
    DatasetCounters,
    FollowedDocument,
    FollowedDocuments,
    IndexingActivity,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dify_kb.models import Document

MAX_LISTED_DATASETS = 3
"""Maximum number of changed datasets of which a probe lists the newest documents."""


@define
class ActivityProbe:
    """Probe for progress in any dataset: compares the queues and counters with earlier values."""

    documents: Documents
    datasets: Datasets
    dataset_id: str
    activity: IndexingActivity
    _is_first: bool = True
    _compared_at: float = -math.inf
    _visited_at: dict[str, float] = field(factory=dict)
    """Time when the newest documents of another dataset were last listed."""

    @property
    def has_compared(self) -> bool:
        """Whether the datasets were compared since the last progress."""
        return self._compared_at > self.activity.last_progress_at

    async def probe(self) -> bool:
        """Return whether any dataset makes progress; True on the first call.

        Costs two requests, one per 100 datasets, and two for each of up to `MAX_LISTED_DATASETS`.
        """
        waiting = await self.documents.list(self.dataset_id, status="queuing", limit=1)
        moved = self.activity.record_queue(self.dataset_id, waiting.total)
        for row in await self._list_newest_indexed(self.dataset_id):
            self.activity.record_newest(row.created_at)
        counters = await self._list_counters()
        if counters is not None:
            counted, changed = self.activity.record_counters(counters)
            moved = counted or moved
            for dataset_id in self._choose(changed):
                moved = await self._probe_dataset(dataset_id) or moved
        first, self._is_first = self._is_first, False
        if not first:
            self._compared_at = loop_time()
        return first or moved

    async def _list_counters(self) -> dict[str, DatasetCounters] | None:
        """Return the counters of all datasets; None if the server refuses to list them.

        Dify refuses while its plugin daemon is down (measured).
        """
        counters: dict[str, DatasetCounters] = {}
        try:
            async for dataset in self.datasets.iter():
                available = dataset.total_available_documents
                counters[dataset.id] = DatasetCounters(dataset.word_count, available)
        except KnowledgeError as error:
            if is_transient(error):
                raise
            return None
        return counters

    def _choose(self, changed: Iterable[str]) -> list[str]:
        """Return the datasets to probe next, least recently probed first."""
        others = [dataset_id for dataset_id in changed if dataset_id != self.dataset_id]
        others.sort(key=lambda dataset_id: self._visited_at.get(dataset_id, -math.inf))
        return others[:MAX_LISTED_DATASETS]

    async def _probe_dataset(self, dataset_id: str) -> bool:
        """Probe another dataset; return whether its queue became shorter."""
        self._visited_at[dataset_id] = loop_time()
        try:
            waiting = await self.documents.list(dataset_id, status="queuing", limit=1)
            indexed = await self._list_newest_indexed(dataset_id)
        except KnowledgeError as error:
            if is_transient(error):
                raise
            return False  # the dataset was deleted, or its API is disabled
        for row in indexed:
            self.activity.record_newest_elsewhere(row.created_at)
        return self.activity.record_queue(dataset_id, waiting.total)

    async def _list_newest_indexed(self, dataset_id: str) -> list[Document]:
        """Return the indexed documents among the newest documents of a dataset."""
        newest = await self.documents.list(dataset_id, limit=PAGE_SIZE)
        return [row for row in newest.data if row.indexing_status is IndexingStatus.COMPLETED]


LOST_BY_WORKER = "lost by the server's worker"
"""Prefix of the reason of a stalled document if others were indexed after it was queued."""

CHECK_WORKER = (
    "check that the server's Celery worker is running and consumes the queues `dataset` and"
    " `priority_dataset`"
)

MAX_WAIT_FACTOR = 96
"""Multiple of `stall_after` after which a document without progress counts as stalled, even while
documents of other datasets are indexed: a day by default, so that every load ends."""


@define
class StallDetector:
    """Detector of stalled documents, and of a server that does not index.

    As long as any document makes progress, waiting documents may be queued behind documents of
    other datasets. A document that is still waiting after a later document was indexed is lost: a
    killed worker loses the tasks that it has received (measured on 1.4.3 and 1.14.2).
    """

    documents: Documents
    datasets: Datasets
    dataset_id: str
    followed: FollowedDocuments
    stall_after: float
    stall_after_retry: float
    """`stall_after` of a document that stalled in an earlier run."""

    _probe: ActivityProbe = field(init=False)
    _probed_at: float = -math.inf
    """Time when the datasets were last probed."""

    _has_compared: bool = False
    """Whether the latest probe compared the datasets and found no progress."""

    def __attrs_post_init__(self) -> None:
        self._probe = ActivityProbe(
            self.documents, self.datasets, self.dataset_id, self.followed.activity
        )

    @property
    def is_quiet(self) -> bool:
        """Whether no progress was observed for half of the time after which documents stall."""
        return self._seconds_without_progress > 2 * self.longest_interval

    @property
    def is_server_idle(self) -> bool:
        """Whether the server is not indexing: no progress was observed for too long.

        Documents added recently are waited for: they may show that a worker is running.
        """
        longest = max(map(self._patience, self.followed), default=self.stall_after)
        if self._seconds_without_progress <= longest or not self._has_compared:
            return False
        if any(map(self._is_uncounted, self.followed)):
            return False
        newest = max((followed.added_at for followed in self.followed), default=-math.inf)
        had_time = loop_time() - newest > min(longest, self.stall_after_retry) / 2
        return had_time or self._seconds_without_progress > 2 * longest

    @property
    def longest_interval(self) -> float:
        """Maximum seconds between two polls, so that stalled documents are detected in time."""
        return min(map(self._patience, self.followed), default=self.stall_after) / 4

    async def probe_all_datasets(self) -> bool:
        """Probe all datasets; return whether any makes progress. True on the first call.

        Returns True without a probe if the last probe was recent.
        """
        now, self._has_compared = loop_time(), False
        if now - self._probed_at < self.longest_interval:
            return True
        self._probed_at = now
        moves = await self._probe.probe()
        self._has_compared = self._probe.has_compared
        return moves

    def needs_status_request(self, followed: FollowedDocument) -> bool:
        """Return whether a document has to be requested individually before it counts as stalled.

        The progress of a long document is visible only in its segments, which are counted twice.
        """
        return self.has_stalled(followed) or self._is_uncounted(followed)

    def has_stalled(self, followed: FollowedDocument) -> bool:
        """Return whether a document has stalled.

        A document has stalled if it made no progress for too long and its indexing had begun, a
        later document was indexed, or it had stalled in an earlier run.
        """
        now, patience = loop_time(), self._patience(followed)
        if (
            _time_since_progress(followed, self.followed.activity)
            > MAX_WAIT_FACTOR * self.stall_after
        ):
            return True
        if now - followed.since <= patience:
            return False
        if followed.is_waiting:
            is_idle = self._seconds_without_progress > patience and self._has_compared
            return self.is_passed_over(followed) or (_stalled_before(followed) and is_idle)
        if followed.document.batch is None:
            return True
        return followed.counted_at is not None and now - followed.counted_at >= patience / 4

    def is_passed_over(self, followed: FollowedDocument) -> bool:
        """Return whether a document that was queued later is already indexed."""
        document, activity = followed.document, self.followed.activity
        accepted_at = -1.0 if document.remembered else document.accepted_at
        if activity.is_passed_over(accepted_at, document.queued_at):
            return True
        # Other datasets may have separate queues: compare only if this load makes no progress.
        indexed_at = -math.inf if activity.indexed_at is None else activity.indexed_at
        load_progresses = loop_time() - indexed_at <= self._patience(followed)
        return not load_progresses and activity.is_passed_over_elsewhere(document.queued_at)

    def is_caused_by_server(self, followed: FollowedDocument) -> bool:
        """Return whether a document makes no progress because the server is not indexing.

        False if it was lost, stalled in an earlier run, was paused by a user or is indexed.
        """
        known = followed.status in {IndexingStatus.PAUSED, IndexingStatus.COMPLETED}
        return not (known or _stalled_before(followed) or self.is_passed_over(followed))

    def describe(self, followed: FollowedDocument) -> str:
        """Return why a document stalled: its last status and the progress of other documents."""
        activity = self.followed.activity
        status = followed.status or IndexingStatus.WAITING
        duration = format_duration(self._patience(followed))
        no_progress = f"no progress for {duration} (status {str(status)!r})"
        if status == IndexingStatus.PAUSED:
            return f"{no_progress}: resume indexing in Dify's console"
        if status == IndexingStatus.COMPLETED:
            return (
                f"two indexing runs overlapped: {no_progress}, {followed.segments} of"
                f" {followed.total_segments} segments indexed; send the file again"
            )
        others_move = self._seconds_without_progress <= self._patience(followed)
        if self.is_passed_over(followed) or (others_move and not followed.is_waiting):
            were = "1 other was" if activity.indexed == 1 else f"{activity.indexed:,} others were"
            others = were if activity.indexed else "others were"
            return f"{LOST_BY_WORKER}: {no_progress} while {others} indexed"
        if others_move:
            waited = format_duration(_time_since_progress(followed, activity))
            return (
                f"no progress for {waited} (status {str(status)!r})"
                " while documents of other datasets were indexed"
            )
        return f"{no_progress}, and no document of any dataset made progress; {CHECK_WORKER}"

    def describe_idle_server(self) -> str:
        """Return the stop message for a server that does not index any more."""
        activity, after = self.followed.activity, format_duration(self.stall_after)
        if activity.indexed_at is None:
            return f"No document of any dataset made progress for {after}: {CHECK_WORKER}."
        ago = format_duration(loop_time() - activity.indexed_at)
        were = "1 document was" if activity.indexed == 1 else f"{activity.indexed:,} documents were"
        return (
            f"Indexing stopped: {were} indexed, the last one {ago} ago,"
            f" and no document of any dataset has made progress since: {CHECK_WORKER}."
        )

    @property
    def _seconds_without_progress(self) -> float:
        return loop_time() - self.followed.activity.last_progress_at

    def _patience(self, followed: FollowedDocument) -> float:
        return (
            min(self.stall_after, self.stall_after_retry)
            if _stalled_before(followed)
            else self.stall_after
        )

    def _is_uncounted(self, followed: FollowedDocument) -> bool:
        """Return whether the segments of a document being indexed have to be counted first."""
        if (
            followed.is_waiting
            or followed.document.batch is None
            or followed.counted_at is not None
        ):
            return False
        return loop_time() - followed.since > self._patience(followed) / 2


def _time_since_progress(followed: FollowedDocument, activity: IndexingActivity) -> float:
    """Return the seconds since the last progress of the document or the load, including outages."""
    last_progress_at = max(
        followed.last_progress_at, activity.indexed_at or followed.last_progress_at
    )
    return loop_time() - last_progress_at


def _stalled_before(followed: FollowedDocument) -> bool:
    return followed.file.planned.stalled_before


def format_duration(seconds: float) -> str:
    """Return a duration in s, min or h."""
    if seconds >= 2 * 3600:
        return f"{round(seconds / 3600, 1):g} h"
    return f"{seconds / 60:.0f} min" if seconds >= 2 * 60 else f"{round(seconds, 1):g} s"
