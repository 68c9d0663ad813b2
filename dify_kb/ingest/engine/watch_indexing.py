"""Poll the indexing status of accepted documents until indexing finishes.

Documents finish in the order of the list, so that the page of the oldest document is polled first:
a page contains the status of up to 100 documents.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve

from dify_kb.config import LoadTiming, Polling
from dify_kb.errors import NotFoundError
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.document_lookup import MAX_NAME_QUERIES, DocumentLookup
from dify_kb.ingest.report import StopReason
from dify_kb.models import IndexingStatus
from dify_kb.resources import Documents
from dify_kb.transport.clock import loop_time

from .file_lifecycle import FileLifecycle
from .followed_documents import (
    PAGE_SIZE,
    FollowedDocument,
    FollowedDocuments,
    select_least_recently_requested,
)
from .indexing_observer import IndexingObserver
from .stall_detector import StallDetector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import Document, DocumentStatus

DOCUMENTS_PER_POLL = 50
"""Number of documents expected to finish between two polls."""

MIN_INTERVAL = 0.025
"""Minimum interval between two polls, as a fraction of the elapsed time: the end of the last
document is detected within 5 % of the total time."""


@define
class IndexingWatcher:
    """Poller of the indexing status of accepted documents, by pages of the list.

    Requests one page per about 50 finished documents, at intervals adapted to the server's speed,
    but of at least 2.5 % of the elapsed time.
    """

    documents: Documents
    dataset_id: str
    times: Polling
    timing: LoadTiming
    lookup: DocumentLookup
    breaker: CircuitBreaker
    stalls: StallDetector
    observer: IndexingObserver
    files: FileLifecycle
    _health: tuple[int, float] = (0, -math.inf)
    """Number of outages and time of the last resumption when the clocks were last restarted."""

    _list_again_at: float = -math.inf
    """Time when the whole list may be read again, after a list without all documents."""

    @property
    def _followed(self) -> FollowedDocuments:
        return self.files.followed

    async def run(self) -> None:
        """Poll until cancelled.

        Raises:
            KnowledgeError: the server refused a request, or the load gave up on it.
        """
        wait = self.times.first_interval
        while True:
            if not self._followed:
                await self._followed.wait()
                wait = self.times.first_interval
            await anyio.sleep(wait)
            ended = self._followed.ended
            await self.breaker.read(self._poll)
            await self.breaker.read(self._finish_stalled)
            wait = self._next_wait(wait, self._followed.ended - ended)

    def _next_wait(self, wait: float, ended: int) -> float:
        """Return the seconds until the next poll.

        In that time, `DOCUMENTS_PER_POLL` or half of the remaining documents should finish.
        """
        followed, first = self._followed, self.times.first_interval
        longest_interval = self.stalls.longest_interval
        if any(item.is_undecided for item in followed):
            longest_interval = min(longest_interval, self.timing.confirm_interval)
        longest_interval = max(first, longest_interval)
        elapsed = loop_time() - followed.began
        min_wait = max(first, MIN_INTERVAL * elapsed)
        if not followed.ended:
            longest = max(self.times.max_interval, MIN_INTERVAL * elapsed)
            return min(max(min_wait, min(2 * wait, longest)), longest_interval)
        rate = max(followed.ended / max(elapsed, 1e-9), ended / max(wait, 1e-9))
        expected_seconds = min(DOCUMENTS_PER_POLL, len(followed) / 2) / rate
        return min(max(min_wait, min(expected_seconds, elapsed / 2)), longest_interval)

    async def _poll(self) -> None:
        self.observer.end_displaced()
        await self._locate()
        visited: set[int] = set()
        while (page := self._next_page_due(visited)) is not None:
            visited.add(page)
            if await self._poll_page(page):
                break
        stale = self._oldest_unseen_page()
        if stale is not None and stale not in visited:
            await self._poll_page(stale)
        for followed in select_least_recently_requested(
            item for item in self._followed if item.needs_status_request
        ):
            followed.needs_status_request = False
            await self._request_status(followed)

    def _next_page_due(self, visited: set[int]) -> int | None:
        """Return the page where documents should finish next.

        This is the page of the oldest document that waits for a worker or, if none waits, of the
        oldest document.
        """
        pages = ((self._followed.expected_page(item), item.is_waiting) for item in self._followed)
        remaining = [
            (page, waits) for page, waits in pages if page is not None and page not in visited
        ]
        return next(
            (page for page, waits in remaining if waits), remaining[0][0] if remaining else None
        )

    def _oldest_unseen_page(self) -> int | None:
        """Return the page polled least recently, if that was more than `revisit_interval` ago."""
        located = (item for item in self._followed if item.base is not None)
        followed = min(located, key=lambda item: item.polled_at, default=None)
        if followed is None or followed.polled_at > loop_time() - self.timing.revisit_interval:
            return None
        return self._followed.expected_page(followed)

    async def _poll_page(self, page: int) -> bool:
        """Poll a page of the list; return whether one of its documents waits for a worker."""
        group = [item for item in self._followed if self._followed.expected_page(item) == page]
        if len(group) == 1:
            await self._request_status(group[0])
        else:
            listed = await self.documents.list(self.dataset_id, page=page + 1, limit=PAGE_SIZE)
            self._process_rows(listed.data, page * PAGE_SIZE)
            listed_ids = {row.id for row in listed.data}
            missing = [item for item in group if item.document.id not in listed_ids]
            for followed in missing:
                if len(missing) <= MAX_NAME_QUERIES:
                    await self._request_status(followed)
                else:
                    followed.base = None
        remaining = [item for item in group if self._followed.get(item.document.id)]
        return any(item.is_waiting and not self.stalls.is_passed_over(item) for item in remaining)

    def _process_rows(self, rows: Sequence[Document], first: int) -> None:
        """Process rows of the list, and correct the expected positions if the list has shifted."""
        shifts: list[int] = []
        for place, row in enumerate(rows, first):
            if row.indexing_status is IndexingStatus.COMPLETED:
                self._followed.activity.record_newest(row.created_at)
            if followed := self._followed.get(row.id):
                base = place - self._followed.activity.added.count
                shifts.append(0 if followed.base is None else base - followed.base)
                followed.base = base
                self.observer.process_row(followed, row)
        shift = statistics.median_low(shifts) if shifts else 0
        if shift:
            listed_ids = {row.id for row in rows}
            for followed in self._followed:
                if followed.base is not None and followed.document.id not in listed_ids:
                    followed.base += shift

    async def _locate(self) -> None:
        """Find unknown positions of documents in the list.

        Lists may be cached, so that missing documents are requested individually, some in each
        poll.
        """
        many = len(self._followed.documents_without_position) > MAX_NAME_QUERIES
        if many and loop_time() >= self._list_again_at and not await self._read_list():
            self._list_again_at = loop_time() + self.timing.revisit_interval
        for followed in select_least_recently_requested(self._followed.documents_without_position):
            await self._request_status(followed)

    async def _read_list(self) -> bool:
        """Read the list until all documents are located; return whether all were found."""
        first, missing = (
            0,
            {followed.document.id for followed in self._followed.documents_without_position},
        )
        async for rows in self.documents.iter(self.dataset_id).pages():
            self._process_rows(rows, first)
            first += len(rows)
            missing.difference_update(row.id for row in rows)
            if not missing:
                break
        return not missing

    async def _request_status(self, followed: FollowedDocument) -> None:
        """Request the status of a document by its batch, otherwise by its name."""
        if self._followed.get(followed.document.id) is not followed:
            return  # it has ended
        followed.polled_at = followed.requested_at = loop_time()
        batch = followed.document.batch
        statuses: Sequence[DocumentStatus] = ()
        if batch is not None:
            with contextlib.suppress(NotFoundError):
                statuses = await self.documents.indexing_status(self.dataset_id, batch)
        status = next((item for item in statuses if item.id == followed.document.id), None)
        if status is not None:
            self.observer.process_status(followed, status)
            return
        # A later upload with the same name has changed its batch.
        followed.document = evolve(followed.document, batch=None)
        followed.file.document = followed.document
        row = await self.lookup.find(followed.file.planned.name)
        if row is not None and row.id == followed.document.id:
            self.observer.process_row(followed, row)
        else:
            followed.base = None
            self.observer.record_missing(followed)

    async def _finish_stalled(self) -> None:
        """Finish stalled documents; stop the run if the server does not index at all."""
        if not self._followed or self._had_outage():
            return
        quiet = self.stalls.is_quiet
        if quiet and not await self.stalls.probe_all_datasets():
            self.files.backlog.forget_earlier_runs()
        suspects = select_least_recently_requested(
            filter(self.stalls.needs_status_request, self._followed)
        )
        samples = (
            select_least_recently_requested(self._followed)[:MAX_NAME_QUERIES] if quiet else []
        )  # lists may be cached: request some documents individually
        for followed in dict.fromkeys(suspects + samples):
            await self._request_status(followed)
        if not self._followed or self._had_outage():
            return
        if self.stalls.is_server_idle:
            self._stop_idle()
            return
        remaining = (item for item in suspects if self._followed.get(item.document.id) is item)
        for followed in filter(self.stalls.has_stalled, remaining):
            if not followed.is_undecided:  # otherwise the next poll decides
                self.observer.end_stalled(followed, self.stalls.describe(followed))

    def _had_outage(self) -> bool:
        """Return whether there was an outage or a dataset lock since the last poll.

        In that case, restart the clocks of all documents, because they could not make progress.
        """
        health = self.breaker.outages, self.breaker.resumed_at
        if health == self._health and self.breaker.is_closed:
            return False
        self._health = health
        now = self._followed.activity.last_progress_at = loop_time()
        for followed in self._followed:
            followed.since = now
        return True

    def _stop_idle(self) -> None:
        """Finish all documents as stalled; stop the run if the server is the cause."""
        message = self.stalls.describe_idle_server()
        stops = any(map(self.stalls.is_caused_by_server, self._followed))
        for followed in self._followed:
            self.observer.end_stalled(followed, self.stalls.describe(followed))
        if stops:
            self.files.stop(StopReason.NOT_INDEXING, message, abandon=True)
