"""Probe all datasets for indexing progress while no document of the load makes any."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.error_classes import is_passing
from dify_kb.models import IndexingStatus
from dify_kb.resources import Datasets, Documents
from dify_kb.transport.clock import loop_time

from .followed_documents import PAGE
from .indexing_activity import DatasetCounters, IndexingActivity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dify_kb.models import Document

MOVED_DATASETS = 3
"""Maximum number of changed datasets whose newest documents are listed in one probe."""


@define
class ActivityProbe:
    """Probe that compares the queue of the dataset and the counters of all with earlier ones."""

    documents: Documents
    datasets: Datasets
    dataset_id: str
    activity: IndexingActivity
    _is_first: bool = True
    _compared_at: float = -math.inf
    _visited_at: dict[str, float] = field(factory=dict)
    """When the newest documents of another dataset were last listed."""

    @property
    def has_compared(self) -> bool:
        """Whether the datasets were compared since the last progress."""
        return self._compared_at > self.activity.moved_at

    async def look(self) -> bool:
        """Return whether any dataset makes progress; True at the first call.

        Takes two requests, one per 100 datasets, and two for each of up to `MOVED_DATASETS`.
        """
        waiting = await self.documents.list(self.dataset_id, status="queuing", limit=1)
        moved = self.activity.record_queue(self.dataset_id, waiting.total)
        for row in await self._indexed(self.dataset_id):
            self.activity.record_newest(row.created_at)
        counters = await self._counters()
        if counters is not None:
            counted, changed = self.activity.record_counters(counters)
            moved = counted or moved
            for dataset_id in self._choose(changed):
                moved = await self._look_at(dataset_id) or moved
        first, self._is_first = self._is_first, False
        if not first:
            self._compared_at = loop_time()
        return first or moved

    async def _counters(self) -> dict[str, DatasetCounters] | None:
        """Return the counters of all datasets; None if the server refuses to list them.

        It does while its plugin daemon is down (measured).
        """
        counters: dict[str, DatasetCounters] = {}
        try:
            async for dataset in self.datasets.iter():
                available = dataset.total_available_documents
                counters[dataset.id] = DatasetCounters(dataset.word_count, available)
        except KnowledgeError as error:
            if is_passing(error):
                raise
            return None
        return counters

    def _choose(self, changed: Iterable[str]) -> list[str]:
        """Return the datasets to list next, least recently listed first."""
        others = [dataset_id for dataset_id in changed if dataset_id != self.dataset_id]
        others.sort(key=lambda dataset_id: self._visited_at.get(dataset_id, -math.inf))
        return others[:MOVED_DATASETS]

    async def _look_at(self, dataset_id: str) -> bool:
        """Probe another dataset; return whether its queue became shorter."""
        self._visited_at[dataset_id] = loop_time()
        try:
            waiting = await self.documents.list(dataset_id, status="queuing", limit=1)
            indexed = await self._indexed(dataset_id)
        except KnowledgeError as error:
            if is_passing(error):
                raise
            return False  # the dataset was deleted, or its API is disabled
        for row in indexed:
            self.activity.record_newest_elsewhere(row.created_at)
        return self.activity.record_queue(dataset_id, waiting.total)

    async def _indexed(self, dataset_id: str) -> list[Document]:
        """Return the indexed ones among the newest documents of a dataset."""
        newest = await self.documents.list(dataset_id, limit=PAGE)
        return [row for row in newest.data if row.indexing_status is IndexingStatus.COMPLETED]
